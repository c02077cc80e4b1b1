//! The cache at large. What would take a walk through all keys is estimated from a part of them, see
//! [`super::sample`].

use std::fmt;
use std::time::Duration;

use serde::Serialize;

use super::sample::Walk;
use super::{Cache, Entry, StoredKey, Unanswered};
use crate::error::{Error, quote};
use crate::procedure::Procedure;

/// A survey looks at a hundred thousand keys.
const SURVEYED_PAGES: u64 = 400;

/// What Redis tells of itself: of all that it holds and all that it is asked, by whomever.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ServerStats {
    /// Peer text, escaped and shortened.
    pub version: String,
    /// Bytes.
    pub memory: u64,
    /// Bytes; `None`: none.
    pub memory_limit: Option<u64>,
    /// What it does at the limit: peer text, escaped and shortened.
    pub eviction_policy: String,
    /// Lookups that found a key, since it was started.
    pub hits: u64,
    /// Lookups that found none.
    pub misses: u64,
    /// Keys removed for want of memory.
    pub evicted: u64,
    /// Keys whose time was up.
    pub expired: u64,
    /// Commands carried out, since it was started.
    pub commands: u64,
    /// Connections to it at the moment.
    pub clients: u64,
    /// For how long it has been running, in seconds.
    pub uptime: u64,
}

/// What the keys of a procedure are like.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Survey {
    /// Keys in the database, anybody's; `None`: this login may not ask.
    pub keys: Option<u64>,
    /// Answers of the procedure.
    pub answers: Count,
    /// Their bytes, without what Redis needs to keep them.
    pub bytes: Count,
    /// Leases that are held, or left as `uncached`.
    pub leases: Count,
    /// How long the answers live that were looked at.
    pub ttl: Lives,
}

/// A number, and what it is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Count {
    /// The number.
    pub count: u64,
    /// What it is worth.
    pub precision: Precision,
}

/// What a [`Count`] is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Precision {
    /// All were counted. (What changes meanwhile may be counted twice, or not.)
    Exact,
    /// Estimated from a sample.
    About,
    /// These were counted, and nobody says how many there are.
    AtLeast,
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Exact => "exact",
            Self::About => "about",
            Self::AtLeast => "at-least",
        })
    }
}

/// How many answers have how long to live.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Lives {
    /// Up to a minute.
    pub minute: u64,
    /// Up to an hour.
    pub hour: u64,
    /// Up to a day.
    pub day: u64,
    /// Up to a week.
    pub week: u64,
    /// Longer.
    pub longer: u64,
    /// For ever.
    pub forever: u64,
}

impl Lives {
    fn count(&mut self, ttl: Option<Duration>) {
        let Some(ttl) = ttl else {
            self.forever += 1;
            return;
        };
        let hour = Duration::from_secs(60 * 60);
        let bucket = match ttl {
            _ if ttl <= hour / 60 => &mut self.minute,
            _ if ttl <= hour => &mut self.hour,
            _ if ttl <= hour * 24 => &mut self.day,
            _ if ttl <= hour * 24 * 7 => &mut self.week,
            _ => &mut self.longer,
        };
        *bucket += 1;
    }
}

impl Cache {
    /// What Redis tells of itself; `None` if it does not tell this login.
    pub async fn server_stats(&self) -> Result<Option<ServerStats>, Error> {
        let mut info = redis::cmd("INFO");
        info.arg("server").arg("clients").arg("memory").arg("stats");
        match self.manage::<String>(&info).await {
            Ok(info) => Ok(Some(ServerStats::read(&info))),
            Err(Unanswered::Refused(_)) => Ok(None),
            Err(unanswered) => Err(self.error(unanswered)),
        }
    }

    /// Looks at the keys of the procedure: at all of them among up to a hundred thousand keys, else
    /// at as many from a random place on.
    pub async fn survey<P: Procedure>(&self, procedure: &P) -> Result<Survey, Error> {
        let keys = self.size_of_database().await?;
        let mut walk = Walk::new(keys, SURVEYED_PAGES);
        let [mut looked_at, mut answers, mut bytes, mut leases] = [0, 0, 0, 0];
        let mut ttl = Lives::default();
        while let Some(page) = walk.next_page(self, None).await? {
            looked_at += page.len() as u64;
            let is_lease = |key: &&StoredKey| self.is_lease_of(procedure, key);
            leases += page.iter().filter(is_lease).count() as u64;
            let ours = page.into_iter().filter(|key| self.is_of(procedure, key));
            let entries = self.entries(&ours.collect::<Vec<_>>()).await?;
            for Entry { ttl: life, size } in entries.into_iter().flatten() {
                answers += 1;
                bytes += size.unwrap_or(0);
                ttl.count(life);
            }
        }
        let estimate = |counted| Count::estimate(counted, looked_at, keys, walk.complete);
        Ok(Survey {
            keys,
            answers: estimate(answers),
            bytes: estimate(bytes),
            leases: estimate(leases),
            ttl,
        })
    }

    /// `None`: this login may not ask.
    pub(super) async fn size_of_database(&self) -> Result<Option<u64>, Error> {
        match self.manage(&redis::cmd("DBSIZE")).await {
            Ok(size) => Ok(Some(size)),
            Err(Unanswered::Refused(_)) => Ok(None),
            Err(unanswered) => Err(self.error(unanswered)),
        }
    }

    fn is_lease_of<P: Procedure>(&self, procedure: &P, StoredKey(key): &StoredKey) -> bool {
        let inner = key.strip_prefix(b"{");
        let inner = inner.and_then(|key| key.strip_suffix(b"}:lease"));
        inner.is_some_and(|key| self.is_of(procedure, &StoredKey(key.to_owned())))
    }
}

impl Count {
    /// From `counted` among so many of so many keys.
    fn estimate(counted: u64, looked_at: u64, keys: Option<u64>, complete: bool) -> Self {
        let (count, precision) = match keys {
            _ if complete => (counted, Precision::Exact),
            None => (counted, Precision::AtLeast),
            Some(keys) => {
                let scaled = u128::from(counted) * u128::from(keys) / u128::from(looked_at.max(1));
                let count = u64::try_from(scaled).unwrap_or(u64::MAX);
                (count, Precision::About)
            }
        };
        Self { count, precision }
    }
}

impl ServerStats {
    /// From what INFO says. What is missing is nothing.
    fn read(info: &str) -> Self {
        let field = |name: &str| {
            let mut lines = info.lines();
            lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
        };
        let number = |name| field(name).and_then(|text| text.parse::<u64>().ok());
        let text = |name| quote(field(name).unwrap_or_default().as_bytes());
        Self {
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
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lives_are_sorted_into_buckets() {
        let mut lives = Lives::default();
        for seconds in [0, 60, 61, 3600, 3601, 86_400, 86_401, 604_800, 604_801] {
            lives.count(Some(Duration::from_secs(seconds)));
        }
        lives.count(None);
        lives.count(Some(Duration::MAX));
        let expected = Lives {
            minute: 2,
            hour: 2,
            day: 2,
            week: 2,
            longer: 2,
            forever: 1,
        };
        assert_eq!(lives, expected);
    }

    #[test]
    fn counts_say_what_they_are_worth() {
        let estimate = |keys, complete| {
            let Count { count, precision } = Count::estimate(30, 100, keys, complete);
            (count, precision)
        };
        assert_eq!(estimate(Some(100), true), (30, Precision::Exact));
        assert_eq!(estimate(None, true), (30, Precision::Exact));
        assert_eq!(
            estimate(Some(1_000_000), false),
            (300_000, Precision::About)
        );
        assert_eq!(estimate(None, false), (30, Precision::AtLeast));
        let none = Count::estimate(0, 0, Some(u64::MAX), false);
        assert_eq!(none.count, 0);
    }

    #[test]
    fn info_is_read() {
        let info = "# Memory\r\nused_memory:1024\r\nused_memory_human:1K\r\nmaxmemory:0\r\n\
            maxmemory_policy:noeviction\r\nkeyspace_hits:7\r\nevicted_keys:x\r\n";
        let stats = ServerStats::read(info);
        assert_eq!((stats.memory, stats.memory_limit), (1024, None));
        assert_eq!((stats.hits, stats.evicted), (7, 0));
        assert_eq!(stats.eviction_policy, "noeviction");
    }
}
