//! The store: the shared cache itself, at the level of claims and not of one server's commands.
//!
//! A static enum, so that a hit costs no boxing and no dynamic call. Above it stand what holds for every
//! store: the cache budget, the check of answers, counts, spans and throttled log lines. Below it, each in
//! a folder of its own, stand the stores: connections, their breakers, commands and scripts.
//!
//! Every method waits no longer than its `limit` and is cancel safe: a command that was sent may be
//! carried out all the same, and its reply reaches nobody else.

mod types;

use std::sync::Arc;
use std::time::Duration;

pub(crate) use self::types::{
    Claimed, Event, Filled, GetResult, LeaseFacts, Refusal, RefusalKind, StoreError, Unchanged,
};
pub use self::types::{Entry, ServerStats};

use super::redis::{MissingRights, RedisStore, ServerFault};
use super::{CacheOptions, Key, Namespace, Token};
use crate::counts::CacheCounts;
use crate::procedure_name::ProcedureName;

/// A store of answers.
#[derive(Debug)]
pub(crate) enum Store {
    Redis(RedisStore),
}

/// What every store can do.
impl Store {
    /// Starts connecting to the store that the options name, in the background. The one place where an
    /// address becomes connections. Must be called within a Tokio runtime.
    pub(super) fn open(options: &CacheOptions, counts: Arc<CacheCounts>) -> Self {
        Self::Redis(RedisStore::open(options, counts))
    }

    /// Whether commands would be sent now, or in a moment: a connection that was lost is being replaced.
    pub(crate) fn is_up(&self) -> bool {
        let Self::Redis(redis) = self;
        redis.is_up()
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
    pub(crate) async fn get(&self, key: &str, limit: Duration) -> GetResult {
        let Self::Redis(redis) = self;
        redis.get(key, limit).await
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

    /// Extends a lease to `ttl` from now, if this token holds it.
    pub(crate) async fn renew(
        &self,
        lease: &str,
        token: &Token,
        ttl: Duration,
        limit: Duration,
    ) -> Result<(), StoreError> {
        let Self::Redis(redis) = self;
        redis.renew(lease, token, ttl, limit).await
    }

    /// Removes a lease, if this token holds it.
    pub(crate) async fn release(
        &self,
        lease: &str,
        token: &Token,
        limit: Duration,
    ) -> Result<(), StoreError> {
        let Self::Redis(redis) = self;
        redis.release(lease, token, limit).await
    }

    /// Replaces a lease by a mark that lasts for `ttl`, if this token holds it.
    pub(crate) async fn leave(
        &self,
        lease: &str,
        token: &Token,
        mark: &str,
        ttl: Duration,
        limit: Duration,
    ) -> Result<(), StoreError> {
        let Self::Redis(redis) = self;
        redis.leave(lease, token, mark, ttl, limit).await
    }

    /// Removes a lease that another worker's token holds for the same request.
    pub(crate) async fn take_over(
        &self,
        lease: &str,
        token: &Token,
        limit: Duration,
    ) -> Result<(), StoreError> {
        let Self::Redis(redis) = self;
        redis.take_over(lease, token, limit).await
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

/// What a person needs to look into the store and to tidy up.
impl Store {
    /// Gets what stands under one key by a command of its own, which says what a value is that is no
    /// answer.
    pub(super) async fn read(&self, key: &Key, limit: Duration) -> GetResult {
        let Self::Redis(redis) = self;
        redis.read(key, limit).await
    }

    /// Gets the bytes `from` to `to`, both included; `None`: there are none, or it is no string.
    pub(super) async fn read_range(
        &self,
        key: &[u8],
        from: usize,
        to: usize,
        limit: Duration,
    ) -> GetResult {
        let Self::Redis(redis) = self;
        redis.read_range(key, from, to, limit).await
    }

    /// One step through all keys: the cursor of the next one, 0 after the last, and some of the keys that
    /// match `glob`. It goes through about `page` keys.
    pub(super) async fn scan(
        &self,
        cursor: u64,
        page: u64,
        glob: Option<&str>,
        limit: Duration,
    ) -> Result<(u64, Vec<Vec<u8>>), StoreError> {
        let Self::Redis(redis) = self;
        redis.scan(cursor, page, glob, limit).await
    }

    /// How many keys there are, anybody's; `None`: the store does not say.
    pub(super) async fn key_count(&self, limit: Duration) -> Result<Option<u64>, StoreError> {
        let Self::Redis(redis) = self;
        redis.key_count(limit).await
    }

    /// TTLs and sizes of these keys, in their order, in one round trip; `None` where there is no such key.
    pub(super) async fn entries(
        &self,
        keys: &[&[u8]],
        limit: Duration,
    ) -> Result<Vec<Option<Entry>>, StoreError> {
        let Self::Redis(redis) = self;
        redis.entries(keys, limit).await
    }

    /// Sizes in bytes; 0 where there is no such key, `None` where it holds no string.
    pub(super) async fn sizes(
        &self,
        keys: &[&[u8]],
        limit: Duration,
    ) -> Result<Vec<Option<u64>>, StoreError> {
        let Self::Redis(redis) = self;
        redis.sizes(keys, limit).await
    }

    /// Removes these keys; how many of them there were.
    pub(super) async fn remove(&self, keys: &[&[u8]], limit: Duration) -> Result<u64, StoreError> {
        let Self::Redis(redis) = self;
        redis.remove(keys, limit).await
    }

    /// Removes what has not changed since it was read, in one round trip: for each whether it is gone.
    pub(super) async fn remove_unchanged(
        &self,
        entries: &[Unchanged<'_>],
        limit: Duration,
    ) -> Result<Vec<bool>, StoreError> {
        let Self::Redis(redis) = self;
        redis.remove_unchanged(entries, limit).await
    }

    /// Who holds a key's lease, and how often its computation was attempted of late.
    pub(super) async fn lease_facts(
        &self,
        key: &Key,
        limit: Duration,
    ) -> Result<LeaseFacts, StoreError> {
        let Self::Redis(redis) = self;
        redis.lease_facts(key, limit).await
    }

    /// What the server says of itself; `None`: this login may not ask.
    pub(super) async fn server_stats(
        &self,
        limit: Duration,
    ) -> Result<Option<ServerStats>, StoreError> {
        let Self::Redis(redis) = self;
        redis.server_stats(limit).await
    }

    /// Whether nothing bounds its memory; `None`: it does not say.
    pub(super) async fn is_unbounded(&self, limit: Duration) -> Option<bool> {
        let Self::Redis(redis) = self;
        redis.is_unbounded(limit).await
    }

    /// The server's version; `None`: it does not say.
    pub(super) async fn version(&self, limit: Duration) -> Result<Option<String>, StoreError> {
        let Self::Redis(redis) = self;
        redis.version(limit).await
    }

    /// Which rights this login is missing that clients and workers of the procedure need.
    pub(super) async fn missing_rights(
        &self,
        namespace: Option<&Namespace>,
        procedure: &ProcedureName,
        limit: Duration,
    ) -> Result<MissingRights, StoreError> {
        let Self::Redis(redis) = self;
        redis.missing_rights(namespace, procedure, limit).await
    }

    /// Why a server that is there does not store answers; `None`: it does, or that cannot be found out.
    pub(super) async fn server_fault(
        &self,
        namespace: Option<&Namespace>,
        procedure: &ProcedureName,
        limit: Duration,
    ) -> Result<Option<ServerFault>, StoreError> {
        let Self::Redis(redis) = self;
        redis.server_fault(namespace, procedure, limit).await
    }
}

/// Workers' announcements: small values under numbered names that expire.
impl Store {
    /// Puts a value under a name; what stood there before.
    pub(super) async fn replace(
        &self,
        name: &str,
        value: &str,
        ttl: Duration,
        limit: Duration,
    ) -> GetResult {
        let Self::Redis(redis) = self;
        redis.replace(name, value, ttl, limit).await
    }

    /// Puts a value under a name that is free; whether it was.
    pub(super) async fn add(
        &self,
        name: &str,
        value: &str,
        ttl: Duration,
        limit: Duration,
    ) -> Result<bool, StoreError> {
        let Self::Redis(redis) = self;
        redis.add(name, value, ttl, limit).await
    }

    /// Gets up to one byte more than `max` of each of these, where this login may read in parts.
    pub(super) async fn get_bounded(
        &self,
        names: &[&[u8]],
        max: usize,
        limit: Duration,
    ) -> Result<Vec<GetResult>, StoreError> {
        let Self::Redis(redis) = self;
        redis.get_bounded(names, max, limit).await
    }
}

/// Invalidation: messages to clients that keep copies of their own.
impl Store {
    /// Publishes messages in one round trip.
    pub(super) async fn publish(
        &self,
        channel: &str,
        messages: &[Vec<u8>],
        limit: Duration,
    ) -> Result<(), StoreError> {
        let Self::Redis(redis) = self;
        redis.publish(channel, messages, limit).await
    }

    /// Listens to a channel over a connection of its own, which is replaced when it is lost. Never ends by
    /// itself.
    pub(super) fn listen(
        &self,
        channel: String,
        on_event: impl Fn(Event<'_>) + Send + Sync + 'static,
    ) -> impl Future<Output = ()> + Send + 'static {
        let Self::Redis(redis) = self;
        redis.listen(channel, on_event)
    }
}
