//! F(n) by fast doubling: the doubling and the memoized algorithm.
//!
//! Both go through the bits of an index, most significant first. With p = F(k − 1) and a = F(k):
//!
//! - F(2k − 1) = p² + a²
//! - F(2k) = a (2p + a)
//! - F(2k + 1) = F(2k − 1) + F(2k)
//!
//! The first two are Dijkstra's (EWD 654, "In honour of Fibonacci", 1978), put so that nothing is
//! ever subtracted. Sums are formed between the transforms: a step takes two transforms there, two
//! back, and one pass over each number for the carries. The numbers are decimal from the beginning,
//! so that nothing has to be converted at the end, which would take most of the time.
//!
//! The last step holds two transforms, the roots and the limbs: at n = 10⁷ 13 MB with the text.

use std::sync::Arc;

use super::check::FIRST;
use super::decimal::Decimal;
use super::field::{halved, product};
use super::levels::Roots;
use super::limbs::Width;
use super::memo::Memo;
use super::transform::{Length, Transform};
use crate::procedure::{Cancel, ComputeError};

/// Two neighbours, F(k − 1) and F(k): what doubling needs to go on from k.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pair {
    pub(super) k: u64,
    pub(super) width: Width,
    pub(super) before: Vec<u32>,
    pub(super) this: Vec<u32>,
}

/// Fast doubling to half of n; then the last step, which costs about as much as all before it, makes
/// only the number that is asked for.
pub(super) fn doubling(n: u64, cancel: &Cancel) -> Result<Decimal, ComputeError> {
    if let Some(number) = small(n) {
        return Ok(number);
    }
    let half = n.div_ceil(2);
    // F(2k) is the sum of three products; the steps before add up to five, of half the size.
    let width = Width::of(max_digits(half), 3);
    let mut steps = Steps::new(cancel);
    let mut pair = Pair::first(half, width);
    for bit in low_bits(half, bit_len(half) - bit_len(pair.k)) {
        pair = steps.append(&pair, bit)?;
    }
    let number = steps.finish(&pair, n.is_multiple_of(2))?;
    Ok(Decimal::of_digits(width.text(&number)))
}

/// Fast doubling from the longest prefix of n's bits that `memo` holds; every pair on the way is
/// left there for the next call. Two calls at once may compute the same pair: the lock guards the
/// memo, not the arithmetic.
pub(super) fn memoized(n: u64, memo: &Memo, cancel: &Cancel) -> Result<Decimal, ComputeError> {
    if let Some(number) = small(n) {
        return Ok(number);
    }
    let width = Width::of(max_digits(n / 2), 5);
    let mut steps = Steps::new(cancel);
    let mut pair = match memo.longest_prefix(n, width) {
        Some(pair) => pair,
        None => Arc::new(Pair::first(n, width)),
    };
    for bit in low_bits(n, bit_len(n) - bit_len(pair.k)) {
        pair = Arc::new(steps.append(&pair, bit)?);
        memo.keep(&pair);
    }
    Ok(Decimal::of_digits(width.text(&pair.this)))
}

/// F(n) where it is known.
fn small(n: u64) -> Option<Decimal> {
    let number = FIRST.get(usize::try_from(n).ok()?)?;
    Some(Decimal::of_digits(number.to_string()))
}

/// At least the number of digits of F(k): log₁₀ φ is 0.20899.
fn max_digits(k: u64) -> u64 {
    k * 21 / 100 + 1
}

impl Pair {
    /// The pair of the first six bits of n, which is at least 32.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "F(63) is below 2⁶⁴, and k below 64"
    )]
    fn first(n: u64, width: Width) -> Self {
        let k = n >> (bit_len(n) - 6);
        let number = |k: u64| width.carry(&[FIRST[k as usize] as u64]);
        Self {
            k,
            width,
            before: number(k - 1),
            this: number(k),
        }
    }
}

/// The steps of one computation; each looks at `cancel` between any two transforms.
struct Steps<'a> {
    roots: Roots,
    cancel: &'a Cancel,
}

impl<'a> Steps<'a> {
    fn new(cancel: &'a Cancel) -> Self {
        let roots = Roots::new();
        Self { roots, cancel }
    }

    /// From k to 2k, or to 2k + 1 where the bit is set.
    fn append(&mut self, pair: &Pair, bit: bool) -> Result<Pair, ComputeError> {
        let transform = Transform::new(Length::of(2 * pair.this.len()), &mut self.roots);
        let (mut before, mut this) = transformed(pair, &transform, self.cancel)?;
        for (p, a) in before.iter_mut().zip(&mut this) {
            let (odd, even) = (odd(*p, *a), even(*p, *a));
            (*p, *a) = if bit {
                (even, halved(odd + even))
            } else {
                (odd, even)
            };
        }
        self.cancel.check()?;
        let before = pair.width.carry(&transform.inverse(before));
        self.cancel.check()?;
        let this = pair.width.carry(&transform.inverse(this));
        Ok(Pair {
            k: 2 * pair.k + u64::from(bit),
            width: pair.width,
            before,
            this,
        })
    }

    /// F(2k), or F(2k − 1).
    fn finish(&mut self, pair: &Pair, is_even: bool) -> Result<Vec<u32>, ComputeError> {
        let transform = Transform::new(Length::of(2 * pair.this.len()), &mut self.roots);
        let (mut before, this) = transformed(pair, &transform, self.cancel)?;
        for (p, &a) in before.iter_mut().zip(&this) {
            *p = if is_even { even(*p, a) } else { odd(*p, a) };
        }
        drop(this);
        self.cancel.check()?;
        Ok(pair.width.carry(&transform.inverse(before)))
    }
}

/// The transforms of both numbers.
fn transformed(
    pair: &Pair,
    transform: &Transform,
    cancel: &Cancel,
) -> Result<(Vec<u64>, Vec<u64>), ComputeError> {
    cancel.check()?;
    let before = transform.forward(&pair.before);
    cancel.check()?;
    Ok((before, transform.forward(&pair.this)))
}

/// A point of F(2k − 1), below 2 P, from those of F(k − 1) and F(k), below 4 P.
fn odd(p: u64, a: u64) -> u64 {
    let (p, a) = (halved(p), halved(a));
    halved(product(p, p) + product(a, a))
}

/// A point of F(2k), likewise.
fn even(p: u64, a: u64) -> u64 {
    let (p, a) = (halved(p), halved(a));
    product(a, halved(halved(2 * p) + a))
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
