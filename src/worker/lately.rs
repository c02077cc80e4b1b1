//! What a worker has seen lately, by key: asked for most often, slowest to compute, without an
//! answer. For announcements alone, in memory of a fixed size, and cheap: a request takes one lock for
//! the time of a look through 64 numbers.

mod failures;
mod frequent;
mod slowest;

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use self::failures::Failures;
use self::frequent::Frequent;
use self::slowest::Slowest;
use super::announcement::{FailedKey, HotKey, SlowKey};
use crate::error::ErrorCode;

/// Hottest keys that are told.
const HOTTEST: usize = 8;

/// What came so long ago weighs half.
const HALF_LIFE: Duration = Duration::from_secs(5);

#[derive(Debug, Default)]
pub(super) struct Lately {
    asked: Mutex<Asked>,
    slowest: Slowest,
    failures: Mutex<Failures>,
}

#[derive(Debug, Default)]
struct Asked {
    keys: Frequent,
    /// When it was told last.
    told: Option<Instant>,
}

impl Lately {
    /// A key was asked for.
    pub(super) fn asked(&self, key: &str) {
        // Nothing panics while it is held; the same below.
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        asked.keys.count(key);
    }

    /// A key was computed.
    pub(super) fn computed(&self, key: &str, took: Duration) {
        self.slowest.computed(key, took, Instant::now());
    }

    /// A request ended without an answer.
    pub(super) fn failed(&self, key: Option<&str>, code: ErrorCode) {
        let failures = self.failures.lock();
        let mut failures = failures.unwrap_or_else(PoisonError::into_inner);
        failures.failed(key, code, Instant::now());
    }

    /// The keys that were asked for most often, and from now on less so. For one who asks again and
    /// again, since `start` first.
    pub(super) fn hottest(&self, start: Instant) -> Vec<HotKey> {
        let now = Instant::now();
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        let passed = now.saturating_duration_since(asked.told.replace(now).unwrap_or(start));
        let passed = passed.as_secs_f64();
        asked.keys.passed(passed);
        let hottest = asked.keys.highest(HOTTEST);
        asked.keys.fade((-passed / HALF_LIFE.as_secs_f64()).exp2());
        drop(asked);
        let hottest = hottest.into_iter().map(|rate| HotKey {
            key: rate.key,
            per_minute: per_minute(rate.at_least),
            at_most: per_minute(rate.at_most),
        });
        hottest.collect()
    }

    pub(super) fn slowest(&self) -> Vec<SlowKey> {
        let now = Instant::now();
        let slowest = self.slowest.slowest(now).into_iter();
        let told = slowest.map(|slow| SlowKey {
            key: slow.key,
            micros: u64::try_from(slow.took.as_micros()).unwrap_or(u64::MAX),
            ago_millis: millis_since(slow.at, now),
        });
        told.collect()
    }

    /// The latest first.
    pub(super) fn failures(&self) -> Vec<FailedKey> {
        let now = Instant::now();
        let failures = self.failures.lock();
        let latest = failures
            .unwrap_or_else(PoisonError::into_inner)
            .latest(now)
            .into_iter();
        let told = latest.map(|failed| FailedKey {
            key: failed.key,
            code: failed.code.as_str().to_owned(),
            times: failed.times,
            ago_millis: millis_since(failed.at, now),
        });
        told.collect()
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
        let (lately, start) = (Lately::default(), Instant::now());
        assert_eq!(lately.hottest(start), []);
        let second = async |key: &str, times: u32| {
            (0..times).for_each(|_| lately.asked(key));
            tokio::time::advance(Duration::from_secs(1)).await;
            let hottest = lately.hottest(start).into_iter();
            let told = hottest.map(|hot| (hot.key, hot.per_minute, hot.at_most));
            told.collect::<Vec<_>>()
        };
        assert_eq!(second("a", 10).await, [("a".to_owned(), 600, 600)]);
        assert_eq!(second("a", 10).await, [("a".to_owned(), 600, 600)]);
        let mut told = Vec::new();
        for _ in 0..5 {
            told = second("b", 10).await;
        }
        assert_eq!(told[0].0, "b");
        assert!((300..600).contains(&told[0].1), "{told:?}");
    }
}
