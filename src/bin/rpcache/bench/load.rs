//! Chooses the argument of each call.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::zipf::Zipf;
use crate::args::{Bench, Distribution};

/// The arguments of a run. With the same seed, a call with the same number has the same argument, whichever task makes
/// it.
pub(super) struct Load {
    first: u64,
    seed: u64,
    /// The share of calls for keys; 1 without `--hits`.
    hits: f64,
    draw: Draw,
    /// The keys that calls have asked for.
    asked: Vec<AtomicBool>,
    /// Number of new arguments that calls have asked for.
    fresh: AtomicU64,
}

enum Draw {
    Uniform,
    Sequential,
    Zipf(Zipf),
}

impl Load {
    pub(super) fn new(bench: &Bench, seed: u64) -> Self {
        Self {
            first: bench.first,
            seed,
            hits: bench.hits.unwrap_or(1.0),
            draw: match bench.distribution {
                Distribution::Uniform => Draw::Uniform,
                Distribution::Sequential => Draw::Sequential,
                Distribution::Zipf => Draw::Zipf(Zipf::new(bench.keys, bench.skew)),
            },
            asked: (0..bench.keys).map(|_| AtomicBool::new(false)).collect(),
            fresh: AtomicU64::new(0),
        }
    }

    /// All keys, in order.
    pub(super) fn keys(&self) -> impl Iterator<Item = u64> + use<> {
        self.first..self.first + self.asked.len() as u64
    }

    /// The argument of the call with this number, counting from 0.
    pub(super) fn argument(&self, call: u64) -> u64 {
        // Multiplied, because consecutive seeds give similar numbers.
        let mut random = fastrand::Rng::with_seed(
            self.seed
                .wrapping_add(call.wrapping_mul(0x9E37_79B9_7F4A_7C15)),
        );
        let keys = self.asked.len();
        if random.f64() >= self.hits {
            let fresh = self.fresh.fetch_add(1, Ordering::Relaxed);
            return self.first + keys as u64 + fresh;
        }
        let key = match &self.draw {
            Draw::Uniform => random.usize(..keys),
            // The remainder is less than `keys`, a usize.
            Draw::Sequential => usize::try_from(call % keys as u64).unwrap_or_default(),
            Draw::Zipf(zipf) => zipf.draw(random.f64()),
        };
        self.asked[key].store(true, Ordering::Relaxed);
        self.first + key as u64
    }

    /// Number of distinct arguments that calls have asked for.
    pub(super) fn distinct(&self) -> u64 {
        let asked = self
            .asked
            .iter()
            .filter(|asked| asked.load(Ordering::Relaxed));
        asked.count() as u64 + self.fresh.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(draw: Draw, hits: f64) -> Load {
        Load {
            first: 100,
            seed: 1,
            hits,
            draw,
            asked: (0..10).map(|_| AtomicBool::new(false)).collect(),
            fresh: AtomicU64::new(0),
        }
    }

    fn asked(load: &Load, calls: u64) -> Vec<u64> {
        (0..calls).map(|call| load.argument(call)).collect()
    }

    #[test]
    fn sequential_repeats_the_keys_in_order() {
        let load = load(Draw::Sequential, 1.0);
        assert_eq!(asked(&load, 3), [100, 101, 102]);
        assert_eq!(load.distinct(), 3);
        assert_eq!(load.argument(19), 109);
        assert_eq!(load.argument(20), 100);
        assert_eq!(load.distinct(), 4);
    }

    #[test]
    fn uniform_draws_all_keys_about_equally_and_repeats_with_the_same_seed() {
        let uniform = load(Draw::Uniform, 1.0);
        let first = asked(&uniform, 10_000);
        for key in uniform.keys() {
            let times = first.iter().filter(|&&n| n == key).count();
            assert!((850..1150).contains(&times), "{key}: {times}");
        }
        assert_eq!(uniform.distinct(), 10);
        assert_eq!(asked(&load(Draw::Uniform, 1.0), 10_000), first);
    }

    #[test]
    fn a_call_that_is_no_hit_has_a_new_argument() {
        let load = load(Draw::Uniform, 0.9);
        let mut fresh = asked(&load, 10_000);
        fresh.retain(|&n| n >= 110);
        assert!((850..1150).contains(&fresh.len()), "{}", fresh.len());
        let expected: Vec<u64> = (110..).take(fresh.len()).collect();
        assert_eq!(fresh, expected);
        assert_eq!(load.distinct(), 10 + fresh.len() as u64);
    }
}
