//! Small values under numbered names that expire: where workers announce themselves.

use std::time::Duration;

use redis::{Cmd, RedisError};

use super::RedisStore;
use super::errors::refused;
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
        Ok(self.connection.run(&set, limit).await?)
    }

    pub(in crate::cache) async fn add(
        &self,
        name: &str,
        value: &str,
        ttl: Duration,
        limit: Duration,
    ) -> Result<bool, StoreError> {
        let set = put(name, value, ttl, "NX");
        let added: Option<()> = self.connection.run(&set, limit).await?;
        Ok(added.is_some())
    }

    pub(in crate::cache) async fn get_bounded(
        &self,
        names: &[&[u8]],
        max: usize,
        limit: Duration,
    ) -> Result<Vec<GetResult>, StoreError> {
        let mut commands = redis::pipe();
        commands.ignore_errors();
        for &name in names {
            commands.getrange(name, 0, max.cast_signed());
        }
        let found: Vec<Result<Vec<u8>, RedisError>> = self.connection.run(&commands, limit).await?;
        // GETRANGE gives nothing where there is no key.
        let found: Vec<GetResult> = found
            .into_iter()
            .map(|found| Ok(Some(found.map_err(refused)?).filter(|found| !found.is_empty())))
            .collect();
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
