//! F(n) by fast doubling: the doubling and the memoized algorithm.
//!
//! Both go through the bits of n, most significant first. With a = F(k), b = F(k + 1):
//!
//! - F(2k + 1) = a² + b²
//! - F(2k) = a (2b − a) = 2b² − 3a² − 2(−1)ᵏ
//!
//! The first two forms are Dijkstra's (EWD 654, "In honour of Fibonacci", 1978); the last follows
//! from Cassini's identity b² − ab − a² = (−1)ᵏ. It makes a step cost two squarings, where a (2b − a)
//! needs a multiplication besides; GMP's `mpn_fib2_ui` saves in the same way.

use std::sync::Arc;

use dashu_int::UBig;

use super::memo::Memo;
use crate::procedure::{Cancel, ComputeError};

/// Two neighbours, F(k) and F(k + 1): what doubling needs to go on from k.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pair {
    pub(super) k: u64,
    pub(super) this: UBig,
    pub(super) next: UBig,
}

impl Pair {
    /// k = 0, the empty prefix of any n's bits.
    fn first() -> Self {
        Self {
            k: 0,
            this: UBig::ZERO,
            next: UBig::ONE,
        }
    }

    /// From k to 2k, or to 2k + 1 where the bit is set.
    fn append(&self, bit: bool) -> Self {
        let (a2, b2) = (self.this.sqr(), self.next.sqr());
        let odd = &a2 + &b2;
        let mut even = b2 << 1;
        // Ordered so that nothing gets below zero on the way.
        if self.k.is_multiple_of(2) {
            even -= a2 * 3u8;
            even -= 2u8;
        } else {
            even += 2u8;
            even -= a2 * 3u8;
        }
        if bit {
            let next = even + &odd;
            Self {
                k: 2 * self.k + 1,
                this: odd,
                next,
            }
        } else {
            Self {
                k: 2 * self.k,
                this: even,
                next: odd,
            }
        }
    }
}

/// Fast doubling: log₂ n steps, the last of which costs about as much as all before it.
pub(super) fn doubling(n: u64, cancel: &Cancel) -> Result<UBig, ComputeError> {
    let mut pair = Pair::first();
    for bit in low_bits(n, bit_len(n)) {
        cancel.check()?;
        pair = pair.append(bit);
    }
    Ok(pair.this)
}

/// Fast doubling from the longest prefix of n's bits that `memo` holds; every pair on the way is
/// left there for the next call. Two calls at once may compute the same pair: the lock guards the
/// memo, not the arithmetic.
pub(super) fn memoized(n: u64, memo: &Memo, cancel: &Cancel) -> Result<UBig, ComputeError> {
    let mut pair = match memo.longest_prefix(n) {
        Some(pair) => pair,
        None => Arc::new(Pair::first()),
    };
    for bit in low_bits(n, bit_len(n) - bit_len(pair.k)) {
        cancel.check()?;
        pair = Arc::new(pair.append(bit));
        memo.keep(&pair);
    }
    Ok(pair.this.clone())
}

/// The number of bits of n without leading zeros; 0 has none.
fn bit_len(n: u64) -> u32 {
    u64::BITS - n.leading_zeros()
}

/// The lowest `count` bits of n, most significant first.
fn low_bits(n: u64, count: u32) -> impl Iterator<Item = bool> {
    (0..count).rev().map(move |shift| (n >> shift) & 1 == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_call_starts_where_the_first_one_passed() {
        let (memo, cancel) = (Memo::new(1 << 20), Cancel::new());
        memoized(1000, &memo, &cancel).unwrap();
        let held = |n| memo.longest_prefix(n).map(|pair| pair.k);
        assert_eq!(held(1000), Some(1000));
        assert_eq!(held(1001), Some(500));
        assert_eq!(held(8007), Some(1000));
        assert_eq!(held(2), Some(1));
        // Nothing is left to do, so not even a cancelled call looks at the flag again.
        cancel.cancel();
        assert_eq!(
            memoized(1000, &memo, &cancel).unwrap(),
            doubling(1000, &Cancel::new()).unwrap()
        );
        assert_eq!(memoized(1001, &memo, &cancel), Err(ComputeError::Cancelled));
    }
}
