//! A histogram of durations, without a lock.
//!
//! prometheus-client's own histogram takes a lock for each observation: too slow for a hit in memory.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Upper bounds of the buckets in nanoseconds: from 10 µs to 30 s, in steps of 2 to 3. One more bucket holds
/// what is above the last.
pub(crate) const BOUNDS: [u64; 20] = {
    const MICROS: u64 = 1000;
    const MILLIS: u64 = 1000 * MICROS;
    const SECONDS: u64 = 1000 * MILLIS;
    [
        10 * MICROS,
        25 * MICROS,
        50 * MICROS,
        100 * MICROS,
        250 * MICROS,
        500 * MICROS,
        MILLIS,
        2 * MILLIS + 500 * MICROS,
        5 * MILLIS,
        10 * MILLIS,
        25 * MILLIS,
        50 * MILLIS,
        100 * MILLIS,
        250 * MILLIS,
        500 * MILLIS,
        SECONDS,
        2 * SECONDS + 500 * MILLIS,
        5 * SECONDS,
        10 * SECONDS,
        30 * SECONDS,
    ]
};

/// Counts durations by bucket, and their sum.
///
/// The sum and the buckets of short durations share a cache line: threads that count hits contend for one
/// line, not two.
#[derive(Debug, Default)]
#[repr(C, align(64))]
pub(crate) struct Histogram {
    /// Sum of all durations. Wraps after 584 years, which looks like a restart.
    nanos: AtomicU64,
    buckets: [AtomicU64; BOUNDS.len() + 1],
}

impl Histogram {
    pub(crate) fn observe(&self, took: Duration) {
        let nanos = nanos(took);
        // The common case of a hit in memory, without the search.
        let bucket = if nanos <= BOUNDS[0] {
            0
        } else {
            BOUNDS.partition_point(|bound| *bound < nanos)
        };
        self.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        self.nanos.fetch_add(nanos, Ordering::Relaxed);
    }

    /// Observations in each bucket, not cumulative.
    pub(crate) fn buckets(&self) -> [u64; BOUNDS.len() + 1] {
        self.buckets
            .each_ref()
            .map(|bucket| bucket.load(Ordering::Relaxed))
    }

    pub(crate) fn count(&self) -> u64 {
        self.buckets().iter().sum()
    }

    /// The sum of all durations.
    pub(crate) fn sum(&self) -> Duration {
        Duration::from_nanos(self.nanos.load(Ordering::Relaxed))
    }
}

/// Nanoseconds in 64 bits, saturating; `Duration::as_nanos` computes in 128.
fn nanos(took: Duration) -> u64 {
    took.as_secs()
        .saturating_mul(1_000_000_000)
        .saturating_add(u64::from(took.subsec_nanos()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_rise() {
        assert!(BOUNDS.is_sorted_by(|one, next| one < next));
    }

    #[test]
    fn a_bound_is_in_its_own_bucket_and_one_more_in_the_next() {
        for (bucket, bound) in BOUNDS.into_iter().enumerate() {
            let histogram = Histogram::default();
            histogram.observe(Duration::from_nanos(bound));
            histogram.observe(Duration::from_nanos(bound + 1));
            let buckets = histogram.buckets();
            assert_eq!((buckets[bucket], buckets[bucket + 1]), (1, 1), "{bound}");
            assert_eq!(histogram.sum(), Duration::from_nanos(2 * bound + 1));
        }
    }

    #[test]
    fn zero_and_the_longest_duration_are_counted() {
        let histogram = Histogram::default();
        histogram.observe(Duration::ZERO);
        histogram.observe(Duration::MAX);
        let buckets = histogram.buckets();
        assert_eq!((buckets[0], buckets[BOUNDS.len()]), (1, 1));
        assert_eq!(histogram.count(), 2);
    }

    #[test]
    fn generated_durations_are_in_the_bucket_that_a_scan_finds() {
        let (histogram, mut rng) = (Histogram::default(), fastrand::Rng::with_seed(7));
        let mut expected = [0; BOUNDS.len() + 1];
        for _ in 0..10_000 {
            let nanos = rng.u64(..) >> rng.u8(20..64);
            let bucket = BOUNDS.iter().position(|bound| nanos <= *bound);
            expected[bucket.unwrap_or(BOUNDS.len())] += 1;
            histogram.observe(Duration::from_nanos(nanos));
        }
        assert_eq!(histogram.buckets(), expected);
    }

    #[test]
    fn no_observation_is_lost_between_threads() {
        let histogram = Histogram::default();
        std::thread::scope(|scope| {
            for thread in 1..=4 {
                let histogram = &histogram;
                scope.spawn(move || {
                    (0..10_000).for_each(|_| histogram.observe(Duration::from_micros(thread)));
                });
            }
        });
        assert_eq!(histogram.count(), 40_000);
        assert_eq!(histogram.sum(), Duration::from_millis(100));
    }
}
