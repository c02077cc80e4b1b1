//! The cache as a person sees it who looks into it or tidies up. Not part of any call.

use std::sync::Arc;
use std::time::Duration;

use redis::{Cmd, FromRedisValue};

use super::connection::{self, State, Unanswered};
use super::{Cache, key};
use crate::error::{Error, quote};
use crate::procedure::{Procedure, check};

/// For a person who looks into the cache: not part of any call, so patience costs nobody.
const MANAGEMENT_DEADLINE: Duration = Duration::from_secs(5);

/// What stands under a key, for a person who looks.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Stored<A> {
    /// No such key.
    Nothing,
    /// An answer that passed the check.
    Answer(A),
    /// Something that calls would refuse and replace: peer text, escaped and shortened.
    Refused(String),
}

impl Cache {
    /// What stands under the argument's key, as [`lookup`](Self::lookup) would see it, for a person
    /// who looks. Waits up to 5 s once connected.
    pub async fn get<P: Procedure>(
        &self,
        procedure: &Arc<P>,
        argument: &Arc<P::Argument>,
    ) -> Result<Stored<P::Answer>, Error> {
        let key = self.key::<P>(argument);
        let found = self
            .manage::<Option<Vec<u8>>>(&Cmd::get(key.as_str()))
            .await;
        match found {
            Ok(None) => Ok(Stored::Nothing),
            Ok(Some(text)) => Ok(match check(procedure, argument, text).await {
                Ok(answer) => Stored::Answer(answer),
                Err(text) => Stored::Refused(quote(&text)),
            }),
            Err(Unanswered::Refused(error)) if error.code() == Some("WRONGTYPE") => {
                Ok(Stored::Refused("a value that is no string".to_owned()))
            }
            Err(unanswered) => Err(self.error(unanswered)),
        }
    }

    /// Removes the argument's answer; `false` where there was none. Waits up to 5 s
    /// once connected.
    pub async fn remove<P: Procedure>(&self, argument: &P::Argument) -> Result<bool, Error> {
        let key = self.key::<P>(argument);
        let removed: u64 = self
            .manage(&Cmd::unlink(key.as_str()))
            .await
            .map_err(|unanswered| self.error(unanswered))?;
        Ok(removed == 1)
    }

    /// Calls `visit` with each key of the procedure, in no order, some maybe twice, as SCAN finds
    /// them: Redis serves others in between. Ends early when `visit` returns `false`.
    pub async fn keys<P: Procedure>(
        &self,
        mut visit: impl FnMut(&str) -> bool,
    ) -> Result<(), Error> {
        let pattern = format!("{}*", key::prefix(self.options.namespace.as_ref(), P::NAME));
        let mut cursor = 0_u64;
        loop {
            let mut scan = redis::cmd("SCAN");
            scan.arg(cursor)
                .arg("MATCH")
                .arg(&pattern)
                .arg("COUNT")
                .arg(1000);
            let (next, page): (u64, Vec<Vec<u8>>) = self
                .manage(&scan)
                .await
                .map_err(|unanswered| self.error(unanswered))?;
            // Whoever else writes to this Redis may have put anything there.
            let mut keys = page.iter().map(|key| String::from_utf8_lossy(key));
            if !keys.all(|key| visit(&key)) || next == 0 {
                return Ok(());
            }
            cursor = next;
        }
    }

    async fn manage<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, Unanswered> {
        self.connection.settled().await;
        self.connection.run(command, MANAGEMENT_DEADLINE).await
    }

    pub(super) fn error(&self, unanswered: Unanswered) -> Error {
        let server = self.options.url.to_string();
        match unanswered {
            Unanswered::Refused(error) => Error::Refused {
                server,
                reason: connection::describe(&error),
            },
            Unanswered::Unavailable => match self.connection.state() {
                State::Down(error) => error,
                State::Connecting | State::Up => Error::Unreachable {
                    server,
                    reason: "no answer in time".to_owned(),
                },
            },
        }
    }
}
