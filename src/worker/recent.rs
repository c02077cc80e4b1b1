//! Statistics by key for announcements: the hottest keys, the slowest computations, the last failures.
//!
//! In memory of a fixed size, and cheap: a request takes one lock while it searches 64 numbers.

mod failures;
mod heavy_hitters;
mod slowest;

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use self::failures::Failures;
use self::heavy_hitters::HeavyHitters;
use self::slowest::Slowest;
use crate::error::ErrorCode;
use crate::fleet::{FailedKey, HotKey, SlowKey};

/// The number of hottest keys in an announcement.
const HOTTEST: usize = 8;

/// A request that came so long ago counts half.
const HALF_LIFE: Duration = Duration::from_secs(5);

/// The statistics of the last seconds to minutes.
#[derive(Debug, Default)]
pub(super) struct RecentKeys {
    requested: Mutex<Requested>,
    slowest: Slowest,
    failures: Mutex<Failures>,
}

#[derive(Debug, Default)]
struct Requested {
    keys: HeavyHitters,
    /// When the rates were read last.
    read: Option<Instant>,
}

impl RecentKeys {
    /// Counts a request for a key.
    pub(super) fn requested(&self, key: &str) {
        // Nothing panics while a lock of this file is held.
        let mut requested = self
            .requested
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        requested.keys.count(key);
    }

    /// Records a computation.
    pub(super) fn computed(&self, key: &str, took: Duration) {
        self.slowest.computed(key, took, Instant::now());
    }

    /// Records a failed request; `key` is `None` if its body is no argument.
    pub(super) fn failed(&self, key: Option<&str>, code: ErrorCode) {
        let failures = self.failures.lock();
        let mut failures = failures.unwrap_or_else(PoisonError::into_inner);
        failures.failed(key, code, Instant::now());
    }

    /// The keys requested most often, with their rates. Then fades all counts. `start` is when counting began,
    /// for the first call.
    pub(super) fn hottest(&self, start: Instant) -> Vec<HotKey> {
        let now = Instant::now();
        let mut requested = self
            .requested
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let since = requested.read.replace(now).unwrap_or(start);
        let seconds = now.saturating_duration_since(since).as_secs_f64();
        requested.keys.add_seconds(seconds);
        let hottest = requested.keys.highest(HOTTEST);
        let half_lives = seconds / HALF_LIFE.as_secs_f64();
        requested.keys.fade((-half_lives).exp2());
        drop(requested);
        let hottest = hottest.into_iter().map(|rate| HotKey {
            key: rate.key,
            per_minute: per_minute(rate.at_least),
            at_most: per_minute(rate.at_most),
        });
        hottest.collect()
    }

    /// The slowest computations of the last half minute to minute, slowest first.
    pub(super) fn slowest(&self) -> Vec<SlowKey> {
        let now = Instant::now();
        let slowest = self.slowest.slowest(now).into_iter();
        let slowest = slowest.map(|slow| SlowKey {
            key: slow.key,
            micros: u64::try_from(slow.took.as_micros()).unwrap_or(u64::MAX),
            ago_millis: millis_since(slow.at, now),
        });
        slowest.collect()
    }

    /// The last failures of each code, latest first.
    pub(super) fn failures(&self) -> Vec<FailedKey> {
        let now = Instant::now();
        let failures = self.failures.lock();
        let mut failures = failures.unwrap_or_else(PoisonError::into_inner);
        let failures = failures.latest(now).into_iter().map(|failed| FailedKey {
            key: failed.key,
            code: failed.code.as_str().to_owned(),
            times: failed.times,
            ago_millis: millis_since(failed.at, now),
        });
        failures.collect()
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a rate is positive, and none comes near the limit"
)]
fn per_minute(per_second: f64) -> u64 {
    (per_second * 60.0).round() as u64
}

fn millis_since(at: Instant, now: Instant) -> u64 {
    let ago = now.saturating_duration_since(at);
    u64::try_from(ago.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn hottest_keys_are_those_of_the_last_seconds() {
        let (keys, start) = (RecentKeys::default(), Instant::now());
        assert_eq!(keys.hottest(start), []);
        let second = async |key: &str, times: u32| {
            (0..times).for_each(|_| keys.requested(key));
            tokio::time::advance(Duration::from_secs(1)).await;
            let hottest = keys.hottest(start).into_iter();
            let rates = hottest.map(|hot| (hot.key, hot.per_minute, hot.at_most));
            rates.collect::<Vec<_>>()
        };
        assert_eq!(second("a", 10).await, [("a".to_owned(), 600, 600)]);
        assert_eq!(second("a", 10).await, [("a".to_owned(), 600, 600)]);
        let mut rates = Vec::new();
        for _ in 0..5 {
            rates = second("b", 10).await;
        }
        assert_eq!(rates[0].0, "b");
        assert!((300..600).contains(&rates[0].1), "{rates:?}");
    }
}
