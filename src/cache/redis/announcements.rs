//! Small values under numbered names that expire: where workers announce themselves.

use std::time::Duration;

use redis::{Cmd, Pipeline};

use super::RedisStore;
use super::connection::readable;
use super::lease::millis;
use crate::cache::store::{GetResult, RefusalKind, StoreError};

impl RedisStore {
    pub(in crate::cache) async fn replace(
        &self,
        name: &str,
        value: &str,
        ttl: Duration,
        limit: Duration,
    ) -> GetResult {
        let set = put(name, value, ttl, "GET");
        Ok(self.nodes.run(name, &set, limit).await?)
    }

    pub(in crate::cache) async fn add(
        &self,
        name: &str,
        value: &str,
        ttl: Duration,
        limit: Duration,
    ) -> Result<bool, StoreError> {
        let set = put(name, value, ttl, "NX");
        let added: Option<()> = self.nodes.run(name, &set, limit).await?;
        Ok(added.is_some())
    }

    pub(in crate::cache) async fn get_bounded(
        &self,
        names: &[&[u8]],
        max: usize,
        limit: Duration,
    ) -> Result<Vec<GetResult>, StoreError> {
        let range = |commands: &mut Pipeline, at: usize| {
            commands.getrange(names[at], 0, max.cast_signed());
        };
        let found = self.nodes.run_each(names, range, limit).await;
        // GETRANGE gives nothing where there is no key.
        let read = |found| match readable::<Vec<u8>>(found) {
            Ok(found) => Ok(Some(found).filter(|found| !found.is_empty())),
            Err(error) => Err(StoreError::from(error)),
        };
        let found: Vec<GetResult> = found.into_iter().map(read).collect();
        let not_permitted = |found: &GetResult| {
            matches!(found, Err(StoreError::Refused(refusal))
                if refusal.kind == RefusalKind::NotPermitted)
        };
        if found.iter().any(not_permitted) {
            // The documented rights of clients and workers have MGET only.
            return self.get_many(names, limit).await;
        }
        Ok(found)
    }
}

fn put(name: &str, value: &str, ttl: Duration, how: &str) -> Cmd {
    let mut set = redis::cmd("SET");
    set.arg(name).arg(value).arg("PX").arg(millis(ttl)).arg(how);
    set
}
