//! Arithmetic modulo the prime P of the transforms: the largest prime below 2⁶² of the form
//! c · 2³⁰ + 1, so that there are roots of unity for transforms of up to 2³⁰ points.
//!
//! Sums are reduced late: 4 P fits into a word, and every function says which range it takes and
//! gives. Products are reduced by P. Montgomery's method as in `modulus.rs`, but with a constant
//! for the modulus and with a remainder around zero: it saves an addition, and here this counts.

pub(super) const P: u64 = 0x3fff_ffee_c000_0001;

/// 1 / P, modulo 2⁶⁴. Newton's iteration doubles the correct bits, 30 at first.
const INVERSE: u64 = {
    let inverse = 2u64.wrapping_sub(P);
    inverse.wrapping_mul(2u64.wrapping_sub(P.wrapping_mul(inverse)))
};

/// 1 in Montgomery form: 2⁶⁴ modulo P.
pub(super) const ONE: u64 = u64::MAX % P + 1;

/// 2¹²⁸ modulo P: a product with it gives Montgomery form.
#[expect(
    clippy::cast_possible_truncation,
    reason = "a remainder by a u64 is one"
)]
const SQUARE: u64 = (u128::MAX % P as u128 + 1) as u64;

/// Of order 2³⁰, in Montgomery form: 3 is no square modulo P.
const ROOT: u64 = power(montgomery(3), P >> 30);

/// a · b / 2⁶⁴ modulo P, between −P and P, below zero as a word of 2⁶⁴ more. a · b must be below
/// 2⁶⁴ · P.
#[inline]
#[expect(
    clippy::cast_possible_truncation,
    reason = "the halves of the product are what is wanted"
)]
pub(super) const fn signed_product(a: u64, b: u64) -> u64 {
    let product = a as u128 * b as u128;
    let factor = (product as u64).wrapping_mul(INVERSE);
    // Equal in their lower halves, so that the difference of the upper ones is exact.
    let multiple = factor as u128 * P as u128;
    ((product >> 64) as u64).wrapping_sub((multiple >> 64) as u64)
}

/// a · b / 2⁶⁴ modulo P, below 2 P. a · b must be below 2⁶⁴ · P.
#[inline]
pub(super) const fn product(a: u64, b: u64) -> u64 {
    signed_product(a, b).wrapping_add(P)
}

/// From below 4 P to below 2 P.
#[inline]
pub(super) const fn halved(x: u64) -> u64 {
    // The smaller of both: the difference wraps where x is below.
    let less = x.wrapping_sub(2 * P);
    if less < x { less } else { x }
}

/// From below 2 P to below P.
#[inline]
pub(super) const fn reduced(x: u64) -> u64 {
    let less = x.wrapping_sub(P);
    if less < x { less } else { x }
}

/// x in Montgomery form, below P.
pub(super) const fn montgomery(x: u64) -> u64 {
    reduced(product(x, SQUARE))
}

/// base to the power of `exponent`; base and power in Montgomery form.
pub(super) const fn power(base: u64, mut exponent: u64) -> u64 {
    let (mut square, mut power) = (base, ONE);
    while exponent > 0 {
        if exponent & 1 == 1 {
            power = reduced(product(power, square));
        }
        square = reduced(product(square, square));
        exponent >>= 1;
    }
    power
}

/// The root of unity of the order 2ᵏ at \[k\], in Montgomery form.
pub(super) static ROOTS: [u64; 31] = squares(ROOT);

/// Their inverses.
pub(super) static INVERSE_ROOTS: [u64; 31] = squares(power(ROOT, P - 2));

/// From the last to the first, each the square of the next.
const fn squares(last: u64) -> [u64; 31] {
    let mut squares = [last; 31];
    let mut k = 30;
    while k > 0 {
        k -= 1;
        squares[k] = reduced(product(squares[k + 1], squares[k + 1]));
    }
    squares
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn remainder(x: u128) -> u64 {
        u64::try_from(x % u128::from(P)).unwrap()
    }

    #[test]
    fn roots_have_their_orders() {
        assert_eq!(ROOTS[0], ONE);
        assert_eq!(ROOTS[1], P - ONE);
        for k in 1..=30 {
            assert_eq!(reduced(product(ROOTS[k], ROOTS[k])), ROOTS[k - 1]);
            assert_eq!(reduced(product(ROOTS[k], INVERSE_ROOTS[k])), ONE);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

        #[test]
        fn reduces_as_the_remainder_does(a: u64, b in 0..P, c in 0..2 * P) {
            let wide = |x: u64| u128::from(x);
            // Back from a · b / 2⁶⁴ to a · b.
            for (a, b) in [(a, b), (u64::MAX, P - 1), (c, c), (2 * P - 1, 2 * P - 1), (0, 0)] {
                let quotient = product(a, b);
                prop_assert!(quotient < 2 * P);
                prop_assert_eq!(remainder(wide(quotient) << 64), remainder(wide(a) * wide(b)));
            }
            for x in [c, 2 * c, 0, P - 1, P, 2 * P - 1] {
                prop_assert!(halved(x) < 2 * P && remainder(wide(halved(x))) == x % P);
                prop_assert_eq!(reduced(halved(x)), x % P);
            }
            prop_assert_eq!(halved(4 * P - 1), 2 * P - 1);
            prop_assert_eq!(montgomery(b), remainder(wide(b) << 64));
        }
    }
}
