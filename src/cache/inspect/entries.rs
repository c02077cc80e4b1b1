//! Reads TTLs and sizes of entries, and removes entries: many in one round trip, without reading values.

use super::{Cache, INSPECT_DEADLINE, StoredKey};
use crate::cache::Entry;
use crate::error::Error;

impl Cache {
    /// TTLs and sizes of these keys, in their order; `None` where there is no such key. One round trip.
    pub async fn entries(&self, keys: &[StoredKey]) -> Result<Vec<Option<Entry>>, Error> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let names = names(keys);
        self.ask(self.store.entries(&names, INSPECT_DEADLINE)).await
    }

    /// Removes these keys, whatever they hold; how many of them there were. Clients that keep copies of
    /// their own drop them; see [`purge_copies`](Self::purge_copies) for what happens where that fails. All
    /// keys go in one command, which holds up others: give it some thousand at a time. (To a Redis Cluster
    /// they go one by one, in one round trip.)
    ///
    /// Dropped half-way, copies last as long as they would have: remove the keys again.
    pub async fn remove_keys(&self, keys: &[StoredKey]) -> Result<u64, Error> {
        if keys.is_empty() {
            return Ok(0);
        }
        let names = names(keys);
        let removed = self
            .ask(self.store.remove(&names, INSPECT_DEADLINE))
            .await?;
        // Also of keys that were gone already: copies may outlive what the store had.
        self.purge_copies_of(keys).await;
        Ok(removed)
    }
}

pub(super) fn names(keys: &[StoredKey]) -> Vec<&[u8]> {
    keys.iter().map(StoredKey::as_bytes).collect()
}
