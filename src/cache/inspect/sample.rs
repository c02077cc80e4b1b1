//! Samples of the keys. SCAN's order is that of a keyed hash, so any part of it is a fair sample.

use super::keys::{KeyPattern, PAGE};
use super::{Cache, StoredKey};
use crate::error::Error;
use crate::procedure::Procedure;

/// A sample is drawn from a million keys.
const SAMPLED_PAGES: u64 = 4000;

impl Cache {
    /// Draws up to `n` keys of the procedure at random, out of all keys if there are up to a million, else out
    /// of a million from a random place on. Fewer than `n` if no more are found. May take some seconds.
    pub async fn sample<P: Procedure>(
        &self,
        procedure: &P,
        n: usize,
    ) -> Result<Vec<StoredKey>, Error> {
        let pattern = self.glob(procedure.name(), &KeyPattern::default());
        let mut walk = Walk::new(self.key_count().await?, SAMPLED_PAGES);
        let mut reservoir = Reservoir::new(n);
        while let Some(page) = walk.next_page(self, Some(&pattern)).await? {
            for key in page {
                if self.is_of(procedure, &key) {
                    reservoir.offer(key);
                }
            }
        }
        let mut drawn = reservoir.drawn;
        // SCAN may have come across one twice.
        drawn.sort_unstable();
        drawn.dedup();
        Ok(drawn)
    }
}

/// A bounded walk through the database: from its beginning where that is enough for all of it, else
/// from a random place on, and on from the beginning after the end.
pub(super) struct Walk {
    cursor: u64,
    from_beginning: bool,
    pages_left: u64,
    /// All keys were visited.
    pub(super) complete: bool,
}

impl Walk {
    pub(super) fn new(keys: Option<u64>, pages: u64) -> Self {
        // A page may have somewhat more or fewer keys than it asks for.
        let from_beginning = keys.is_none_or(|keys| keys <= pages * PAGE);
        Self {
            // Redis ignores those bits of a cursor that its table has no use for.
            cursor: if from_beginning { 0 } else { fastrand::u64(..) },
            from_beginning,
            // A table may have several places for each key.
            pages_left: if from_beginning { pages * 20 } else { pages },
            complete: false,
        }
    }

    pub(super) async fn next_page(
        &mut self,
        cache: &Cache,
        pattern: Option<&str>,
    ) -> Result<Option<Vec<StoredKey>>, Error> {
        if self.complete || self.pages_left == 0 {
            return Ok(None);
        }
        let (next, page) = cache.page(self.cursor, pattern).await?;
        self.cursor = next;
        self.pages_left -= 1;
        self.complete = next == 0 && self.from_beginning;
        Ok(Some(page))
    }
}

/// Draws `wanted` of the items that it is offered, each with the same chance, in memory for `wanted`.
struct Reservoir<T> {
    wanted: usize,
    offered: usize,
    drawn: Vec<T>,
}

impl<T> Reservoir<T> {
    fn new(wanted: usize) -> Self {
        let (offered, drawn) = (0, Vec::new());
        Self {
            wanted,
            offered,
            drawn,
        }
    }

    fn offer(&mut self, item: T) {
        self.offered += 1;
        if self.drawn.len() < self.wanted {
            self.drawn.push(item);
        } else if let Some(place) = self.drawn.get_mut(fastrand::usize(..self.offered)) {
            *place = item;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_item_is_drawn_alike() {
        let mut drawn = [0_u32; 20];
        for _ in 0..2000 {
            let mut reservoir = Reservoir::new(5);
            (0..20).for_each(|item| reservoir.offer(item));
            assert_eq!(reservoir.drawn.len(), 5);
            reservoir.drawn.iter().for_each(|&item| drawn[item] += 1);
        }
        // Of 2000 rounds each is in a quarter: 500, give or take 19.
        assert!(drawn.iter().all(|n| (380..620).contains(n)), "{drawn:?}");
    }
}
