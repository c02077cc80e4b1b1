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
        let infos: Option<Vec<String>> =
            unless_refused(self.nodes.run_everywhere(&info, limit).await)?;
        Ok(infos.and_then(|infos| {
            infos
                .iter()
                .map(|info| read(info))
                .reduce(|one, other| sum(&one, &other))
        }))
    }

    pub(in crate::cache) async fn is_unbounded(&self, limit: Duration) -> Option<bool> {
        let mut info = redis::cmd("INFO");
        info.arg("memory");
        let infos: Vec<String> = self.nodes.run_everywhere(&info, limit).await.ok()?;
        let mut lines = infos.iter().flat_map(|info| info.lines());
        Some(lines.any(|line| line == "maxmemory:0"))
    }

    pub(in crate::cache) async fn key_count(
        &self,
        limit: Duration,
    ) -> Result<Option<u64>, StoreError> {
        let size = redis::cmd("DBSIZE");
        let sizes: Option<Vec<u64>> =
            unless_refused(self.nodes.run_everywhere(&size, limit).await)?;
        Ok(sizes.map(|sizes| sizes.iter().sum()))
    }

    /// HELLO needs no right.
    pub(in crate::cache) async fn version(
        &self,
        limit: Duration,
    ) -> Result<Option<String>, StoreError> {
        let hello = redis::cmd("HELLO");
        let hellos: Option<Vec<HashMap<String, Value>>> =
            unless_refused(self.nodes.run_everywhere(&hello, limit).await)?;
        match hellos {
            Some(hellos) => {
                let version = |hello: &HashMap<String, Value>| match hello.get("version") {
                    Some(Value::BulkString(text)) => Some(quote(text)),
                    _ => None,
                };
                Ok(hellos
                    .iter()
                    .filter_map(version)
                    .reduce(|one, other| joined(&one, &other)))
            }
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

/// The figures of several servers as those of one. Rates by them are exact while none of them restarts.
fn sum(one: &ServerStats, other: &ServerStats) -> ServerStats {
    ServerStats {
        version: joined(&one.version, &other.version),
        memory: one.memory + other.memory,
        memory_limit: one.memory_limit.zip(other.memory_limit).map(|(a, b)| a + b),
        eviction_policy: joined(&one.eviction_policy, &other.eviction_policy),
        hits: one.hits + other.hits,
        misses: one.misses + other.misses,
        evicted: one.evicted + other.evicted,
        expired: one.expired + other.expired,
        commands: one.commands + other.commands,
        clients: one.clients + other.clients,
        uptime: one.uptime.min(other.uptime),
    }
}

/// Texts of several servers: each once, the lowest first.
fn joined(one: &str, other: &str) -> String {
    if one.split(", ").any(|part| part == other) {
        return one.to_owned();
    }
    let mut parts: Vec<_> = one.split(", ").chain([other]).collect();
    parts.sort_unstable();
    parts.join(", ")
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

    #[test]
    fn figures_of_several_servers_are_summed() {
        let server = |memory, limit, version: &str, uptime| ServerStats {
            version: version.to_owned(),
            memory,
            memory_limit: limit,
            hits: 1,
            uptime,
            ..ServerStats::default()
        };
        let all = [
            server(1, Some(10), "7.2.0", 30),
            server(2, Some(20), "7.0.15", 20),
            server(4, Some(40), "7.2.0", 40),
        ];
        let whole = all.into_iter().reduce(|one, other| sum(&one, &other));
        let expected = ServerStats {
            hits: 3,
            ..server(7, Some(70), "7.0.15, 7.2.0", 20)
        };
        assert_eq!(whole, Some(expected));
        // One without a limit has room for everything.
        let limited = server(1, Some(10), "7.2.0", 1);
        assert_eq!(
            sum(&limited, &server(1, None, "7.2.0", 1)).memory_limit,
            None
        );
    }
}
