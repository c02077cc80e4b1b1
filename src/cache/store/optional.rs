//! What no call depends on, and a store need not be able to do: inspection, announcements, invalidation.

use std::time::Duration;

use super::{Entry, Event, GetResult, LeaseFacts, ServerStats, Store, StoreError, Unchanged};
use crate::cache::redis::{MissingRights, ServerFault};
use crate::cache::{Key, Namespace};
use crate::procedure_name::ProcedureName;

/// Declares methods that each store has under the same name, with the same arguments.
macro_rules! of_each_store {
    ($($(#[$doc:meta])* async fn $name:ident($($argument:ident: $type:ty),*) -> $result:ty;)*) => {
        impl Store {
            $($(#[$doc])*
            pub(in crate::cache) async fn $name(&self, $($argument: $type),*) -> $result {
                match self {
                    Self::Redis(redis) => redis.$name($($argument),*).await,
                }
            })*
        }
    };
}

// What a person needs to look into the store and to tidy up.
of_each_store! {
    /// Gets the value of one key by a separate command, whose error tells why a value is not an answer: its
    /// type, or its size.
    async fn read(key: &Key, limit: Duration) -> GetResult;

    /// Gets the bytes `from` to `to`, both included; `None`: there are none, or it is no string.
    async fn read_range(key: &[u8], from: usize, to: usize, limit: Duration) -> GetResult;

    /// One step through all keys: the cursor of the next one, 0 after the last, and some of the keys that
    /// match `glob`. It goes through about `page` keys.
    async fn scan(
        cursor: u64,
        page: u64,
        glob: Option<&str>,
        limit: Duration
    ) -> Result<(u64, Vec<Vec<u8>>), StoreError>;

    /// How many keys there are, anybody's; `None`: the store does not say.
    async fn key_count(limit: Duration) -> Result<Option<u64>, StoreError>;

    /// TTLs and sizes of these keys, in their order, in one round trip; `None` where there is no such key.
    async fn entries(keys: &[&[u8]], limit: Duration) -> Result<Vec<Option<Entry>>, StoreError>;

    /// Sizes in bytes; 0 where there is no such key, `None` where it holds no string.
    async fn sizes(keys: &[&[u8]], limit: Duration) -> Result<Vec<Option<u64>>, StoreError>;

    /// Removes these keys; how many of them there were.
    async fn remove(keys: &[&[u8]], limit: Duration) -> Result<u64, StoreError>;

    /// Removes what has not changed since it was read, in one round trip: for each whether it is gone.
    async fn remove_unchanged(entries: &[Unchanged<'_>], limit: Duration) -> Result<Vec<bool>, StoreError>;

    /// Who holds a key's lease, and how often its computation was attempted of late.
    async fn lease_facts(key: &Key, limit: Duration) -> Result<LeaseFacts, StoreError>;

    /// What the server says of itself; `None`: this login may not ask.
    async fn server_stats(limit: Duration) -> Result<Option<ServerStats>, StoreError>;

    /// Whether nothing bounds its memory; `None`: it does not say.
    async fn is_unbounded(limit: Duration) -> Option<bool>;

    /// The server's version; `None`: it does not say.
    async fn version(limit: Duration) -> Result<Option<String>, StoreError>;

    /// Which rights this login is missing that clients and workers of the procedure need.
    async fn missing_rights(
        namespace: Option<&Namespace>,
        procedure: &ProcedureName,
        limit: Duration
    ) -> Result<MissingRights, StoreError>;

    /// Why a server that is there does not store answers; `None`: it does, or that cannot be found out.
    async fn server_fault(
        namespace: Option<&Namespace>,
        procedure: &ProcedureName,
        limit: Duration
    ) -> Result<Option<ServerFault>, StoreError>;
}

// Workers' announcements: small values under numbered names that expire.
of_each_store! {
    /// Puts a value under a name; what stood there before.
    async fn replace(name: &str, value: &str, ttl: Duration, limit: Duration) -> GetResult;

    /// Puts a value under a name that is free; whether it was.
    async fn add(name: &str, value: &str, ttl: Duration, limit: Duration) -> Result<bool, StoreError>;

    /// Gets up to one byte more than `max` of each of these, where this login may read in parts.
    async fn get_bounded(names: &[&[u8]], max: usize, limit: Duration) -> Result<Vec<GetResult>, StoreError>;
}

// Invalidation: messages to clients that keep copies of their own.
of_each_store! {
    /// Publishes messages in one round trip.
    async fn publish(channel: &str, messages: &[Vec<u8>], limit: Duration) -> Result<(), StoreError>;
}

impl Store {
    /// The servers that hold the keys, for a person to read; `None`: the one of the address.
    pub(in crate::cache) fn servers(&self) -> Option<String> {
        let Self::Redis(redis) = self;
        redis.servers()
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
