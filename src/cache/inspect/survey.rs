//! Counts a procedure's keys, sizes and TTLs. Above a number of keys, the counts are estimates from a sample: see
//! [`super::sample`].

use std::fmt;
use std::time::Duration;

use serde::Serialize;

use super::sample::Walk;
use super::{Cache, StoredKey};
use crate::cache::Entry;
use crate::error::Error;
use crate::procedure::Procedure;

/// A survey looks at a hundred thousand keys.
const SURVEYED_PAGES: u64 = 400;

/// Numbers about a procedure's keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Survey {
    /// The number of all keys in the database; `None`: this login may not ask.
    pub keys: Option<u64>,
    /// Answers of the procedure.
    pub answers: Estimate,
    /// Their bytes, without what Redis needs to keep them.
    pub bytes: Estimate,
    /// Leases that are held, or left as `uncached`.
    pub leases: Estimate,
    /// TTLs of the answers that were looked at.
    pub ttl: TtlBuckets,
}

/// A number, and how precise it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Estimate {
    /// The number.
    pub count: u64,
    /// How precise it is.
    pub precision: Precision,
}

/// How precise an [`Estimate`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Precision {
    /// All were counted. (What changes meanwhile may be counted twice, or not.)
    Exact,
    /// Estimated from a sample.
    About,
    /// These were counted, and there may be more: the number of keys is not known.
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

/// Numbers of answers by their TTL.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct TtlBuckets {
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

impl TtlBuckets {
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
    /// Looks at the keys of the procedure: at all of them among up to a hundred thousand keys, else
    /// at as many from a random place on.
    pub async fn survey<P: Procedure>(&self, procedure: &P) -> Result<Survey, Error> {
        let keys = self.key_count().await?;
        let mut walk = Walk::new(keys, SURVEYED_PAGES);
        let [mut looked_at, mut answers, mut bytes, mut leases] = [0, 0, 0, 0];
        let mut ttl = TtlBuckets::default();
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
        let estimate = |counted| Estimate::scaled(counted, looked_at, keys, walk.complete);
        Ok(Survey {
            keys,
            answers: estimate(answers),
            bytes: estimate(bytes),
            leases: estimate(leases),
            ttl,
        })
    }

    fn is_lease_of<P: Procedure>(&self, procedure: &P, StoredKey(key): &StoredKey) -> bool {
        let inner = key.strip_prefix(b"{");
        let inner = inner.and_then(|key| key.strip_suffix(b"}:lease"));
        inner.is_some_and(|key| self.is_of(procedure, &StoredKey(key.to_owned())))
    }
}

impl Estimate {
    /// From `counted` among so many of so many keys.
    fn scaled(counted: u64, looked_at: u64, keys: Option<u64>, complete: bool) -> Self {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ttls_are_sorted_into_buckets() {
        let mut buckets = TtlBuckets::default();
        for seconds in [0, 60, 61, 3600, 3601, 86_400, 86_401, 604_800, 604_801] {
            buckets.count(Some(Duration::from_secs(seconds)));
        }
        buckets.count(None);
        buckets.count(Some(Duration::MAX));
        let expected = TtlBuckets {
            minute: 2,
            hour: 2,
            day: 2,
            week: 2,
            longer: 2,
            forever: 1,
        };
        assert_eq!(buckets, expected);
    }

    #[test]
    fn estimates_say_how_precise_they_are() {
        let estimate = |keys, complete| {
            let Estimate { count, precision } = Estimate::scaled(30, 100, keys, complete);
            (count, precision)
        };
        assert_eq!(estimate(Some(100), true), (30, Precision::Exact));
        assert_eq!(estimate(None, true), (30, Precision::Exact));
        assert_eq!(
            estimate(Some(1_000_000), false),
            (300_000, Precision::About)
        );
        assert_eq!(estimate(None, false), (30, Precision::AtLeast));
        let none = Estimate::scaled(0, 0, Some(u64::MAX), false);
        assert_eq!(none.count, 0);
    }
}
