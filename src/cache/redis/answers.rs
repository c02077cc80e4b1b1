//! Answers: GET, MGET, SET, and the lease's part in the same round trip.

use std::time::Duration;

use redis::{Cmd, RedisError, Value};

use super::RedisStore;
use super::errors::refused;
use super::lease::{bound, release, take};
use crate::cache::store::{Claimed, Filled, GetResult, StoreError};
use crate::cache::{Key, Token};

impl RedisStore {
    pub(in crate::cache) fn get(
        &self,
        key: &str,
        limit: Duration,
    ) -> impl Future<Output = GetResult> + Send {
        self.batcher.get(key, limit)
    }

    pub(in crate::cache) async fn get_many(
        &self,
        keys: &[&[u8]],
        limit: Duration,
    ) -> Result<Vec<GetResult>, StoreError> {
        Ok(self.connection.get_many(&Cmd::mget(keys), limit).await?)
    }

    pub(in crate::cache) async fn read(&self, key: &Key, limit: Duration) -> GetResult {
        Ok(self.connection.run(&Cmd::get(key.as_str()), limit).await?)
    }

    pub(in crate::cache) async fn claim(
        &self,
        lease: &str,
        token: &Token,
        ttl: Duration,
        key: Option<&Key>,
        limit: Duration,
    ) -> Result<Claimed, StoreError> {
        let mut commands = redis::pipe();
        commands
            .ignore_errors()
            .add_command(take(lease, token, ttl));
        if let Some(key) = key {
            commands.get(key.as_str());
        }
        commands.add_command(bound(lease, ttl)).ignore();
        let replies: Vec<Result<Option<Vec<u8>>, RedisError>> =
            self.connection.run_all_twice(&commands, limit).await?;
        let mut replies = replies.into_iter();
        let held = replies.next().ok_or(StoreError::Unavailable)?;
        Ok(Claimed {
            held: held.map_err(Into::into),
            found: replies.next().map(|found| found.map_err(refused)),
        })
    }

    pub(in crate::cache) async fn fill(
        &self,
        key: &Key,
        answer: &[u8],
        ttl: Option<Duration>,
        lease: Option<(&str, &Token)>,
        limit: Duration,
    ) -> Result<Filled, StoreError> {
        let mut commands = redis::pipe();
        commands
            .ignore_errors()
            .add_command(set(key.as_str(), answer, ttl));
        if let Some((lease, token)) = lease {
            commands.add_command(release(lease, token));
        }
        let replies: Vec<Result<Value, RedisError>> =
            self.connection.run_all_twice(&commands, limit).await?;
        match replies.into_iter().next() {
            Some(Ok(_)) => Ok(Filled::Stored),
            Some(Err(error)) => Ok(Filled::Refused(error.into())),
            None => Err(StoreError::Unavailable),
        }
    }
}

/// SET, for ever without a TTL.
fn set(key: &str, value: &[u8], ttl: Option<Duration>) -> Cmd {
    let mut command = redis::cmd("SET");
    command.arg(key).arg(value);
    if let Some(ttl) = ttl {
        // Redis refuses 0.
        let millis = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
        command.arg("PX").arg(millis.max(1));
    }
    command
}
