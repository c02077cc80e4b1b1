//! The slowest computations of the last half minute to minute. Pure: the time is an argument.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// The number of keys kept.
pub(super) const KEPT: usize = 8;

/// The length of one span. Two are kept: the current one and the one before.
const SPAN: Duration = Duration::from_secs(30);

/// One computation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Slow {
    pub(super) key: String,
    pub(super) took: Duration,
    pub(super) at: Instant,
}

/// The slowest computations, exactly.
#[derive(Debug, Default)]
pub(super) struct Slowest {
    spans: Mutex<Spans>,
    /// In nanoseconds: a computation that is not slower cannot be among them, and takes no lock.
    threshold: AtomicU64,
}

#[derive(Debug, Default)]
struct Spans {
    /// When the current span began.
    since: Option<Instant>,
    current: Vec<Slow>,
    before: Vec<Slow>,
}

impl Slowest {
    /// Records a computation. Each key is kept once, with its longest time.
    pub(super) fn computed(&self, key: &str, took: Duration, at: Instant) {
        if nanos(took) <= self.threshold.load(Ordering::Relaxed) {
            return;
        }
        let current = &mut self.spans().current;
        insert(current, key, took, at);
        if let (KEPT, Some(last)) = (current.len(), current.last()) {
            self.threshold.store(nanos(last.took), Ordering::Relaxed);
        }
    }

    /// The slowest computations, slowest first.
    pub(super) fn slowest(&self, now: Instant) -> Vec<Slow> {
        let mut spans = self.spans();
        let since = *spans.since.get_or_insert(now);
        if now.saturating_duration_since(since) >= SPAN {
            spans.since = Some(now);
            spans.before = std::mem::take(&mut spans.current);
            self.threshold.store(0, Ordering::Relaxed);
        }
        let mut slowest = spans.current.clone();
        for slow in &spans.before {
            insert(&mut slowest, &slow.key, slow.took, slow.at);
        }
        slowest
    }

    fn spans(&self) -> MutexGuard<'_, Spans> {
        // Nothing panics while it is held.
        self.spans.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn insert(slowest: &mut Vec<Slow>, key: &str, took: Duration, at: Instant) {
    if let Some(known) = slowest.iter().position(|slow| slow.key == key) {
        if slowest[known].took >= took {
            return;
        }
        slowest.remove(known);
    }
    let place = slowest.partition_point(|slow| slow.took >= took);
    if place < KEPT {
        slowest.truncate(KEPT - 1);
        let key = key.to_owned();
        slowest.insert(place, Slow { key, took, at });
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    fn listed(slowest: &Slowest, now: Instant) -> Vec<(String, Duration)> {
        let slowest = slowest.slowest(now).into_iter();
        slowest.map(|slow| (slow.key, slow.took)).collect()
    }

    #[test]
    fn slowest_of_generated_computations_are_the_first_of_all_sorted() {
        let mut rng = fastrand::Rng::with_seed(7);
        for _ in 0..200 {
            let (slowest, now) = (Slowest::default(), Instant::now());
            let mut longest: HashMap<String, Duration> = HashMap::new();
            for _ in 0..rng.usize(..200) {
                let key = rng.u8(..30).to_string();
                // All different, so that there is one order.
                let took = Duration::from_nanos(rng.u64(1..1 << 40));
                slowest.computed(&key, took, now);
                let known = longest.entry(key).or_default();
                *known = took.max(*known);
            }
            let mut expected: Vec<_> = longest.into_iter().collect();
            expected.sort_by_key(|&(_, took)| std::cmp::Reverse(took));
            expected.truncate(KEPT);
            assert_eq!(listed(&slowest, now), expected);
        }
    }

    #[test]
    fn slow_computation_is_forgotten_within_a_minute() {
        let (slowest, start) = (Slowest::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(listed(&slowest, start), []);
        for n in 0..KEPT as u64 {
            let took = Duration::from_secs(100 + n);
            slowest.computed(&format!("old:{n}"), took, start);
        }
        assert_eq!(listed(&slowest, at(29)).len(), KEPT);
        assert_eq!(listed(&slowest, at(30)).len(), KEPT, "from the span before");
        slowest.computed("new", Duration::from_secs(1), at(31));
        assert_eq!(listed(&slowest, at(31))[0].0, "old:7");
        let new = ("new".to_owned(), Duration::from_secs(1));
        assert_eq!(listed(&slowest, at(60)), [new]);
        assert_eq!(listed(&slowest, at(90)), []);
    }
}
