//! The table of the near cache: copies bounded by weight, each with an expiry. A copy is not kept if its key was
//! invalidated after its lookup began. No clock, no I/O, no task.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use foldhash::quality::RandomState;
use quick_cache::sync::{Cache as Entries, DefaultLifecycle};
use quick_cache::{OptionsBuilder, Weighter};

use crate::cache::{Key, Purge};
use crate::client::answered::Resolved;
use crate::procedure::Answer;
use crate::source::Source;

/// What an entry takes beside its key and its answer, in bytes: pointers, times, its place in the table and
/// in the order of eviction, and what the allocator adds.
const OVERHEAD: usize = 200;

/// Shards, each with a lock of its own. An entry has to fit into one.
const MAX_SHARDS: usize = 8;

/// The least size of a shard, in bytes: a small cache has fewer of them.
const MIN_SHARD_SIZE: usize = 32 * 1024;

/// The copies of one procedure's answers.
pub(super) struct Copies<A> {
    /// The prefix of all keys.
    pub(super) prefix: String,
    ttl: Duration,
    entries: Entries<Key, Entry<A>, Weight, RandomState>,
    /// How many invalidations there have been. A ticket holds the number at which the look for an answer
    /// began; if it has changed since, the answer may be the one that was invalidated, and is not kept.
    generation: AtomicU64,
}

#[derive(Clone)]
struct Entry<A> {
    answer: A,
    stored: bool,
    end: Instant,
    weight: u64,
}

#[derive(Debug, Clone)]
struct Weight;

impl<A> Weighter<Key, Entry<A>> for Weight {
    fn weight(&self, _: &Key, entry: &Entry<A>) -> u64 {
        entry.weight
    }
}

/// The permission to keep a copy of one answer, taken before the look for it begins.
#[must_use]
pub(in crate::client) struct StoreTicket {
    key: Key,
    generation: u64,
}

impl<A: Answer> Copies<A> {
    pub(super) fn new(prefix: String, size: usize, ttl: Duration) -> Self {
        let shards = (size / MIN_SHARD_SIZE).clamp(1, MAX_SHARDS);
        // The crate rounds up to a power of two.
        let shards = 1 << shards.ilog2();
        let options = OptionsBuilder::new()
            .shards(shards)
            .weight_capacity(size as u64)
            // For small answers. It bounds the memory of evicted keys.
            .estimated_items_capacity(size / (OVERHEAD * 2))
            // Answers asked for once are evicted before those asked for often.
            .hot_allocation(0.97)
            .build();
        // Both required options are set, so this does not fail.
        let entries = match options {
            Ok(options) => Entries::with_options(
                options,
                Weight,
                RandomState::default(),
                DefaultLifecycle::default(),
            ),
            Err(_) => Entries::with(
                0,
                size as u64,
                Weight,
                RandomState::default(),
                DefaultLifecycle::default(),
            ),
        };
        Self {
            prefix,
            ttl,
            entries,
            generation: AtomicU64::new(0),
        }
    }

    pub(super) fn get(&self, key: &[u8], now: Instant) -> Option<Resolved<A>> {
        let entry = self.entries.get(key)?;
        // A copy whose time is up is replaced when the answer comes.
        (now < entry.end).then_some(Resolved {
            answer: entry.answer,
            source: Source::Local,
            stored: entry.stored,
        })
    }

    pub(super) fn ticket(&self, key: &Key) -> StoreTicket {
        StoreTicket {
            key: key.clone(),
            generation: self.generation.load(Ordering::SeqCst),
        }
    }

    pub(super) fn keep(&self, ticket: StoreTicket, answer: &Resolved<A>, now: Instant) {
        let StoreTicket { key, generation } = ticket;
        let (true, Some(end)) = (self.is_current(generation), now.checked_add(self.ttl)) else {
            return;
        };
        let bytes = key.as_str().len() + answer.answer.byte_len() + OVERHEAD;
        let entry = Entry {
            answer: answer.answer.clone(),
            stored: answer.stored,
            end,
            weight: bytes as u64,
        };
        self.entries.insert(key.clone(), entry);
        // An invalidation in between found nothing to remove. It counts first and removes then: one that
        // this check misses removes the copy that was inserted above.
        if !self.is_current(generation) {
            self.entries.remove(key.as_bytes());
        }
    }

    pub(super) fn replace(&self, ticket: StoreTicket, answer: &Resolved<A>, now: Instant) {
        // Other calls may have found the older answer at this moment, and must not keep it.
        let before = self.generation.fetch_add(1, Ordering::SeqCst);
        self.entries.remove(ticket.key.as_bytes());
        if before == ticket.generation {
            let generation = before.wrapping_add(1);
            self.keep(
                StoreTicket {
                    generation,
                    ..ticket
                },
                answer,
                now,
            );
        }
    }

    /// Whether nothing was invalidated since.
    fn is_current(&self, generation: u64) -> bool {
        self.generation.load(Ordering::SeqCst) == generation
    }

    pub(super) fn purge(&self, purge: &Purge<'_>) {
        match purge {
            Purge::Keys(keys) if keys.is_empty() => {}
            Purge::Keys(keys) => {
                self.generation.fetch_add(1, Ordering::SeqCst);
                for &key in keys {
                    self.entries.remove(key.as_bytes());
                }
            }
            Purge::Everything => {
                self.generation.fetch_add(1, Ordering::SeqCst);
                self.entries.clear();
            }
        }
    }
}

#[cfg(test)]
mod tests;
