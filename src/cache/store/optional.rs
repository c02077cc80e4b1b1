//! What no call depends on, and a store need not be able to do: inspection, announcements, invalidation.

use std::time::Duration;

use super::{Entry, Event, GetResult, LeaseFacts, ServerStats, Store, StoreError, Unchanged};
use crate::cache::redis::{MissingRights, ServerFault};
use crate::cache::{Key, Namespace};
use crate::procedure_name::ProcedureName;

/// What a person needs to look into the store and to tidy up.
impl Store {
    /// Gets the value of one key by a separate command, whose error tells why a value is not an answer: its
    /// type, or its size.
    pub(in crate::cache) async fn read(&self, key: &Key, limit: Duration) -> GetResult {
        let Self::Redis(redis) = self;
        redis.read(key, limit).await
    }

    /// Gets the bytes `from` to `to`, both included; `None`: there are none, or it is no string.
    pub(in crate::cache) async fn read_range(
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
    pub(in crate::cache) async fn scan(
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
    pub(in crate::cache) async fn key_count(
        &self,
        limit: Duration,
    ) -> Result<Option<u64>, StoreError> {
        let Self::Redis(redis) = self;
        redis.key_count(limit).await
    }

    /// TTLs and sizes of these keys, in their order, in one round trip; `None` where there is no such key.
    pub(in crate::cache) async fn entries(
        &self,
        keys: &[&[u8]],
        limit: Duration,
    ) -> Result<Vec<Option<Entry>>, StoreError> {
        let Self::Redis(redis) = self;
        redis.entries(keys, limit).await
    }

    /// Sizes in bytes; 0 where there is no such key, `None` where it holds no string.
    pub(in crate::cache) async fn sizes(
        &self,
        keys: &[&[u8]],
        limit: Duration,
    ) -> Result<Vec<Option<u64>>, StoreError> {
        let Self::Redis(redis) = self;
        redis.sizes(keys, limit).await
    }

    /// Removes these keys; how many of them there were.
    pub(in crate::cache) async fn remove(
        &self,
        keys: &[&[u8]],
        limit: Duration,
    ) -> Result<u64, StoreError> {
        let Self::Redis(redis) = self;
        redis.remove(keys, limit).await
    }

    /// Removes what has not changed since it was read, in one round trip: for each whether it is gone.
    pub(in crate::cache) async fn remove_unchanged(
        &self,
        entries: &[Unchanged<'_>],
        limit: Duration,
    ) -> Result<Vec<bool>, StoreError> {
        let Self::Redis(redis) = self;
        redis.remove_unchanged(entries, limit).await
    }

    /// Who holds a key's lease, and how often its computation was attempted of late.
    pub(in crate::cache) async fn lease_facts(
        &self,
        key: &Key,
        limit: Duration,
    ) -> Result<LeaseFacts, StoreError> {
        let Self::Redis(redis) = self;
        redis.lease_facts(key, limit).await
    }

    /// What the server says of itself; `None`: this login may not ask.
    pub(in crate::cache) async fn server_stats(
        &self,
        limit: Duration,
    ) -> Result<Option<ServerStats>, StoreError> {
        let Self::Redis(redis) = self;
        redis.server_stats(limit).await
    }

    /// Whether nothing bounds its memory; `None`: it does not say.
    pub(in crate::cache) async fn is_unbounded(&self, limit: Duration) -> Option<bool> {
        let Self::Redis(redis) = self;
        redis.is_unbounded(limit).await
    }

    /// The server's version; `None`: it does not say.
    pub(in crate::cache) async fn version(
        &self,
        limit: Duration,
    ) -> Result<Option<String>, StoreError> {
        let Self::Redis(redis) = self;
        redis.version(limit).await
    }

    /// Which rights this login is missing that clients and workers of the procedure need.
    pub(in crate::cache) async fn missing_rights(
        &self,
        namespace: Option<&Namespace>,
        procedure: &ProcedureName,
        limit: Duration,
    ) -> Result<MissingRights, StoreError> {
        let Self::Redis(redis) = self;
        redis.missing_rights(namespace, procedure, limit).await
    }

    /// Why a server that is there does not store answers; `None`: it does, or that cannot be found out.
    pub(in crate::cache) async fn server_fault(
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
    pub(in crate::cache) async fn replace(
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
    pub(in crate::cache) async fn add(
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
    pub(in crate::cache) async fn get_bounded(
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
    pub(in crate::cache) async fn publish(
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
    pub(in crate::cache) fn listen(
        &self,
        channel: String,
        on_event: impl Fn(Event<'_>) + Send + Sync + 'static,
    ) -> impl Future<Output = ()> + Send + 'static {
        let Self::Redis(redis) = self;
        redis.listen(channel, on_event)
    }
}
