//! The store: the shared cache itself, at the level of claims and not of one server's commands.
//!
//! A static enum, so that a hit costs no boxing and no dynamic call. Above it stand what holds for every
//! store: the cache budget, the check of answers, counts, spans and throttled log lines. Below it, each in
//! a folder of its own, stand the stores: connections, their breakers, commands and scripts.
//!
//! Every method waits no longer than its `limit` and is cancel safe: a command that was sent may be
//! carried out all the same, and its reply reaches no other caller.

mod optional;
mod types;

use std::sync::Arc;
use std::time::Duration;

pub(crate) use self::types::{
    Claimed, Event, Filled, GetResult, LeaseChange, LeaseFacts, Refusal, RefusalKind, StoreError,
    Unchanged,
};
pub use self::types::{Entry, ServerStats};

use super::redis::RedisStore;
use super::{CacheOptions, Key, Token};
use crate::counts::CacheCounts;

/// A store of answers.
#[derive(Debug)]
pub(crate) enum Store {
    Redis(RedisStore),
}

/// What every store can do; the rest is in [`optional`].
impl Store {
    /// Starts connecting to the store that the options name, in the background. The one place where an
    /// address becomes connections. Must be called within a Tokio runtime.
    pub(super) fn open(options: &CacheOptions, counts: Arc<CacheCounts>) -> Self {
        Self::Redis(RedisStore::open(options, counts))
    }

    /// The name of the store, for log lines.
    pub(super) fn name(&self) -> &'static str {
        let Self::Redis(_) = self;
        "Redis"
    }

    /// Whether commands on this key would be sent now, or in a moment: a connection that was lost is being
    /// replaced.
    pub(crate) fn is_up(&self, key: &Key) -> bool {
        let Self::Redis(redis) = self;
        redis.is_up(key)
    }

    /// Waits until a lookup can be sent, or the first attempt to connect has failed.
    pub(crate) async fn ready(&self) {
        let Self::Redis(redis) = self;
        redis.ready().await;
    }

    /// Waits until the first attempt to connect has ended, well or not.
    pub(crate) async fn settled(&self) {
        let Self::Redis(redis) = self;
        redis.settled().await;
    }

    /// Waits for a connection, for ever if need be.
    pub(crate) async fn up(&self) {
        let Self::Redis(redis) = self;
        redis.up().await;
    }

    /// Gets what stands under a key. Lookups of one moment may share a command.
    // Not async: every hit would carry one more state.
    pub(crate) fn get(&self, key: &str, limit: Duration) -> impl Future<Output = GetResult> + Send {
        let Self::Redis(redis) = self;
        redis.get(key, limit)
    }

    /// Gets what stands under several keys, in their order. A key's own error is the store's word on that
    /// key alone.
    pub(crate) async fn get_many(
        &self,
        keys: &[&[u8]],
        limit: Duration,
    ) -> Result<Vec<GetResult>, StoreError> {
        let Self::Redis(redis) = self;
        redis.get_many(keys, limit).await
    }

    /// Tries to take a lease for `ttl`, and then gets what stands under `key` if there is one to look
    /// under, in one round trip and in this order. A key in the lease's place that never expires gets this TTL.
    pub(crate) async fn claim(
        &self,
        lease: &str,
        token: &Token,
        ttl: Duration,
        key: Option<&Key>,
        limit: Duration,
    ) -> Result<Claimed, StoreError> {
        let Self::Redis(redis) = self;
        redis.claim(lease, token, ttl, key, limit).await
    }

    /// Stores an answer over whatever stands there, and releases the lease where there is one, in one round
    /// trip. `ttl`: `None` keeps it for ever.
    pub(crate) async fn fill(
        &self,
        key: &Key,
        answer: &[u8],
        ttl: Option<Duration>,
        lease: Option<(&str, &Token)>,
        limit: Duration,
    ) -> Result<Filled, StoreError> {
        let Self::Redis(redis) = self;
        redis.fill(key, answer, ttl, lease, limit).await
    }

    /// Changes a lease, unless it is in other hands than the change is meant for.
    pub(crate) async fn change_lease(
        &self,
        lease: &str,
        token: &Token,
        change: LeaseChange<'_>,
        limit: Duration,
    ) -> Result<(), StoreError> {
        let Self::Redis(redis) = self;
        redis.change_lease(lease, token, change, limit).await
    }

    /// Adds one to a counter that expires after `ttl`; what it is then.
    pub(crate) async fn count_attempt(
        &self,
        counter: &str,
        ttl: Duration,
        limit: Duration,
    ) -> Result<u64, StoreError> {
        let Self::Redis(redis) = self;
        redis.count_attempt(counter, ttl, limit).await
    }

    /// Takes one off the counter, and removes it at nothing.
    pub(crate) async fn take_back_attempt(
        &self,
        counter: &str,
        limit: Duration,
    ) -> Result<(), StoreError> {
        let Self::Redis(redis) = self;
        redis.take_back_attempt(counter, limit).await
    }

    /// Removes the counter.
    pub(crate) async fn forget_attempts(
        &self,
        counter: &str,
        limit: Duration,
    ) -> Result<(), StoreError> {
        let Self::Redis(redis) = self;
        redis.forget_attempts(counter, limit).await
    }
}
