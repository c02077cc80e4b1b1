//! The cache as a person sees it who looks into it or tidies up. Not part of any call.
//!
//! Nothing here holds up others, however many keys there are and however large they are: keys come
//! by SCAN, a page at a time, and values a few hundred kB at a time. Everything waits up to 5 s for
//! each answer of Redis, once connected.

mod entries;
mod explain;
mod keys;
mod rights;
mod sample;
mod stats;
mod topology;
mod verify;

use std::sync::Arc;
use std::time::Duration;

use redis::{Cmd, FromRedisValue, Pipeline, RedisError};

pub use self::entries::Entry;
pub use self::explain::{Explained, Holder, LeaseHeld};
pub use self::keys::{KeyPattern, KeyPatternError, Scan, StoredKey};
pub use self::rights::Lacking;
pub use self::stats::{Count, Lives, Precision, ServerStats, Survey};
pub(crate) use self::topology::Misfit;
pub use self::verify::{Verified, Wrong, WrongEntry};

use super::connection::{self, Unanswered};
use super::{Cache, no_answer};
use crate::counts::State;
use crate::error::{Error, quote};
use crate::procedure::{Procedure, check};

/// For a person who looks into the cache: not part of any call, so patience costs nobody.
const MANAGEMENT_DEADLINE: Duration = Duration::from_secs(5);

/// What stands under a key, for a person who looks: see [`Cache::get`].
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
    /// What stands under the argument's key, as calls would see it. Reads all of it.
    ///
    /// # Errors
    ///
    /// [`Error::Unreachable`] or [`Error::Refused`], as of all methods here.
    pub async fn get<P: Procedure>(
        &self,
        procedure: &Arc<P>,
        argument: &Arc<P::Argument>,
    ) -> Result<Stored<P::Answer>, Error> {
        let key = self.key(procedure.name(), &**argument);
        let found: Result<Option<Vec<u8>>, _> = self.manage(&Cmd::get(key.as_str())).await;
        match found {
            Ok(None) => Ok(Stored::Nothing),
            Ok(Some(text)) => Ok(match check(procedure, argument, text).await {
                Ok(answer) => Stored::Answer(answer),
                Err(text) => Stored::Refused(quote(&text)),
            }),
            Err(Unanswered::Refused(error)) => match no_answer(&error) {
                Some(found) => Ok(Stored::Refused(found.to_owned())),
                None => Err(self.refusal(&error)),
            },
            Err(unanswered) => Err(self.error(unanswered)),
        }
    }

    /// Removes the argument's answer, as [`remove_keys`](Self::remove_keys) does, and clients' copies of
    /// it; `false` where there was none in Redis.
    pub async fn remove<P: Procedure>(
        &self,
        procedure: &P,
        argument: &P::Argument,
    ) -> Result<bool, Error> {
        let removed = self
            .remove_keys(&[self.key_of(procedure, argument)])
            .await?;
        Ok(removed == 1)
    }

    async fn manage<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, Unanswered> {
        self.connection.settled().await;
        self.connection.run(command, MANAGEMENT_DEADLINE).await
    }

    async fn ask<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, Error> {
        let answer = self.manage(command).await;
        answer.map_err(|unanswered| self.error(unanswered))
    }

    /// Several commands in one round trip.
    pub(super) async fn ask_all<T: FromRedisValue>(&self, commands: &Pipeline) -> Result<T, Error> {
        self.connection.settled().await;
        let answers = self.connection.run_all(commands, MANAGEMENT_DEADLINE).await;
        answers.map_err(|unanswered| self.error(unanswered))
    }

    fn refusal(&self, error: &RedisError) -> Error {
        Error::Refused {
            server: self.options.url.to_string(),
            reason: connection::describe(error),
        }
    }

    pub(super) fn error(&self, unanswered: Unanswered) -> Error {
        match unanswered {
            Unanswered::Refused(error) => self.refusal(&error),
            Unanswered::Unavailable => match self.connection.state() {
                State::Down(error) => error,
                State::Connecting | State::Up => Error::Unreachable {
                    server: self.options.url.to_string(),
                    reason: "no answer in time".to_owned(),
                },
            },
        }
    }
}
