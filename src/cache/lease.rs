//! The lease: the right to compute a missing answer, so that a key is computed once at a time.
//!
//! `{KEY}:lease` holds the token of the request whose worker computes. It is taken where it is free, renewed
//! while computing, and released by its holder alone; a holder that dies stops renewing, and the lease
//! expires. A lease only saves work: a worker that cannot have one, because the store does not answer or
//! refuses, computes without.

use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use sha2::{Digest, Sha256};
use tokio::time::{sleep, timeout};

use super::key::Key;
use super::store::{LeaseChange, Store, StoreError};

/// TTL of a lease: a holder that is frozen for longer is overtaken.
pub(super) const LEASE: Duration = Duration::from_secs(3);

/// Interval of renewals while computing.
const RENEW: Duration = Duration::from_secs(1);

/// Pause between two attempts to release a lease while the store is away.
const RELEASE_PAUSE: Duration = Duration::from_millis(50);

/// Mark that replaces a lease when there is nothing to wait for: the answer cannot be stored.
pub(super) const UNCACHED: &str = "uncached";

/// TTL of that mark.
const UNCACHED_FOR: Duration = Duration::from_secs(1);

/// The holder of a lease: a request in the hands of a worker, `REQUEST@WORKER`.
///
/// REQUEST is a hash of the correlation id: it identifies a redelivery of the request, and is of no use for
/// forging a reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Token {
    text: Arc<str>,
    /// Length of the part up to and with the `@`.
    request: usize,
}

impl Token {
    pub(crate) fn new(correlation_id: Option<&[u8]>, worker: &str) -> Self {
        let mut text = String::with_capacity(17 + worker.len());
        match correlation_id {
            Some(id) => {
                for byte in &Sha256::digest(id)[..8] {
                    push_hex(&mut text, *byte);
                }
            }
            None => {
                for byte in fastrand::u64(..).to_be_bytes() {
                    push_hex(&mut text, byte);
                }
            }
        }
        text.push('@');
        let request = text.len();
        text.push_str(worker);
        Self {
            text: text.into(),
            request,
        }
    }

    pub(super) fn as_str(&self) -> &str {
        &self.text
    }

    /// The part that all tokens of one request have in common: `REQUEST@`.
    pub(super) fn request(&self) -> &str {
        &self.text[..self.request]
    }
}

fn push_hex(text: &mut String, byte: u8) {
    for digit in [byte >> 4, byte & 15] {
        text.push(char::from_digit(digit.into(), 16).unwrap_or('0'));
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A lease that is held, or may be. Released when dropped, unless it was ended before.
#[must_use]
#[derive(Debug)]
pub(crate) struct Lease {
    name: String,
    token: Token,
    store: Arc<Store>,
    /// Limit of one attempt to renew it, or to release it when it is dropped.
    budget: Duration,
    ended: bool,
}

/// The result of an attempt to take a lease.
pub(super) enum Taken {
    Ours(Lease),
    /// Another request has it, or another worker for this request.
    Held,
    /// No worker holds it, and it cannot be taken: compute without a lease.
    Unavailable,
}

impl Lease {
    /// Made before the store is asked for it, so that an attempt that is dropped leaves nothing behind.
    pub(super) fn new(key: &Key, token: Token, store: &Arc<Store>, budget: Duration) -> Self {
        Self {
            name: key.lease(),
            token,
            store: Arc::clone(store),
            budget,
            ended: false,
        }
    }

    pub(super) fn name_and_token(&self) -> (&str, &Token) {
        (&self.name, &self.token)
    }

    /// Whether it is ours, by what it held when it was claimed.
    pub(super) fn taken(self, held: Option<&[u8]>) -> Taken {
        match held {
            None => Taken::Ours(self),
            Some(token) if token == self.token.as_str().as_bytes() => Taken::Ours(self),
            Some(token) => {
                self.forget();
                if token == UNCACHED.as_bytes() {
                    Taken::Unavailable
                } else {
                    Taken::Held
                }
            }
        }
    }

    /// Ends it without releasing it: it is another's, or nobody's, or was released already.
    pub(super) fn forget(mut self) {
        self.ended = true;
    }

    /// Runs `work` to its end, and renews the lease meanwhile where there is one. A lease that is lost all
    /// the same costs another computation, no more.
    pub(crate) async fn kept_during<T>(lease: Option<&Self>, work: impl Future<Output = T>) -> T {
        let Some(lease) = lease else {
            return work.await;
        };
        tokio::select! {
            done = work => done,
            never = lease.renew_for_ever() => match never {},
        }
    }

    async fn renew_for_ever(&self) -> Infallible {
        loop {
            sleep(RENEW).await;
            // Late or refused: tried again in a second.
            let _ = self.change(LeaseChange::Renew(LEASE), self.budget).await;
        }
    }

    /// Releases it now.
    pub(super) async fn release(mut self, limit: Duration) {
        let released = self.change(LeaseChange::Release, limit).await;
        // Otherwise that is tried again when this is dropped.
        self.ended = !matches!(released, Err(StoreError::Unavailable));
    }

    /// Replaces it by a mark for those that wait for it: no answer will be stored.
    pub(super) async fn leave_uncached(mut self, limit: Duration) {
        let leave = LeaseChange::Leave {
            mark: UNCACHED,
            ttl: UNCACHED_FOR,
        };
        let left = self.change(leave, limit).await;
        self.ended = !matches!(left, Err(StoreError::Unavailable));
    }

    /// Removes another worker's lease for the same request, which was lost there.
    pub(super) async fn take_over(&self, limit: Duration) {
        // Failing that, its lease expires.
        let _ = self.change(LeaseChange::TakeOver, limit).await;
    }

    async fn change(&self, change: LeaseChange<'_>, limit: Duration) -> Result<(), StoreError> {
        let (name, token) = self.name_and_token();
        self.store.change_lease(name, token, change, limit).await
    }
}

impl Drop for Lease {
    /// Releases it in the background, for as long as it can last: nobody has to wait until it expires when
    /// its holder gives up.
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            return;
        };
        let (store, budget) = (Arc::clone(&self.store), self.budget);
        let (name, token) = (std::mem::take(&mut self.name), self.token.clone());
        runtime.spawn(timeout(LEASE, async move {
            let release = LeaseChange::Release;
            while let Err(StoreError::Unavailable) =
                store.change_lease(&name, &token, release, budget).await
            {
                sleep(RELEASE_PAUSE).await;
            }
        }));
    }
}
