//! From a large number to its decimal digits.
//!
//! The conversion takes most of the time of a computation, so it is done here, where it can be
//! cancelled: divide and conquer (Brent and Zimmermann, Modern Computer Arithmetic, section 1.7,
//! `FastIntegerOutput`), but level by level instead of recursively. All parts of one level have the
//! same number of digits and are halved by the same power of ten, so that the digits are cut evenly
//! down to parts which the number crate writes fast. 10ᵏ = 5ᵏ · 2ᵏ: the twos are shifted out
//! beforehand, and the divisions get a third smaller. That is a fifth faster than
//! `UBig::to_string` at n = 10⁵ and 10⁶, and as fast at 10⁷.

use std::fmt::Write;

use dashu_int::UBig;
use dashu_int::ops::{BitTest, DivRem};

use crate::procedure::{Cancel, ComputeError};

/// Up to this many digits dividing does not pay (measured: flat from 200 to 1200).
const LEAF_DIGITS: usize = 304;

/// The digits of `number`; looks at `cancel` before every division.
pub(super) fn to_decimal(number: UBig, cancel: &Cancel) -> Result<String, ComputeError> {
    // At most: 2⁹³ is a little less than 10²⁸.
    let digits = number.bit_len().div_ceil(93) * 28;
    let mut levels = 0;
    while digits.div_ceil(1 << levels) > LEAF_DIGITS {
        levels += 1;
    }
    let leaf_digits = digits.div_ceil(1 << levels);

    let mut parts = vec![number];
    for half in halves(leaf_digits, levels, cancel)?.iter().rev() {
        let mut level = Vec::with_capacity(2 * parts.len());
        for part in parts {
            cancel.check()?;
            let (high, low) = half.split(part);
            level.extend([high, low]);
        }
        parts = level;
    }

    let mut text = String::with_capacity(digits);
    for part in parts.iter().skip_while(|part| part.is_zero()) {
        cancel.check()?;
        let width = if text.is_empty() { 0 } else { leaf_digits };
        // Writing to a string cannot fail.
        let _ = write!(text, "{part:0width$}");
    }
    if text.is_empty() {
        text.push('0');
    }
    Ok(text)
}

/// A power of ten, 10ᵏ, which halves the parts of one level.
struct Half {
    k: usize,
    /// 5ᵏ.
    five: UBig,
}

impl Half {
    /// `part` div 10ᵏ and `part` mod 10ᵏ.
    fn split(&self, part: UBig) -> (UBig, UBig) {
        let (twos, fives) = part.split_bits(self.k);
        let (quotient, remainder) = fives.div_rem(&self.five);
        (quotient, (remainder << self.k) | twos)
    }
}

/// The powers that halve parts of `leaf_digits` · 2, · 4, … digits, one for each level.
fn halves(leaf_digits: usize, levels: u32, cancel: &Cancel) -> Result<Vec<Half>, ComputeError> {
    let mut five = UBig::from(5u8).pow(leaf_digits);
    let mut halves = Vec::new();
    for level in 0..levels {
        cancel.check()?;
        if level > 0 {
            five = five.sqr();
        }
        halves.push(Half {
            k: leaf_digits << level,
            five: five.clone(),
        });
    }
    Ok(halves)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn converted(number: UBig) -> String {
        to_decimal(number, &Cancel::new()).unwrap()
    }

    #[test]
    fn writes_what_the_number_crate_writes() {
        let ten = UBig::from(10u8);
        let around = |k| [ten.pow(k) - 1u8, ten.pow(k), ten.pow(k) + 1u8];
        let boundaries = [
            1, 2, 303, 304, 305, 607, 608, 609, 1216, 1217, 5000, 9728, 20_000,
        ];
        for number in boundaries.into_iter().flat_map(around) {
            assert_eq!(converted(number.clone()), number.to_string());
        }
        assert_eq!(converted(UBig::ZERO), "0");
        let ones = UBig::ones(150_000);
        assert_eq!(converted(ones.clone()), ones.to_string());
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..Default::default() })]

        #[test]
        fn writes_any_number(bytes in prop::collection::vec(any::<u8>(), 0..3000)) {
            let number = UBig::from_le_bytes(&bytes);
            prop_assert_eq!(converted(number.clone()), number.to_string());
        }
    }

    #[test]
    fn stops_when_cancelled() {
        let cancel = Cancel::new();
        cancel.cancel();
        let number = UBig::ones(100_000);
        assert_eq!(to_decimal(number, &cancel), Err(ComputeError::Cancelled));
    }
}
