//! Arithmetic modulo a 61-bit prime that is secret to this process.
//!
//! The check of an answer compares F(n) and the answer modulo that prime. A fixed prime p would be
//! no check: F(n) + p passes it. Against a prime drawn at random a wrong answer passes only if its
//! difference from F(n) happens to have that very prime as a factor: the difference has at most
//! 0.0116 n factors of this size, and there are 2.7 · 10¹⁶ primes to draw from.
//!
//! Products are reduced by P. Montgomery's method ("Modular multiplication without trial division",
//! 1985): a remainder by `%` on 128 bits takes ten times as long, and a text of 209 kB needs 11,600.

use std::sync::OnceLock;

use super::prime::random_prime;

/// An odd modulus from 2⁶⁰ to 2⁶¹. "Montgomery form" of x is x · 2⁶⁴ modulo it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Modulus {
    pub(super) p: u64,
    /// −1 / p, modulo 2⁶⁴.
    negated_inverse: u64,
    /// 2¹²⁸ modulo p: a product with it gives Montgomery form.
    square: u64,
}

impl Modulus {
    /// The prime of this process.
    pub(super) fn secret() -> &'static Self {
        static SECRET: OnceLock<Modulus> = OnceLock::new();
        SECRET.get_or_init(|| Self::new(random_prime()))
    }

    #[expect(
        clippy::cast_possible_truncation,
        reason = "a remainder by a u64 is one"
    )]
    pub(super) fn new(p: u64) -> Self {
        debug_assert!(p >> 60 == 1 && p % 2 == 1);
        // Newton's iteration doubles the correct bits, 3 at first: any odd m is 1 / m modulo 8.
        let inverse = (0..5).fold(p, |x, _| {
            x.wrapping_mul(2u64.wrapping_sub(p.wrapping_mul(x)))
        });
        Self {
            p,
            negated_inverse: inverse.wrapping_neg(),
            square: (u128::MAX % u128::from(p) + 1) as u64 % p,
        }
    }

    /// a · b / 2⁶⁴, reduced. a may be up to 2⁶³, b must be reduced.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the lower half is what is wanted"
    )]
    pub(super) fn product(&self, a: u64, b: u64) -> u64 {
        debug_assert!(a <= 1 << 63 && b < self.p);
        let product = u128::from(a) * u128::from(b);
        let factor = (product as u64).wrapping_mul(self.negated_inverse);
        let sum = product + u128::from(factor) * u128::from(self.p);
        let quotient = (sum >> 64) as u64; // below 3/2 p
        if quotient >= self.p {
            quotient - self.p
        } else {
            quotient
        }
    }

    /// x in Montgomery form.
    pub(super) fn montgomery(&self, x: u64) -> u64 {
        self.product(x, self.square)
    }

    /// F(n), by fast doubling: from F(k) and F(k + 1) to F(2k) and F(2k + 1).
    pub(super) fn fibonacci(&self, n: u64) -> u64 {
        let (mut this, mut next) = (0, self.montgomery(1));
        for shift in (0..u64::BITS - n.leading_zeros()).rev() {
            let even = self.product(2 * next + self.p - this, this);
            let odd = (self.product(this, this) + self.product(next, next)) % self.p;
            (this, next) = if (n >> shift) & 1 == 1 {
                (odd, (even + odd) % self.p)
            } else {
                (even, odd)
            };
        }
        self.product(this, 1)
    }

    /// The number that a text of ASCII digits stands for. Any other text gives something else, but
    /// no panic.
    pub(super) fn decimal(&self, text: &str) -> u64 {
        // 18 digits at a time: below 2⁶⁰, so that a sum with a reduced number needs no reduction.
        const CHUNK: usize = 18;
        const BASE: u64 = 10u64.pow(18);
        let base = self.montgomery(BASE);
        let (head, chunks) = text.as_bytes().as_rchunks::<CHUNK>();
        let number = chunks.iter().fold(value(head), |number, chunk| {
            self.product(number, base) + value(chunk)
        });
        number % self.p
    }

    /// b to the power of e, both and the result in Montgomery form except e.
    pub(super) fn power(&self, b: u64, e: u64) -> u64 {
        let mut power = self.montgomery(1);
        for shift in (0..u64::BITS - e.leading_zeros()).rev() {
            power = self.product(power, power);
            if (e >> shift) & 1 == 1 {
                power = self.product(power, b);
            }
        }
        power
    }
}

/// The number that at most 18 digits stand for. Masked, so that no byte overflows anything.
fn value(digits: &[u8]) -> u64 {
    digits
        .iter()
        .fold(0, |value, digit| 10 * value + u64::from(digit & 15))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

        #[test]
        fn reduces_as_the_remainder_does(modulus in 1u64 << 60..1 << 61, a in 0u64..=1 << 63, b: u64, text in "[0-9]{0,60}") {
            let m = Modulus::new(modulus | 1);
            let wide = |x: u64| u128::from(x);
            let b = b % m.p;
            let product = u64::try_from(wide(a) * wide(b) % wide(m.p)).unwrap();
            prop_assert_eq!(m.product(m.montgomery(a % m.p), b), product);
            // Back from a · b / 2⁶⁴ to a · b.
            prop_assert_eq!(m.montgomery(m.product(a, b)), product);
            let expected = text.bytes().fold(0, |r, d| (10 * r + wide(u64::from(d - b'0'))) % wide(m.p));
            prop_assert_eq!(wide(m.decimal(&text)), expected);
        }

        #[test]
        fn knows_fibonacci_by_addition(modulus in 1u64 << 60..1 << 61, n in 0u64..3000) {
            let m = Modulus::new(modulus | 1);
            let (mut this, mut next) = (0, 1);
            for _ in 0..n {
                (this, next) = (next, (this + next) % m.p);
            }
            prop_assert_eq!(m.fibonacci(n), this);
        }

        #[test]
        fn reads_any_text_without_panic(text in ".{0,100}") {
            Modulus::secret().decimal(&text);
        }
    }
}
