//! The counter of attempts at one key, `{fib:30}:starts`.

use std::time::Duration;

use redis::{Cmd, RedisError};

use super::RedisStore;
use super::errors::refused;
use crate::cache::store::StoreError;

/// One less, and nothing left behind that would never expire. INCRBY, as in counting: a login needs no
/// further right.
const ONE_LESS: &str = "local starts = tonumber(redis.call('GET', KEYS[1])) \
    if starts and starts > 1 then return redis.call('INCRBY', KEYS[1], -1) end \
    return redis.call('UNLINK', KEYS[1])";

impl RedisStore {
    pub(in crate::cache) async fn count_attempt(
        &self,
        counter: &str,
        ttl: Duration,
        limit: Duration,
    ) -> Result<u64, StoreError> {
        let ttl = i64::try_from(ttl.as_millis()).unwrap_or(i64::MAX);
        let mut commands = redis::pipe();
        commands.ignore_errors();
        commands.incr(counter, 1).pexpire(counter, ttl);
        let (attempts, expires): (Result<u64, RedisError>, Result<u64, RedisError>) =
            self.nodes.run(counter, &commands, limit).await?;
        expires.map_err(refused)?;
        attempts.map_err(refused)
    }

    pub(in crate::cache) async fn take_back_attempt(
        &self,
        counter: &str,
        limit: Duration,
    ) -> Result<(), StoreError> {
        let mut one_less = redis::cmd("EVAL");
        one_less.arg(ONE_LESS).arg(1).arg(counter);
        Ok(self.nodes.run(counter, &one_less, limit).await?)
    }

    pub(in crate::cache) async fn forget_attempts(
        &self,
        counter: &str,
        limit: Duration,
    ) -> Result<(), StoreError> {
        let unlink = Cmd::unlink(counter);
        Ok(self.nodes.run(counter, &unlink, limit).await?)
    }
}
