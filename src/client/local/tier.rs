//! The copies themselves: bounded by weight, each for a time, and none that was looked for before a
//! purge. No clock, no I/O, no task.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use foldhash::quality::RandomState;
use quick_cache::sync::{Cache as Entries, DefaultLifecycle};
use quick_cache::{OptionsBuilder, Weighter};

use crate::cache::{Key, Purge};
use crate::client::Found;
use crate::message::Source;
use crate::procedure::Answer;

/// What an entry takes beside its key's and its answer's text, in bytes: both pointers, the times, its
/// place in the table and in the order of eviction, and what the allocator adds.
const OVERHEAD: usize = 200;

/// Parts of the tier that can be written to at the same moment. An entry has to fit into one.
const PARTS: usize = 8;

/// A part has room for this much at least: a small tier has fewer.
const SMALLEST_PART: usize = 32 * 1024;

/// The copies, and what is known of purges.
pub(super) struct Tier<A> {
    /// What all keys start with.
    pub(super) prefix: String,
    ttl: Duration,
    entries: Entries<Key, Entry<A>, Weight, RandomState>,
    /// How often something was purged. Whoever looks for an answer elsewhere takes it before, and keeps
    /// nothing if it has changed: what was found may be what was purged.
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

/// The permission to keep one answer, taken before anybody looked for it elsewhere.
#[must_use]
pub(in crate::client) struct Keeping {
    key: Key,
    generation: u64,
}

impl<A: Answer> Tier<A> {
    pub(super) fn new(prefix: String, size: usize, ttl: Duration) -> Self {
        let parts = (size / SMALLEST_PART).clamp(1, PARTS);
        // The crate rounds up to a power of two.
        let parts = 1 << parts.ilog2();
        let options = OptionsBuilder::new()
            .shards(parts)
            .weight_capacity(size as u64)
            // Of small answers. It bounds what is remembered of evicted ones.
            .estimated_items_capacity(size / (OVERHEAD * 2))
            // What has been asked for once makes room before what is asked for often.
            .hot_allocation(0.97)
            .build();
        // Both that must be given are.
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

    pub(super) fn get(&self, key: &[u8], now: Instant) -> Option<Found<A>> {
        let entry = self.entries.get(key)?;
        // One whose time is up is replaced when the answer comes.
        (now < entry.end).then_some(Found {
            answer: entry.answer,
            source: Source::Local,
            stored: entry.stored,
        })
    }

    pub(super) fn keeping(&self, key: &Key) -> Keeping {
        Keeping {
            key: key.clone(),
            generation: self.generation.load(Ordering::SeqCst),
        }
    }

    pub(super) fn keep(&self, keeping: Keeping, found: &Found<A>, now: Instant) {
        let Keeping { key, generation } = keeping;
        let (true, Some(end)) = (self.is(generation), now.checked_add(self.ttl)) else {
            return;
        };
        let bytes = key.as_str().len() + found.answer.byte_len() + OVERHEAD;
        let entry = Entry {
            answer: found.answer.clone(),
            stored: found.stored,
            end,
            weight: bytes as u64,
        };
        self.entries.insert(key.clone(), entry);
        // A purge in between has found nothing to remove yet. It counts first and removes then, so that
        // one that this does not see removes what was inserted here.
        if !self.is(generation) {
            self.entries.remove(key.as_bytes());
        }
    }

    pub(super) fn replace(&self, keeping: Keeping, found: &Found<A>, now: Instant) {
        // Others may have found the older one at this moment, and must not keep it.
        let before = self.generation.fetch_add(1, Ordering::SeqCst);
        self.entries.remove(keeping.key.as_bytes());
        if before == keeping.generation {
            let generation = before.wrapping_add(1);
            self.keep(
                Keeping {
                    generation,
                    ..keeping
                },
                found,
                now,
            );
        }
    }

    /// Whether nothing has been purged since.
    fn is(&self, generation: u64) -> bool {
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
