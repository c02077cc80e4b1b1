//! The memo of the memoized algorithm: pairs of neighbouring Fibonacci numbers by k, kept between calls.
//!
//! A table of every F(k) up to k = 10⁶ would take 43 GB, so the memo holds only the pairs that
//! doubling passes, 350 kB in all for one n = 10⁶, and evicts some when it is full. Pairs are shared,
//! not copied; one that a computation uses lives on after it was evicted.

use std::fmt;
use std::sync::Arc;

use quick_cache::Weighter;
use quick_cache::sync::Cache;

use super::doubling::Pair;

/// What a worker's memo may hold, in bytes.
pub(super) const LIMIT: usize = 64 << 20;

/// A bounded map from k to the pair of k.
pub(super) struct Memo(Cache<u64, Arc<Pair>, Bytes>);

impl Memo {
    /// Empty; will hold at most `limit` bytes.
    pub(super) fn new(limit: usize) -> Self {
        // Not divided into shards, since so few items are expected: a pair may be nearly as large as
        // all of it.
        const ITEMS: usize = 16;
        Self(Cache::with_weighter(ITEMS, limit as u64, Bytes))
    }

    /// The pair with the largest k among n, n >> 1, n >> 2, … that is held.
    pub(super) fn longest_prefix(&self, n: u64) -> Option<Arc<Pair>> {
        (0..u64::BITS - n.leading_zeros()).find_map(|shift| self.0.get(&(n >> shift)))
    }

    /// Stores a copy of `pair`, unless it alone takes nearly all of the limit or more, and returns the
    /// copy. A copy has no spare capacity; a computed number has some, and does not say how much.
    pub(super) fn insert(&self, pair: &Pair) -> Arc<Pair> {
        let copy = Arc::new(pair.clone());
        self.0.insert(copy.k, Arc::clone(&copy));
        copy
    }
}

/// Weighs a pair by its bytes: its numbers, and about what map and allocator add, so that many
/// small pairs are bounded as well.
#[derive(Debug, Clone)]
struct Bytes;

impl Weighter<u64, Arc<Pair>> for Bytes {
    fn weight(&self, _: &u64, pair: &Arc<Pair>) -> u64 {
        const OVERHEAD: u64 = 256;
        (pair.before.bits() + pair.this.bits()) / 8 + OVERHEAD
    }
}

impl fmt::Debug for Memo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Memo")
            .field("limit", &self.0.capacity())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use num_bigint::BigUint;

    use super::*;

    /// A pair that weighs 1000 bytes.
    fn pair(k: u64) -> Pair {
        let number: BigUint = BigUint::from(1u8) << (372 * 8 - 1u32);
        let pair = Pair {
            k,
            before: number.clone(),
            this: number,
        };
        assert_eq!(Bytes.weight(&k, &Arc::new(pair.clone())), 1000);
        pair
    }

    /// The number of pairs, having checked that together they are as heavy as the memo says.
    fn len(memo: &Memo) -> usize {
        let weights = memo.0.iter().map(|(k, pair)| Bytes.weight(&k, &pair));
        assert_eq!(weights.sum::<u64>(), memo.0.weight());
        memo.0.len()
    }

    fn held(memo: &Memo, n: u64) -> Option<u64> {
        memo.longest_prefix(n).map(|pair| pair.k)
    }

    #[test]
    fn finds_the_longest_prefix() {
        let memo = Memo::new(10_000);
        for k in [1 << 10, 1 << 20] {
            assert_eq!(memo.insert(&pair(k)).k, k);
        }
        assert_eq!(held(&memo, (1 << 13) + 5), Some(1 << 10));
        assert_eq!(held(&memo, (1 << 20) + 1), Some(1 << 10));
        assert_eq!(held(&memo, 1 << 30), Some(1 << 20));
        assert_eq!(held(&memo, 1 << 9), None);
        assert_eq!(held(&memo, 0), None);
    }

    #[test]
    fn stays_within_its_limit() {
        let memo = Memo::new(LIMIT);
        for k in 0..2 * (LIMIT as u64) / 1000 {
            memo.insert(&pair(k));
            assert!(memo.0.weight() <= LIMIT as u64);
        }
        // Full, and with that bound.
        assert!((60_000..=LIMIT / 1000).contains(&len(&memo)));
    }

    #[test]
    fn holds_one_of_a_kind_and_none_that_is_too_large() {
        let memo = Memo::new(1500);
        memo.insert(&pair(7));
        memo.insert(&pair(7));
        assert_eq!((len(&memo), memo.0.weight()), (1, 1000));
        let too_large = Pair {
            before: BigUint::from(1u8) << 16_000,
            ..pair(9)
        };
        assert_eq!(*memo.insert(&too_large), too_large);
        assert_eq!((len(&memo), held(&memo, 9)), (1, None));
    }
}
