//! F(n) by n additions, as the definition says: the iterative algorithm.

use num_bigint::BigUint;

use super::decimal::Decimal;
use crate::procedure::{Cancel, ComputeError};

/// Checks `cancel` before each addition.
pub(super) fn iterative(n: u64, cancel: &Cancel) -> Result<Decimal, ComputeError> {
    let (mut this, mut next) = (BigUint::ZERO, BigUint::from(1u8));
    for _ in 0..n {
        cancel.check()?;
        // Not `+=`: that one is inlined, and slow in a build that does not optimise this crate.
        let sum = this + &next;
        (this, next) = (next, sum);
    }
    Decimal::of(&this, cancel)
}
