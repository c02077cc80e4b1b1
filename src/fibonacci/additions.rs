//! F(n) by n additions, as the definition says: the iterative algorithm.
//!
//! The two numbers stay in place, as limbs of 14 decimal digits in words of 64 bits. The spare
//! bits hold the carries of several additions, so that a pass over the limbs makes [`STEPS`]
//! additions of each pair of limbs in registers before it passes a carry on. That is seven times as
//! fast as adding big integers one by one, which waits for memory and carries most of the time.

use super::decimal::Decimal;
use super::limbs::Width;
use crate::procedure::{Cancel, ComputeError};

const BASE: u64 = 10u64.pow(14);

/// Additions per pass: a limb grows at most by the factor F(24 + 2) = 121,393 meanwhile, to 1.2 · 10¹⁹
/// with the carry from below, and 2⁶⁴ is 1.8 · 10¹⁹.
const STEPS: u64 = 24;

/// n additions; looks at `cancel` before each pass.
pub(super) fn iterative(n: u64, cancel: &Cancel) -> Result<Decimal, ComputeError> {
    let mut pair = Limbs(vec![(0, 1)]);
    for _ in 0..n / STEPS {
        cancel.check()?;
        pair.pass::<STEPS>();
    }
    for _ in 0..n % STEPS {
        cancel.check()?;
        pair.pass::<1>();
    }
    Ok(pair.into_first())
}

/// F(k) and F(k + 1), limb beside limb, the least significant first.
struct Limbs(Vec<(u64, u64)>);

impl Limbs {
    /// COUNT additions: from k to k + COUNT.
    fn pass<const COUNT: u64>(&mut self) {
        let (mut this_carry, mut next_carry) = (0, 0);
        for limb in &mut self.0 {
            let (mut this, mut next) = *limb;
            // Not over a range: in a build for tests, its steps may be a dependency's, which is not
            // optimised, and this takes 25 times as long.
            let mut left = COUNT;
            while left > 0 {
                (this, next) = (next, this + next);
                left -= 1;
            }
            this += this_carry;
            next += next_carry;
            *limb = (this % BASE, next % BASE);
            (this_carry, next_carry) = (this / BASE, next / BASE);
        }
        if next_carry > 0 {
            self.0.push((this_carry, next_carry));
        }
    }

    fn into_first(self) -> Decimal {
        let halves = |(limb, _)| [limb % BASE.isqrt(), limb / BASE.isqrt()];
        let halves: Vec<u64> = self.0.into_iter().flat_map(halves).collect();
        Decimal::of_digits(Width::Seven.text(&Width::Seven.carry(&halves)))
    }
}
