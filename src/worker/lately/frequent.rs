//! The keys that come most often, in memory of a fixed size.
//!
//! Space-Saving (Metwally, Agrawal, El Abbadi 2005): a counter for each of a few keys; one that has
//! none takes over the smallest counter, count included. So a count is too high by what its key took
//! over at the most, never too low, and every key that comes more often than the smallest count says
//! has a counter. Counts fade, and with them the time that they are counts of: what came long ago
//! weighs little, and their quotient is a rate. Pure.

use std::hash::{BuildHasher as _, RandomState};

/// Keys that are counted: whatever makes more than a sixty-fourth of all has its counter.
const COUNTERS: usize = 64;

/// Of less time no rate can be told.
const LEAST_SECONDS: f64 = 0.5;

/// A faded count below it is given up.
const LEAST: f64 = 0.01;

/// How often each key has come lately.
#[derive(Debug, Default)]
pub(super) struct Frequent {
    counters: Vec<Counter>,
    /// The keys' hashes, in the order of the counters: looked through at each arrival.
    hashes: Vec<u64>,
    /// Nobody outside can choose keys that collide.
    hasher: RandomState,
    /// What the counts are counts of, faded as they are.
    seconds: f64,
}

/// One key's.
#[derive(Debug)]
struct Counter {
    key: String,
    count: f64,
    /// Taken over from others.
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
    /// How often its key has come itself.
    fn at_least(&self) -> f64 {
        self.count - self.over
    }
}

impl Frequent {
    /// A key has come. Allocates only while there are fewer keys than counters, or for a longer key.
    pub(super) fn count(&mut self, key: &str) {
        let hash = self.hasher.hash_one(key);
        let mut at = self.hashes.iter().position(|&known| known == hash);
        if at.is_some_and(|at| self.counters[at].key != key) {
            // Two keys with one hash.
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

    /// Time has passed in which what was counted since the last time came.
    pub(super) fn passed(&mut self, seconds: f64) {
        self.seconds += seconds;
    }

    /// The rates that are highest at the least, the highest first. Those of which nothing is certain
    /// are left out: in a flood of keys that come once, none is hot.
    pub(super) fn highest(&self, most: usize) -> Vec<Rate> {
        if self.seconds < LEAST_SECONDS {
            return Vec::new();
        }
        let is_certain = |counter: &&Counter| counter.at_least() >= counter.over;
        let mut counters: Vec<_> = self.counters.iter().filter(is_certain).collect();
        counters.sort_unstable_by(|one, other| {
            let by_count = other.at_least().total_cmp(&one.at_least());
            by_count.then_with(|| one.key.cmp(&other.key))
        });
        let highest = counters.into_iter().take(most).map(|counter| Rate {
            key: counter.key.clone(),
            at_least: counter.at_least() / self.seconds,
            at_most: counter.count / self.seconds,
        });
        highest.collect()
    }

    /// All that was counted so far weighs less from now on.
    pub(super) fn fade(&mut self, factor: f64) {
        self.seconds *= factor;
        for counter in &mut self.counters {
            counter.count *= factor;
            counter.over *= factor;
        }
        let counters = &self.counters;
        let mut kept = counters.iter().map(|counter| counter.count >= LEAST);
        self.hashes.retain(|_| kept.next().unwrap_or(false));
        self.counters.retain(|counter| counter.count >= LEAST);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    /// Rounding, and what fell below [`LEAST`].
    const SLACK: f64 = LEAST * 1.1;

    /// The same without a limit to its memory.
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

    /// What Metwally et al. prove of it, faded or not.
    fn assert_bounds(frequent: &Frequent, exact: &Exact) {
        assert!(frequent.counters.len() <= COUNTERS);
        assert_eq!(frequent.counters.len(), frequent.hashes.len());
        for counter in &frequent.counters {
            let truth = exact.of(&counter.key);
            assert!(counter.count >= truth - SLACK, "{counter:?}, {truth}");
            let least = counter.count - counter.over;
            assert!(least <= truth + SLACK, "{counter:?}, {truth}");
        }
        let sum: f64 = frequent.counters.iter().map(|counter| counter.count).sum();
        let all: f64 = exact.0.values().sum();
        assert!(sum <= all + SLACK, "{sum} of {all}");
        let is_full = frequent.counters.len() == COUNTERS;
        let counts = frequent.counters.iter().map(|counter| counter.count);
        let smallest = if is_full {
            counts.fold(f64::INFINITY, f64::min)
        } else {
            0.0
        };
        for (key, count) in &exact.0 {
            let has_one = frequent.counters.iter().any(|counter| counter.key == *key);
            assert!(has_one || *count <= smallest + SLACK, "{key}: {count}");
        }
    }

    proptest! {
        #[test]
        fn no_count_is_further_from_the_truth_than_it_says(
            rounds in prop::collection::vec((prop::collection::vec(0_u32..300, 0..400), 0.3..1.0_f64), 1..12),
            skew in 1_u32..8,
        ) {
            let (mut frequent, mut exact) = (Frequent::default(), Exact::default());
            for (arrivals, factor) in rounds {
                for n in arrivals {
                    // Small numbers come more often.
                    let key = format!("fib:{}", n / (1 + n % skew * 40));
                    frequent.count(&key);
                    exact.count(&key);
                }
                assert_bounds(&frequent, &exact);
                frequent.fade(factor);
                exact.fade(factor);
                assert_bounds(&frequent, &exact);
            }
        }
    }

    #[test]
    fn heavy_keys_are_found_in_a_flood_of_others() {
        let (mut frequent, mut rng) = (Frequent::default(), fastrand::Rng::with_seed(7));
        for _ in 0..100_000 {
            let key = match rng.u32(..100) {
                0..20 => "twenty".to_owned(),
                20..30 => "ten".to_owned(),
                _ => format!("flood:{}", rng.u32(..)),
            };
            frequent.count(&key);
        }
        frequent.passed(10.0);
        let highest = frequent.highest(COUNTERS);
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
    fn rates_are_right_from_the_start_and_follow_what_changes() {
        let mut frequent = Frequent::default();
        assert_eq!(frequent.highest(1), []);
        let mut second = |key: &str, times: u32| {
            (0..times).for_each(|_| frequent.count(key));
            frequent.passed(1.0);
            let rate = frequent.highest(1).remove(0);
            frequent.fade(0.5);
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
        let keys = frequent.counters.iter().map(|counter| counter.key.as_str());
        assert_eq!(keys.collect::<Vec<_>>(), ["c"], "what is past is given up");
    }
}
