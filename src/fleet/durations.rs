//! Histograms of durations that can be added and subtracted.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::counts::{BOUNDS, Histogram};

/// A histogram of durations since the worker started. In JSON, the counts of the buckets alone.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Durations(Vec<u64>);

impl Durations {
    pub(crate) fn of<'a>(histograms: impl IntoIterator<Item = &'a Histogram>) -> Self {
        let mut all = Self::default();
        for histogram in histograms {
            all.add(&Self(histogram.buckets().to_vec()));
        }
        all
    }

    /// Removes buckets that this version does not know.
    pub(crate) fn bounded(&mut self) {
        self.0.truncate(BOUNDS.len() + 1);
    }

    /// The number of durations.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.0.iter().fold(0, |sum, &n| sum.saturating_add(n))
    }

    /// Adds the counts of another histogram.
    pub fn add(&mut self, others: &Self) {
        if self.0.len() < others.0.len() {
            self.0.resize(others.0.len(), 0);
        }
        for (sum, n) in self.0.iter_mut().zip(&others.0) {
            *sum = sum.saturating_add(*n);
        }
    }

    /// The durations that were added after `earlier`, an older state of the same histogram.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let before = earlier.0.iter().copied().chain(std::iter::repeat(0));
        let now = self.0.iter().zip(before);
        Self(
            now.map(|(now, before)| now.saturating_sub(before))
                .collect(),
        )
    }

    /// The duration that `share` (0 to 1) of them do not exceed, within a factor of 2.5, the width of a bucket.
    /// `None` if the histogram is empty.
    #[must_use]
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "an estimate"
    )]
    pub fn quantile(&self, share: f64) -> Option<Duration> {
        let count = self.count();
        if count == 0 {
            return None;
        }
        let rank = (share.clamp(0.0, 1.0) * count as f64).max(1.0);
        let mut below = 0.0;
        for (bucket, &n) in self.0.iter().enumerate() {
            let n = n as f64;
            if n > 0.0 && below + n >= rank {
                let lower = bucket.checked_sub(1).map_or(0, |lower| BOUNDS[lower]);
                let nanos = match BOUNDS.get(bucket) {
                    Some(&upper) => {
                        let part = (rank - below) / n;
                        (lower as f64 + part * (upper - lower) as f64) as u64
                    }
                    // Above the last bound; how far is not known.
                    None => lower,
                };
                return Some(Duration::from_nanos(nanos));
            }
            below += n;
        }
        BOUNDS.last().copied().map(Duration::from_nanos)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_micros(micros: &[u64]) -> Durations {
        let histogram = Histogram::default();
        for &micros in micros {
            histogram.observe(Duration::from_micros(micros));
        }
        Durations::of([&histogram])
    }

    #[test]
    fn quantiles_are_right_within_a_bucket() {
        let mut rng = fastrand::Rng::with_seed(7);
        for _ in 0..100 {
            let mut all: Vec<u64> = (0..rng.usize(1..500))
                .map(|_| (1 << rng.u32(4..24)) + rng.u64(..1000))
                .collect();
            let durations = of_micros(&all);
            all.sort_unstable();
            for (share, place) in [(0.5, all.len().div_ceil(2) - 1), (1.0, all.len() - 1)] {
                let estimate = durations.quantile(share).unwrap().as_secs_f64() * 1e6;
                let truth = Duration::from_micros(all[place]).as_secs_f64() * 1e6;
                let factor = estimate / truth;
                assert!((0.39..2.51).contains(&factor), "{estimate} for {truth}");
            }
        }
        assert_eq!(of_micros(&[]).quantile(0.5), None);
        let hour = of_micros(&[3_600_000_000]).quantile(0.99);
        assert_eq!(hour, Some(Duration::from_secs(30)), "the last bound");
    }

    #[test]
    fn difference_of_two_states_is_what_was_added_between() {
        let (earlier, later) = (of_micros(&[10, 1000]), of_micros(&[10, 1000, 1000, 90_000]));
        let mut between = later.since(&earlier);
        assert_eq!(between, of_micros(&[1000, 90_000]));
        assert_eq!(earlier.since(&later).count(), 0, "never negative");
        assert_eq!(later.since(&Durations::default()), later);
        between.add(&earlier);
        assert_eq!(between, later);
    }

    #[test]
    fn hostile_counts_do_not_overflow() {
        let mut durations: Durations =
            serde_json::from_str(&format!("[{}0]", "18446744073709551615,".repeat(99))).unwrap();
        durations.bounded();
        assert_eq!(durations.count(), u64::MAX);
        assert!(durations.quantile(f64::NAN).is_some());
        let twice = durations.clone();
        durations.add(&twice);
        assert_eq!(durations.since(&twice).count(), 0);
    }
}
