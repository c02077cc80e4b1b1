//! The counter of attempts at one key, `{fib:30}:starts`.

use std::time::Duration;

use redis::Cmd;

use super::RedisStore;
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
        commands.incr(counter, 1).pexpire(counter, ttl).ignore();
        let (attempts,) = self.connection.run(&commands, limit).await?;
        Ok(attempts)
    }

    pub(in crate::cache) async fn take_back_attempt(
        &self,
        counter: &str,
        limit: Duration,
    ) -> Result<(), StoreError> {
        let mut one_less = redis::cmd("EVAL");
        one_less.arg(ONE_LESS).arg(1).arg(counter);
        Ok(self.connection.run(&one_less, limit).await?)
    }

    pub(in crate::cache) async fn forget_attempts(
        &self,
        counter: &str,
        limit: Duration,
    ) -> Result<(), StoreError> {
        Ok(self.connection.run(&Cmd::unlink(counter), limit).await?)
    }
}
