//! What the memoized algorithm remembers between calls: pairs of neighbours, by k.
//!
//! A table of every F(k) up to k = 10⁶ would take 43 GB, so the memo keeps only the pairs that
//! doubling passes, 650 kB in all for one n = 10⁶, and drops those that were not used for the
//! longest time. Pairs are shared, not copied; one that a computation holds lives on after it was
//! dropped here. The lock is held to look up and to keep, never during arithmetic.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use lru::LruCache;

use super::doubling::Pair;
use super::limbs::Width;

/// What a worker's memo may hold, in bytes.
pub(super) const LIMIT: usize = 64 << 20;

/// A bounded map from k, and the width of limbs, to the pair of k; the least recently used go first.
pub(super) struct Memo {
    held: Mutex<Held>,
    limit: usize,
}

struct Held {
    pairs: LruCache<(Width, u64), Arc<Pair>>,
    /// The sum of `size` over `pairs`; at most `limit` whenever the lock is free.
    bytes: usize,
}

impl Memo {
    /// Empty; will hold at most `limit` bytes.
    pub(super) fn new(limit: usize) -> Self {
        let held = Held {
            pairs: LruCache::unbounded(),
            bytes: 0,
        };
        Self {
            held: Mutex::new(held),
            limit,
        }
    }

    /// The pair with the largest k among n, n >> 1, n >> 2, … that is held, marked as used.
    pub(super) fn longest_prefix(&self, n: u64, width: Width) -> Option<Arc<Pair>> {
        let mut held = self.lock();
        (0..u64::BITS - n.leading_zeros())
            .find_map(|shift| held.pairs.get(&(width, n >> shift)).cloned())
    }

    /// Holds `pair`, at the expense of those used least recently. A pair that alone is over the
    /// limit is not worth all the others: it is left out.
    pub(super) fn keep(&self, pair: &Arc<Pair>) {
        let size = size(pair);
        if size > self.limit {
            return;
        }
        let mut held = self.lock();
        let key = (pair.width, pair.k);
        if held.pairs.put(key, Arc::clone(pair)).is_none() {
            held.bytes += size;
        }
        while held.bytes > self.limit {
            let Some((_, dropped)) = held.pairs.pop_lru() else {
                break;
            };
            held.bytes -= self::size(&dropped);
        }
    }

    /// A panic cannot leave the map between two states, so poison says nothing here.
    fn lock(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The bytes of a pair: its numbers, and about what map and allocator take besides, so that many
/// small pairs are bounded as well.
fn size(pair: &Pair) -> usize {
    const OVERHEAD: usize = 192;
    let bytes = |limbs: &Vec<u32>| size_of::<u32>() * limbs.capacity();
    bytes(&pair.before) + bytes(&pair.this) + OVERHEAD
}

impl fmt::Debug for Memo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Memo")
            .field("limit", &self.limit)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A pair of 1000 bytes as `size` counts.
    fn pair(k: u64) -> Arc<Pair> {
        let pair = Pair {
            k,
            width: Width::Six,
            before: vec![1; 101],
            this: vec![1; 101],
        };
        assert_eq!(size(&pair), 1000);
        Arc::new(pair)
    }

    fn held(memo: &Memo, n: u64) -> Option<Arc<Pair>> {
        memo.longest_prefix(n, Width::Six)
    }

    fn bytes_and_len(memo: &Memo) -> (usize, usize) {
        let held = memo.lock();
        let counted: usize = held.pairs.iter().map(|(_, pair)| size(pair)).sum();
        assert_eq!(held.bytes, counted);
        (held.bytes, held.pairs.len())
    }

    #[test]
    fn stays_within_its_limit_and_drops_what_was_used_least_recently() {
        let memo = Memo::new(3999);
        for k in [1 << 10, 1 << 20, 1 << 30] {
            memo.keep(&pair(k));
        }
        assert_eq!(bytes_and_len(&memo), (3000, 3));
        assert_eq!(held(&memo, (1 << 13) + 5).unwrap().k, 1 << 10);
        memo.keep(&pair(3 << 30));
        assert_eq!(bytes_and_len(&memo), (3000, 3));
        assert!(held(&memo, 1 << 10).is_some());
        assert!(held(&memo, 3 << 30).is_some());
        // 2³⁰ is still there and has 2²⁰ and 2¹⁰ as prefixes.
        assert_eq!(held(&memo, 1 << 30).unwrap().k, 1 << 30);
        assert_eq!(held(&memo, 1 << 29).unwrap().k, 1 << 10);
    }

    #[test]
    fn keeps_one_of_a_kind_and_none_that_is_too_large() {
        let memo = Memo::new(1500);
        memo.keep(&pair(7));
        memo.keep(&pair(7));
        assert_eq!(bytes_and_len(&memo), (1000, 1));
        let too_large = Pair {
            k: 9,
            width: Width::Six,
            before: vec![1; 1000],
            this: vec![1],
        };
        memo.keep(&Arc::new(too_large));
        assert_eq!(bytes_and_len(&memo), (1000, 1));
        assert_eq!(held(&memo, 0), None);
    }
}
