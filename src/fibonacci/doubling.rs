//! F(n) by fast doubling: the doubling and the memoized algorithm.
//!
//! Both take one step for each bit of an index, most significant first. With p = F(k − 1) and
//! a = F(k):
//!
//! - F(2k − 1) = p² + a²
//! - F(2k) = a (2p + a)
//! - F(2k + 1) = F(2k − 1) + F(2k)
//!
//! The first two are Dijkstra's (EWD 654, "In honour of Fibonacci", 1978), in a form without
//! subtractions: an unsigned subtraction below zero would panic.

use std::sync::Arc;

use num_bigint::BigUint;

use super::check::FIRST;
use super::decimal::Decimal;
use super::memo::Memo;
use crate::procedure::{Cancel, ComputeError};

/// Bits of n that are looked up instead of computed: F(0) to F(127) are in [`FIRST`].
const LOOKED_UP: u32 = 7;

/// Two neighbours, F(k − 1) and F(k): what a step needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pair {
    pub(super) k: u64,
    pub(super) before: BigUint,
    pub(super) this: BigUint,
}

/// Fast doubling to half of n; the last step, which costs about as much as all steps before it,
/// computes only the number that is asked for.
pub(super) fn doubling(n: u64, cancel: &Cancel) -> Result<Decimal, ComputeError> {
    if let Some(number) = small(n) {
        return Ok(number);
    }
    let half = n.div_ceil(2);
    let mut pair = Pair::first(half);
    for bit in low_bits(half, bit_len(half) - LOOKED_UP) {
        pair = pair.append(bit, cancel)?;
    }
    let number = if n.is_multiple_of(2) {
        pair.even(cancel)?
    } else {
        pair.odd(cancel)?
    };
    Decimal::of(&number, cancel)
}

/// Fast doubling from the longest prefix of n's bits that `memo` holds. Every pair on the way is
/// stored there for the next call. Two calls at once may compute the same pair: nothing is locked
/// while computing.
pub(super) fn memoized(n: u64, memo: &Memo, cancel: &Cancel) -> Result<Decimal, ComputeError> {
    if let Some(number) = small(n) {
        return Ok(number);
    }
    let mut pair = match memo.longest_prefix(n) {
        Some(pair) => pair,
        None => Arc::new(Pair::first(n)),
    };
    for bit in low_bits(n, bit_len(n) - bit_len(pair.k)) {
        pair = memo.insert(&pair.append(bit, cancel)?);
    }
    Decimal::of(&pair.this, cancel)
}

/// F(n) from the table, if it is there.
fn small(n: u64) -> Option<Decimal> {
    let number = FIRST.get(usize::try_from(n).ok()?)?;
    Some(Decimal::of_digits(number.to_string()))
}

impl Pair {
    /// The pair of the first [`LOOKED_UP`] bits of n, which has at least as many.
    #[expect(clippy::cast_possible_truncation, reason = "k is below 128")]
    fn first(n: u64) -> Self {
        let k = n >> (bit_len(n) - LOOKED_UP);
        let number = |k: u64| BigUint::from(FIRST[k as usize]);
        Self {
            k,
            before: number(k - 1),
            this: number(k),
        }
    }

    /// From k to 2k, or to 2k + 1 where the bit is set.
    fn append(&self, bit: bool, cancel: &Cancel) -> Result<Self, ComputeError> {
        let (odd, even) = (self.odd(cancel)?, self.even(cancel)?);
        let (before, this) = if bit {
            let sum = odd + &even;
            (even, sum)
        } else {
            (odd, even)
        };
        Ok(Self {
            k: 2 * self.k + u64::from(bit),
            before,
            this,
        })
    }

    /// F(2k − 1).
    fn odd(&self, cancel: &Cancel) -> Result<BigUint, ComputeError> {
        cancel.check()?;
        let square = &self.before * &self.before;
        cancel.check()?;
        Ok(&self.this * &self.this + square)
    }

    /// F(2k).
    fn even(&self, cancel: &Cancel) -> Result<BigUint, ComputeError> {
        cancel.check()?;
        Ok(&self.this * ((&self.before << 1u32) + &self.this))
    }
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
mod tests;
