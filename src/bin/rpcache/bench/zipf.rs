//! Draws numbers by Zipf's law: the kth of N items has a probability proportional to 1/k^s.
//!
//! Exact, by inverting the cumulative distribution: a table of 8 bytes per item, and a binary search per draw.

/// The distribution over N items.
pub(crate) struct Zipf {
    /// `sums[k]` is the sum of the weights of the first k + 1 items.
    sums: Vec<f64>,
}

impl Zipf {
    pub(crate) fn new(items: u32, skew: f64) -> Self {
        let mut sum = 0.0;
        let add = |k: u32| {
            sum += f64::from(k).powf(-skew);
            sum
        };
        Self {
            sums: (1..=items).map(add).collect(),
        }
    }

    /// Maps a uniform random number from 0 to 1 to the index of an item.
    pub(crate) fn draw(&self, uniform: f64) -> usize {
        let last = self.sums.len() - 1;
        let target = uniform * self.sums[last];
        // Rounding may make the target equal to the last sum.
        self.sums.partition_point(|&sum| sum <= target).min(last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many of a million evenly spread numbers draw each item.
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
    fn both_ends_draw_an_item() {
        for items in [1, 7, 1_000_000] {
            let zipf = Zipf::new(items, 1.0);
            assert_eq!(zipf.draw(0.0), 0);
            assert_eq!(zipf.draw(1.0), zipf.sums.len() - 1);
        }
    }
}
