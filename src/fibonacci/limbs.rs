//! Large numbers as limbs of 5 to 7 decimal digits in a word of 32 bits, the least significant first
//! and without zeros at the other end: computing on these leaves nothing to convert at the end.

use super::field::P;

/// The digits of a limb. The more, the shorter the transforms; the fewer, the larger the numbers
/// whose products they can give.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Width {
    /// Always enough: for all n that can be asked for.
    Five = 5,
    /// Up to n = 8 · 10⁷ and more.
    Six = 6,
    /// Up to n = 10⁶ and a little more.
    Seven = 7,
}

impl Width {
    /// The largest with which the sum of `products` products of two numbers of `digits` digits stays
    /// below P in every coefficient.
    pub(super) fn of(digits: u64, products: u64) -> Self {
        [Self::Seven, Self::Six]
            .into_iter()
            .find(|width| width.fits(digits, products))
            .unwrap_or(Self::Five)
    }

    /// A coefficient of one product is a sum of products of two limbs, at most as many as one number
    /// has limbs.
    pub(super) fn fits(self, digits: u64, products: u64) -> bool {
        let largest = 10u128.pow(self as u32) - 1;
        let limbs = digits.div_ceil(self as u64);
        largest * largest * u128::from(limbs) * u128::from(products) < u128::from(P)
    }

    /// The limbs of the number with these coefficients, each below 2⁶³.
    pub(super) fn carry(self, coefficients: &[u64]) -> Vec<u32> {
        match self {
            Self::Five => carry::<5>(coefficients),
            Self::Six => carry::<6>(coefficients),
            Self::Seven => carry::<7>(coefficients),
        }
    }

    /// The decimal digits of a number.
    pub(super) fn text(self, limbs: &[u32]) -> String {
        match self {
            Self::Five => text::<5>(limbs),
            Self::Six => text::<6>(limbs),
            Self::Seven => text::<7>(limbs),
        }
    }
}

/// Dividing by a constant is multiplying; by a variable it takes several times as long.
#[expect(
    clippy::cast_possible_truncation,
    reason = "a remainder by 10⁷ or less"
)]
fn carry<const DIGITS: u32>(coefficients: &[u64]) -> Vec<u32> {
    let base = const { 10u64.pow(DIGITS) };
    let mut limbs = Vec::with_capacity(coefficients.len() + 4);
    let mut carry = 0;
    for &coefficient in coefficients {
        carry += coefficient;
        limbs.push((carry % base) as u32);
        carry /= base;
    }
    while carry > 0 {
        limbs.push((carry % base) as u32);
        carry /= base;
    }
    let len = limbs.iter().rposition(|&limb| limb > 0);
    limbs.truncate(len.map_or(0, |last| last + 1));
    limbs
}

fn text<const DIGITS: usize>(limbs: &[u32]) -> String {
    let Some((first, rest)) = limbs.split_last() else {
        return "0".to_owned();
    };
    let mut text = Vec::with_capacity(DIGITS * limbs.len());
    text.extend_from_slice(first.to_string().as_bytes());
    for &limb in rest.iter().rev() {
        text.extend_from_slice(&digits::<DIGITS>(limb));
    }
    // Digits are always UTF-8.
    String::from_utf8(text).unwrap_or_default()
}

fn digits<const DIGITS: usize>(mut limb: u32) -> [u8; DIGITS] {
    let mut digits = [0; DIGITS];
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + (limb % 10) as u8;
        limb /= 10;
    }
    digits
}
