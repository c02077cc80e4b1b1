//! Products of polynomials by a number-theoretic transform: the discrete Fourier transform modulo
//! the prime P of `field.rs`, exact where the coefficients of the product are below P.
//!
//! Between [`Transform::forward`] and [`Transform::inverse`] products and sums of polynomials are
//! those of their points, one by one. The staircase of the powers of two is lowered by lengths of
//! 5/4 and 3/2 of them, see [`Length`].

use super::field::{P, halved, montgomery, product, reduced};
use super::levels::Roots;

/// b points modulo xᵇ − 1, the body; and no tail, or t = b / 2 or b / 4 points modulo xᵗ − r, which
/// divides xᵇ + 1. Together they determine a polynomial of b + t coefficients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Length {
    /// A power of two.
    body: usize,
    tail: usize,
}

impl Length {
    /// Below it lengths make no difference.
    const MIN: usize = 16;

    /// The shortest for so many coefficients.
    pub(super) fn of(count: usize) -> Self {
        let above = count.next_power_of_two().max(Self::MIN);
        let body = above / 2;
        let fits = |&tail: &usize| body >= Self::MIN && body + tail >= count;
        match [body / 4, body / 2].into_iter().find(fits) {
            Some(tail) => Self { body, tail },
            None => Self {
                body: above,
                tail: 0,
            },
        }
    }

    fn points(self) -> usize {
        self.body + self.tail
    }

    /// The number of the tail among the parts of its length: the first one of xᵇ + 1.
    fn tail_node(self) -> usize {
        self.body / self.tail
    }
}

/// Transforms of one length. Borrows the roots, which those of all lengths share.
pub(super) struct Transform<'a> {
    length: Length,
    roots: &'a Roots,
}

impl<'a> Transform<'a> {
    pub(super) fn new(length: Length, roots: &'a mut Roots) -> Self {
        roots.reach(length.points());
        Self { length, roots }
    }

    /// The points, below 4 P, of a polynomial with at most half as many coefficients.
    pub(super) fn forward(&self, coefficients: &[u32]) -> Vec<u64> {
        let mut points = Vec::with_capacity(self.length.points());
        points.extend(coefficients.iter().copied().map(u64::from));
        points.resize(self.length.points(), 0);
        let (body, tail) = points.split_at_mut(self.length.body);
        if !tail.is_empty() {
            self.remainder(body, tail);
            self.roots.split(tail, self.length.tail_node());
        }
        self.roots.split(body, 0);
        points
    }

    /// The coefficients, below P, of the polynomial with these points, below 2 P, that were made by
    /// one [`product`] of two points each.
    pub(super) fn inverse(&self, mut points: Vec<u64>) -> Vec<u64> {
        let (body, tail) = points.split_at_mut(self.length.body);
        self.roots.join(body, 0);
        scale(body);
        if !tail.is_empty() {
            self.roots.join(tail, self.length.tail_node());
            scale(tail);
            self.combine(body, tail);
        }
        points
    }

    /// Leaves `body`, coefficients below P, modulo xᵗ − r in `remainder`, where zeros were: the sum of
    /// its parts, times r⁰, r¹, …
    fn remainder(&self, body: &[u64], remainder: &mut [u64]) {
        let r = self.roots.of(self.length.tail_node() / 2);
        for part in body.chunks_exact(remainder.len()).rev() {
            for (sum, &point) in remainder.iter_mut().zip(part) {
                *sum = halved(product(*sum, r) + point);
            }
        }
    }

    /// From the remainders modulo xᵇ − 1 and xᵗ − r to the polynomial. It is the former plus
    /// (xᵇ − 1) s; modulo the latter, where xᵇ is −1, that is the former less 2 s.
    fn combine(&self, body: &mut [u64], tail: &mut [u64]) {
        const HALF: u64 = montgomery(P.div_ceil(2));
        let mut remainder = vec![0; tail.len()];
        self.remainder(body, &mut remainder);
        for ((point, low), remainder) in tail.iter_mut().zip(body).zip(remainder) {
            let s = reduced(product(remainder + P - *point, HALF));
            *low = reduced(*low + P - s);
            *point = s;
        }
    }
}

/// Divides by the number of points, which the levels leave as a factor, and takes back what two
/// products divided by: that of two transforms and the one here. From below 2 P to below P.
fn scale(points: &mut [u64]) {
    // Of 2ᵏ points: (P − 1) / 2ᵏ is whole, and P less that is 1 / 2ᵏ.
    let inverse = P - (P >> points.len().trailing_zeros());
    let factor = montgomery(montgomery(inverse));
    for point in points {
        *point = reduced(product(*point, factor));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The square of a polynomial by the transform.
    fn square(coefficients: &[u32], length: Length) -> Vec<u64> {
        let mut roots = Roots::new();
        let transform = Transform::new(length, &mut roots);
        let mut points = transform.forward(coefficients);
        for point in &mut points {
            *point = product(halved(*point), halved(*point));
        }
        transform.inverse(points)
    }

    #[test]
    fn lengths_are_enough_and_not_much_more() {
        for count in 1..10_000 {
            let length = Length::of(count);
            assert!(length.points() >= count);
            assert!(
                count < 16 || 3 * length.points() < 4 * count + 3,
                "{count}: {length:?}"
            );
            assert!(length.points() >= Length::of(count - 1).points());
        }
    }

    #[test]
    fn squares_fill_every_length() {
        // From a single level to some beyond the cache, with an odd and an even number of them.
        for log in 2..14 {
            for length in [4 << log, 5 << log, 6 << log] {
                // (1 + x + … )² = 1 + 2x + 3x² + …, up to the middle and down again.
                let ones = vec![1; length / 2];
                let expected = (1..length).map(|i| i.min(length - i) as u64).chain([0]);
                let got = square(&ones, Length::of(length));
                assert_eq!(got.len(), length.max(16));
                assert!(got.into_iter().take(length).eq(expected), "{length}");
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..Default::default() })]

        #[test]
        fn squares_as_the_definition_says(a in prop::collection::vec(0u32..10_000_000, 1..400)) {
            let mut expected = vec![0; 2 * a.len() - 1];
            for (i, x) in a.iter().enumerate() {
                for (j, y) in a.iter().enumerate() {
                    expected[i + j] += u64::from(*x) * u64::from(*y);
                }
            }
            let mut got = square(&a, Length::of(expected.len()));
            prop_assert!(got.split_off(expected.len()).into_iter().all(|zero| zero == 0));
            prop_assert_eq!(got, expected);
        }
    }
}
