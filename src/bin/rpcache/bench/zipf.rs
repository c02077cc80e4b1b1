//! Zipf's law: the kth most popular of so many things is asked for in proportion to 1/k^s.
//!
//! Exact, by the inverse of the distribution function over a table of its sums: 8 bytes for each
//! thing, and a binary search for each draw.

pub(crate) struct Zipf {
    /// `sums[k]`: the weights of the first k + 1.
    sums: Vec<f64>,
}

impl Zipf {
    pub(crate) fn new(things: u32, skew: f64) -> Self {
        let mut sum = 0.0;
        let add = |k: u32| {
            sum += f64::from(k).powf(-skew);
            sum
        };
        Self {
            sums: (1..=things).map(add).collect(),
        }
    }

    /// Which one, from 0 on, for a number drawn evenly from 0 to 1.
    pub(crate) fn draw(&self, even: f64) -> usize {
        let last = self.sums.len() - 1;
        let target = even * self.sums[last];
        // Rounding may put the target on the very end of the last one.
        self.sums.partition_point(|&sum| sum <= target).min(last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many of a million evenly spread numbers draw each thing.
    fn counts(zipf: &Zipf) -> Vec<u32> {
        const DRAWS: u32 = 1_000_000;
        let mut counts = vec![0; zipf.sums.len()];
        for i in 0..DRAWS {
            counts[zipf.draw((f64::from(i) + 0.5) / f64::from(DRAWS))] += 1;
        }
        counts
    }

    #[test]
    fn popularity_falls_as_one_over_the_rank() {
        let harmonic: f64 = (1..=100).map(|k| 1.0 / f64::from(k)).sum();
        for (k, count) in (1..).zip(counts(&Zipf::new(100, 1.0))) {
            let expected = 1e6 / (harmonic * f64::from(k));
            assert!((f64::from(count) - expected).abs() <= 1.0, "{k}: {count}");
        }
    }

    #[test]
    fn skew_is_the_exponent_and_zero_is_uniform() {
        let squares = counts(&Zipf::new(2, 2.0));
        assert_eq!(squares, [800_000, 200_000]);
        assert_eq!(counts(&Zipf::new(4, 0.0)), [250_000; 4]);
    }

    #[test]
    fn both_ends_draw_something() {
        for things in [1, 7, 1_000_000] {
            let zipf = Zipf::new(things, 1.0);
            assert_eq!(zipf.draw(0.0), 0);
            assert_eq!(zipf.draw(1.0), zipf.sums.len() - 1);
        }
    }
}
