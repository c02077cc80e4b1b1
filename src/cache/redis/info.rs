//! What the server says of itself: INFO, DBSIZE, HELLO.

use std::collections::HashMap;
use std::time::Duration;

use redis::Value;

use super::RedisStore;
use super::errors::CommandError;
use crate::cache::store::{ServerStats, StoreError};
use crate::error::quote;

impl RedisStore {
    pub(in crate::cache) async fn server_stats(
        &self,
        limit: Duration,
    ) -> Result<Option<ServerStats>, StoreError> {
        let mut info = redis::cmd("INFO");
        info.arg("server").arg("clients").arg("memory").arg("stats");
        let info: Option<String> = unless_refused(self.connection.run(&info, limit).await)?;
        Ok(info.map(|info| read(&info)))
    }

    pub(in crate::cache) async fn is_unbounded(&self, limit: Duration) -> Option<bool> {
        let mut info = redis::cmd("INFO");
        info.arg("memory");
        let info = self.connection.run::<String>(&info, limit).await.ok()?;
        Some(info.lines().any(|line| line == "maxmemory:0"))
    }

    pub(in crate::cache) async fn key_count(
        &self,
        limit: Duration,
    ) -> Result<Option<u64>, StoreError> {
        unless_refused(self.connection.run(&redis::cmd("DBSIZE"), limit).await)
    }

    /// HELLO needs no right.
    pub(in crate::cache) async fn version(
        &self,
        limit: Duration,
    ) -> Result<Option<String>, StoreError> {
        let hello = self.connection.run(&redis::cmd("HELLO"), limit).await;
        let hello: Option<HashMap<String, Value>> = unless_refused(hello)?;
        match hello {
            Some(hello) => Ok(match hello.get("version") {
                Some(Value::BulkString(text)) => Some(quote(text)),
                _ => None,
            }),
            None => Ok(self.server_stats(limit).await?.map(|stats| stats.version)),
        }
    }
}

/// `None`: this login may not ask.
fn unless_refused<T>(said: Result<T, CommandError>) -> Result<Option<T>, StoreError> {
    match said {
        Ok(said) => Ok(Some(said)),
        Err(CommandError::Refused(_)) => Ok(None),
        Err(CommandError::Unavailable) => Err(StoreError::Unavailable),
    }
}

/// Reads INFO. What is missing is 0 or empty.
fn read(info: &str) -> ServerStats {
    let field = |name: &str| {
        let mut lines = info.lines();
        lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
    };
    let number = |name| field(name).and_then(|text| text.parse::<u64>().ok());
    let text = |name| quote(field(name).unwrap_or_default().as_bytes());
    ServerStats {
        version: text("redis_version"),
        memory: number("used_memory").unwrap_or(0),
        memory_limit: number("maxmemory").filter(|&limit| limit > 0),
        eviction_policy: text("maxmemory_policy"),
        hits: number("keyspace_hits").unwrap_or(0),
        misses: number("keyspace_misses").unwrap_or(0),
        evicted: number("evicted_keys").unwrap_or(0),
        expired: number("expired_keys").unwrap_or(0),
        commands: number("total_commands_processed").unwrap_or(0),
        clients: number("connected_clients").unwrap_or(0),
        uptime: number("uptime_in_seconds").unwrap_or(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn info_is_read() {
        let info = "# Memory\r\nused_memory:1024\r\nused_memory_human:1K\r\nmaxmemory:0\r\n\
            maxmemory_policy:noeviction\r\nkeyspace_hits:7\r\nevicted_keys:x\r\n";
        let stats = read(info);
        assert_eq!((stats.memory, stats.memory_limit), (1024, None));
        assert_eq!((stats.hits, stats.evicted), (7, 0));
        assert_eq!(stats.eviction_policy, "noeviction");
    }
}
