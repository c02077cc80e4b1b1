//! Inspecting and tidying up the cache. Not part of any call.
//!
//! Nothing here holds up calls, however many keys there are and however large they are: keys come by
//! SCAN, a page at a time, and values a few hundred kB at a time. Every method waits up to 5 s for each
//! answer of the store, once connected.

mod entries;
mod explain;
mod keys;
mod sample;
mod server;
mod survey;
mod verify;

use std::sync::Arc;
use std::time::Duration;

pub use self::explain::{Explained, LeaseHeld, LeaseHolder};
pub use self::keys::{KeyPattern, KeyPatternError, Scan, StoredKey};
pub use self::survey::{Estimate, Precision, Survey, TtlBuckets};
pub use self::verify::{EntryFault, Verified, WrongEntry};

use super::Cache;
use super::store::StoreError;
use crate::counts::ConnectionState;
use crate::error::{Error, quote};
use crate::procedure::{Procedure, check};

/// Limit of one round trip: not part of any call.
pub(super) const INSPECT_DEADLINE: Duration = Duration::from_secs(5);

/// What stands under a key: see [`Cache::get`].
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
        self.store.settled().await;
        match self.store.read(&key, INSPECT_DEADLINE).await {
            Ok(None) => Ok(Stored::Nothing),
            Ok(Some(text)) => Ok(match check(procedure, argument, text).await {
                Ok(answer) => Stored::Answer(answer),
                Err(text) => Stored::Refused(quote(&text)),
            }),
            Err(error) => match error.no_answer() {
                Some(found) => Ok(Stored::Refused(found.to_owned())),
                None => Err(self.error(error)),
            },
        }
    }

    /// Removes the argument's answer, as [`remove_keys`](Self::remove_keys) does, and clients' copies of
    /// it; `false` where there was none in the store.
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

    /// Waits for the first attempt to connect, and then for one command; its errors as those of a call of
    /// this library.
    async fn ask<T>(
        &self,
        command: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, Error> {
        self.store.settled().await;
        command.await.map_err(|error| self.error(error))
    }

    pub(super) fn error(&self, error: StoreError) -> Error {
        let server = || self.options.url.to_string();
        match error {
            StoreError::Refused(refusal) => Error::Refused {
                server: server(),
                reason: refusal.reason,
            },
            StoreError::Unavailable => match self.counts.redis.state() {
                ConnectionState::Down(error) => error,
                ConnectionState::Connecting | ConnectionState::Up => Error::Unreachable {
                    server: server(),
                    reason: "no answer in time".to_owned(),
                },
            },
        }
    }
}
