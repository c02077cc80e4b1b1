//! Heavy hitters: the keys that are requested most often, in memory of a fixed size.
//!
//! Space-Saving (Metwally, Agrawal, El Abbadi 2005): a few keys have a counter each; a key without one takes over
//! the smallest counter, count included. So a count is never too low, it is too high by at most the count taken
//! over, and every key that came more often than the smallest count has a counter. Counts and the time in which
//! they were counted fade alike, so that their quotient is a rate in which old requests weigh little. Pure.

use std::hash::{BuildHasher as _, RandomState};

/// The number of counters: every key with more than a sixty-fourth of all requests has one.
const COUNTERS: usize = 64;

/// The shortest time that gives a rate.
const MIN_SECONDS: f64 = 0.5;

/// A counter that has faded below this is removed.
const MIN_COUNT: f64 = 0.01;

/// The faded counts of the most frequent keys.
#[derive(Debug, Default)]
pub(super) struct HeavyHitters {
    counters: Vec<Counter>,
    /// The keys' hashes, in the order of the counters: searched for each request.
    hashes: Vec<u64>,
    /// Random, so that clients cannot choose keys that collide.
    hasher: RandomState,
    /// The time in which the counts were counted, faded as they are.
    seconds: f64,
}

/// The counter of one key.
#[derive(Debug)]
struct Counter {
    key: String,
    count: f64,
    /// The part of the count that was taken over from other keys.
    over: f64,
}

/// A key's rate, per second.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Rate {
    pub(super) key: String,
    pub(super) at_least: f64,
    pub(super) at_most: f64,
}

impl Counter {
    /// The number of requests that its key had at least.
    fn at_least(&self) -> f64 {
        self.count - self.over
    }
}

impl HeavyHitters {
    /// Counts a request. Allocates only while there is a free counter, or for a longer key.
    pub(super) fn count(&mut self, key: &str) {
        let hash = self.hasher.hash_one(key);
        let mut at = self.hashes.iter().position(|&known| known == hash);
        if at.is_some_and(|at| self.counters[at].key != key) {
            // Two keys have the same hash.
            at = self.counters.iter().position(|counter| counter.key == key);
        }
        match at {
            Some(at) => self.counters[at].count += 1.0,
            None if self.counters.len() < COUNTERS => {
                self.hashes.push(hash);
                self.counters.push(Counter {
                    key: key.to_owned(),
                    count: 1.0,
                    over: 0.0,
                });
            }
            None => self.take_over(hash, key),
        }
    }

    fn take_over(&mut self, hash: u64, key: &str) {
        let (mut smallest, mut least) = (0, f64::INFINITY);
        for (at, counter) in self.counters.iter().enumerate() {
            if counter.count < least {
                (smallest, least) = (at, counter.count);
            }
        }
        if let Some(counter) = self.counters.get_mut(smallest) {
            self.hashes[smallest] = hash;
            key.clone_into(&mut counter.key);
            counter.over = counter.count;
            counter.count += 1.0;
        }
    }

    /// Adds the time in which the requests since the last call were counted.
    pub(super) fn add_seconds(&mut self, seconds: f64) {
        self.seconds += seconds;
    }

    /// The keys with the highest certain rates, highest first, `max` at most. Leaves out keys whose count is
    /// mostly taken over: in a flood of keys that come once, none is hot.
    pub(super) fn highest(&self, max: usize) -> Vec<Rate> {
        if self.seconds < MIN_SECONDS {
            return Vec::new();
        }
        let is_certain = |counter: &&Counter| counter.at_least() >= counter.over;
        let mut counters: Vec<_> = self.counters.iter().filter(is_certain).collect();
        counters.sort_unstable_by(|one, other| {
            let by_count = other.at_least().total_cmp(&one.at_least());
            by_count.then_with(|| one.key.cmp(&other.key))
        });
        let highest = counters.into_iter().take(max).map(|counter| Rate {
            key: counter.key.clone(),
            at_least: counter.at_least() / self.seconds,
            at_most: counter.count / self.seconds,
        });
        highest.collect()
    }

    /// Multiplies all counts by `factor`, so that they weigh less than later ones.
    pub(super) fn fade(&mut self, factor: f64) {
        self.seconds *= factor;
        for counter in &mut self.counters {
            counter.count *= factor;
            counter.over *= factor;
        }
        let counters = &self.counters;
        let mut kept = counters.iter().map(|counter| counter.count >= MIN_COUNT);
        self.hashes.retain(|_| kept.next().unwrap_or(false));
        self.counters.retain(|counter| counter.count >= MIN_COUNT);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    /// Rounding, and counters below [`MIN_COUNT`].
    const SLACK: f64 = MIN_COUNT * 1.1;

    /// Exact counts, in unlimited memory.
    #[derive(Default)]
    struct Exact(HashMap<String, f64>);

    impl Exact {
        fn count(&mut self, key: &str) {
            *self.0.entry(key.to_owned()).or_default() += 1.0;
        }

        fn fade(&mut self, factor: f64) {
            self.0.values_mut().for_each(|count| *count *= factor);
        }

        fn of(&self, key: &str) -> f64 {
            self.0.get(key).copied().unwrap_or(0.0)
        }
    }

    /// Asserts the bounds that Metwally et al. prove, which hold for faded counts, too.
    fn assert_bounds(heavy_hitters: &HeavyHitters, exact: &Exact) {
        assert!(heavy_hitters.counters.len() <= COUNTERS);
        assert_eq!(heavy_hitters.counters.len(), heavy_hitters.hashes.len());
        for counter in &heavy_hitters.counters {
            let truth = exact.of(&counter.key);
            assert!(counter.count >= truth - SLACK, "{counter:?}, {truth}");
            let least = counter.count - counter.over;
            assert!(least <= truth + SLACK, "{counter:?}, {truth}");
        }
        let sum: f64 = heavy_hitters
            .counters
            .iter()
            .map(|counter| counter.count)
            .sum();
        let all: f64 = exact.0.values().sum();
        assert!(sum <= all + SLACK, "{sum} of {all}");
        let is_full = heavy_hitters.counters.len() == COUNTERS;
        let counts = heavy_hitters.counters.iter().map(|counter| counter.count);
        let smallest = if is_full {
            counts.fold(f64::INFINITY, f64::min)
        } else {
            0.0
        };
        for (key, count) in &exact.0 {
            let has_one = heavy_hitters
                .counters
                .iter()
                .any(|counter| counter.key == *key);
            assert!(has_one || *count <= smallest + SLACK, "{key}: {count}");
        }
    }

    proptest! {
        #[test]
        fn counts_are_within_their_bounds(
            rounds in prop::collection::vec((prop::collection::vec(0_u32..300, 0..400), 0.3..1.0_f64), 1..12),
            skew in 1_u32..8,
        ) {
            let (mut heavy_hitters, mut exact) = (HeavyHitters::default(), Exact::default());
            for (arrivals, factor) in rounds {
                for n in arrivals {
                    // Small numbers come more often.
                    let key = format!("fib:{}", n / (1 + n % skew * 40));
                    heavy_hitters.count(&key);
                    exact.count(&key);
                }
                assert_bounds(&heavy_hitters, &exact);
                heavy_hitters.fade(factor);
                exact.fade(factor);
                assert_bounds(&heavy_hitters, &exact);
            }
        }
    }

    #[test]
    fn heavy_hitters_are_found_in_a_flood_of_other_keys() {
        let (mut heavy_hitters, mut rng) = (HeavyHitters::default(), fastrand::Rng::with_seed(7));
        for _ in 0..100_000 {
            let key = match rng.u32(..100) {
                0..20 => "twenty".to_owned(),
                20..30 => "ten".to_owned(),
                _ => format!("flood:{}", rng.u32(..)),
            };
            heavy_hitters.count(&key);
        }
        heavy_hitters.add_seconds(10.0);
        let highest = heavy_hitters.highest(COUNTERS);
        let keys: Vec<_> = highest.iter().map(|rate| rate.key.as_str()).collect();
        assert_eq!(keys, ["twenty", "ten"]);
        for (rate, truth) in highest.iter().zip([2000.0, 1000.0]) {
            let Rate {
                at_least, at_most, ..
            } = rate;
            assert!(
                *at_least <= truth * 1.05 && *at_most >= truth * 0.95,
                "{rate:?}"
            );
            assert!(at_most - at_least < 200.0, "{rate:?}");
        }
    }

    #[test]
    fn rates_are_right_from_the_start_and_follow_changes() {
        let mut heavy_hitters = HeavyHitters::default();
        assert_eq!(heavy_hitters.highest(1), []);
        let mut second = |key: &str, times: u32| {
            (0..times).for_each(|_| heavy_hitters.count(key));
            heavy_hitters.add_seconds(1.0);
            let rate = heavy_hitters.highest(1).remove(0);
            heavy_hitters.fade(0.5);
            rate
        };
        for _ in 0..3 {
            let Rate { key, at_least, .. } = second("a", 100);
            assert_eq!(key, "a");
            assert!((at_least - 100.0).abs() < 0.001, "{at_least}");
        }
        for _ in 0..3 {
            second("b", 100);
        }
        assert_eq!(second("b", 100).key, "b");
        for _ in 0..30 {
            second("c", 1);
        }
        let keys = heavy_hitters
            .counters
            .iter()
            .map(|counter| counter.key.as_str());
        assert_eq!(keys.collect::<Vec<_>>(), ["c"], "old keys are removed");
    }
}
