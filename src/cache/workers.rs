//! Workers' announcements: each worker has a slot, `rpcache:worker:0`, `:1` and so on, a plain string that
//! expires.
//!
//! Slots are numbered, and not named by the workers' ids, so that the fleet is read by asking for a few
//! names instead of scanning all keys. Anybody may have put anything there: a slot is read up to the size of
//! an announcement, and foreign contents cost that slot alone.

use std::collections::HashSet;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tracing::warn;

use super::store::{GetResult, StoreError};
use super::{Cache, Namespace};
use crate::error::{Error, quote};
use crate::fleet::WorkerStatus;

/// TTL of an announcement.
const TTL: Duration = Duration::from_secs(10);

/// Slots that are read together. No worker has a slot behind a row that is empty.
const ROW: u32 = 64;

/// Number of rows.
const ROWS: u32 = 64;

/// Number of slots.
const MAX_SLOTS: u32 = ROWS * ROW;

/// Limit of one round trip: not part of any call.
const DEADLINE: Duration = Duration::from_millis(500);

/// How much of foreign contents is logged, in bytes.
const SHOWN: usize = 40;

/// The contents of a slot.
enum Slot {
    Free,
    Worker(Box<WorkerStatus>),
    /// Something that no worker wrote: a description.
    Foreign(String),
}

/// The search for a free slot in the first row that has one. Pure.
///
/// It takes the first free slot, and any once another worker was faster: workers that start together would race for the
/// same ones again and again.
#[derive(Debug, Default)]
struct SlotSearch {
    row: u32,
    /// Slots that were taken by others meanwhile, or hold what is read as nothing.
    tried: HashSet<u32>,
}

impl SlotSearch {
    /// The row to read next; `None`: all are full.
    fn row(&self) -> Option<u32> {
        (self.row < ROWS).then_some(self.row)
    }

    /// The slot to try, now that these slots of the row are free; `None`: the next row is to be read first.
    fn choose(&mut self, mut free: Vec<u32>) -> Option<u32> {
        free.retain(|slot| !self.tried.contains(slot));
        let slot = if self.tried.is_empty() {
            free.first().copied()
        } else {
            fastrand::choice(free)
        };
        match slot {
            Some(slot) => _ = self.tried.insert(slot),
            None => self.row += 1,
        }
        slot
    }
}

impl Cache {
    /// Puts a worker's announcement into its slot, or into a free one. The slot that it has then; `None`
    /// where the store refuses: nothing depends on it.
    pub(crate) async fn announce(&self, status: &WorkerStatus, slot: Option<u32>) -> Option<u32> {
        let text = serde_json::to_string(status).ok()?;
        self.store.settled().await;
        if let Some(slot) = slot {
            let name = self.slot(slot);
            let before = self.store.replace(&name, &text, TTL, DEADLINE).await;
            match contents(before).ok()? {
                Slot::Free => return Some(slot),
                Slot::Worker(before) if before.id == status.id => return Some(slot),
                Slot::Worker(_) | Slot::Foreign(_) => {}
            }
        }
        let mut search = SlotSearch::default();
        while let Some(row) = search.row() {
            let Some(free) = self.free_slots(row).await else {
                return self.add_anywhere(&text).await;
            };
            if let Some(slot) = search.choose(free)
                && self.add(slot, &text).await?
            {
                return Some(slot);
            }
        }
        None
    }

    /// Puts an announcement into the first slot that takes it, without reading any.
    async fn add_anywhere(&self, text: &str) -> Option<u32> {
        for slot in 0..MAX_SLOTS {
            if self.add(slot, text).await? {
                return Some(slot);
            }
        }
        None
    }

    /// Puts an announcement into a slot: whether it was free. `None`: the store does not say.
    async fn add(&self, slot: u32, text: &str) -> Option<bool> {
        let name = self.slot(slot);
        self.store.add(&name, text, TTL, DEADLINE).await.ok()
    }

    /// Slots of a row that may be free; `None`, from then on, once reading them has failed: something huge may stand
    /// there, which is not to be asked for again.
    async fn free_slots(&self, row: u32) -> Option<Vec<u32>> {
        if self.slots_unreadable.load(Ordering::Relaxed) {
            return None;
        }
        let first = row * ROW;
        let names = self.row(first);
        let Ok(found) = self.store.get_many(&bytes(&names), DEADLINE).await else {
            self.slots_unreadable.store(true, Ordering::Relaxed);
            return None;
        };
        let slots = (first..).zip(found);
        let free = slots.filter(|(_, found)| matches!(found, Ok(None)));
        Some(free.map(|(slot, _)| slot).collect())
    }

    /// Empties the slot of a worker that ends.
    pub(crate) async fn retract(&self, slot: u32) {
        let name = self.slot(slot);
        // Failing that, the announcement expires.
        let _ = self.store.remove(&[name.as_bytes()], DEADLINE).await;
    }

    fn row(&self, first: u32) -> Vec<String> {
        (first..first + ROW).map(|slot| self.slot(slot)).collect()
    }

    fn slot(&self, slot: u32) -> String {
        let namespace = self.options.namespace.as_ref();
        let prefix = namespace.map_or(String::new(), |Namespace(name)| format!("{name}:"));
        format!("{prefix}rpcache:worker:{slot}")
    }

    /// The workers of this namespace that have announced themselves in the last ten seconds, of all
    /// procedures. Their texts are peers': escape them before a terminal shows them. Slots that no worker
    /// wrote are left out, and logged.
    pub async fn workers(&self) -> Result<Vec<WorkerStatus>, Error> {
        self.store.settled().await;
        let mut workers = Vec::new();
        for row in (0..MAX_SLOTS).step_by(ROW as usize) {
            let found = self.slots(row).await.map_err(|error| self.error(error))?;
            if found.iter().all(|slot| matches!(slot, Slot::Free)) {
                break;
            }
            for (slot, found) in (row..).zip(found) {
                match found {
                    Slot::Free => {}
                    Slot::Worker(status) => workers.push(*status),
                    Slot::Foreign(found) => self.log_foreign(slot, &found),
                }
            }
        }
        Ok(workers)
    }

    /// The contents of a row of slots. Reads no more of any value than an announcement may have.
    async fn slots(&self, first: u32) -> Result<Vec<Slot>, StoreError> {
        let (names, max) = (self.row(first), WorkerStatus::MAX_BYTES);
        let names = bytes(&names);
        let found = self.store.get_bounded(&names, max, DEADLINE).await?;
        found.into_iter().map(contents).collect()
    }

    fn log_foreign(&self, slot: u32, found: &str) {
        if let Some(left_out) = self.logs.foreign_slots.happened() {
            let key = self.slot(slot);
            warn!(
                key,
                found, left_out, "the key of a worker holds something else; ignoring it"
            );
        }
    }
}

fn bytes(names: &[String]) -> Vec<&[u8]> {
    names.iter().map(String::as_bytes).collect()
}

/// Reads a slot. An error of the store that is not about the slot's contents is returned.
fn contents(found: GetResult) -> Result<Slot, StoreError> {
    match found {
        Ok(None) => Ok(Slot::Free),
        Ok(Some(found)) => Ok(read(&found)),
        Err(error) => match error.no_answer() {
            Some(found) => Ok(Slot::Foreign(found.to_owned())),
            None => Err(error),
        },
    }
}

fn read(found: &[u8]) -> Slot {
    if found.len() > WorkerStatus::MAX_BYTES {
        let limit = WorkerStatus::MAX_BYTES;
        return Slot::Foreign(format!("more than {limit} bytes"));
    }
    let shown = quote(&found[..found.len().min(SHOWN)]);
    let Ok(text) = std::str::from_utf8(found) else {
        return Slot::Foreign(format!("not UTF-8: \"{shown}\""));
    };
    match WorkerStatus::read(text) {
        Some(status) => Slot::Worker(Box::new(status)),
        None => Slot::Foreign(format!("\"{shown}\"")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The slots of a store, and how often they were read or tried.
    #[derive(Default)]
    struct Slots {
        taken: HashSet<u32>,
        /// Hold something that is read as nothing.
        odd: HashSet<u32>,
        reads: usize,
        tries: usize,
    }

    impl Slots {
        fn free(&mut self, row: u32) -> Vec<u32> {
            self.reads += 1;
            let mut slots: Vec<_> = (row * ROW..(row + 1) * ROW).collect();
            slots.retain(|slot| !self.taken.contains(slot));
            slots
        }

        fn add(&mut self, slot: u32) -> bool {
            self.tries += 1;
            !self.odd.contains(&slot) && self.taken.insert(slot)
        }

        fn announce(&mut self) -> Option<u32> {
            let mut search = SlotSearch::default();
            while let Some(row) = search.row() {
                let free = self.free(row);
                if let Some(slot) = search.choose(free)
                    && self.add(slot)
                {
                    return Some(slot);
                }
            }
            None
        }
    }

    #[test]
    fn workers_that_start_one_after_another_fill_the_rows() {
        let mut slots = Slots::default();
        for before in 0..MAX_SLOTS {
            assert_eq!(slots.announce(), Some(before));
        }
        assert_eq!(slots.tries, MAX_SLOTS as usize);
        // The nth row is read after those before it.
        assert_eq!(
            slots.reads,
            (1..=ROWS).map(|row| row * ROW).sum::<u32>() as usize
        );
        assert_eq!(slots.announce(), None);
        slots.taken.remove(&700);
        assert_eq!(slots.announce(), Some(700));
    }

    #[test]
    fn four_thousand_workers_that_start_together_all_get_a_slot_soon() {
        const WORKERS: usize = 4000;
        let mut slots = Slots::default();
        let mut searching: Vec<_> = (0..WORKERS).map(|_| SlotSearch::default()).collect();
        while !searching.is_empty() {
            // All read, and then all try.
            let chosen: Vec<_> = searching
                .iter_mut()
                .map(|search| {
                    let row = search.row().expect("there are free slots");
                    search.choose(slots.free(row))
                })
                .collect();
            let mut chosen = chosen.into_iter();
            searching.retain(|_| !chosen.next().flatten().is_some_and(|slot| slots.add(slot)));
        }
        assert_eq!(slots.taken.len(), WORKERS);
        // One slot after another, it would be 8 million tries.
        assert!(slots.tries < 200_000, "{} tries", slots.tries);
        assert!(slots.reads < 300_000, "{} reads", slots.reads);
    }

    #[test]
    fn a_slot_that_only_looks_free_is_tried_once() {
        let mut slots = Slots {
            odd: (0..ROW).collect(),
            ..Slots::default()
        };
        assert_eq!(slots.announce().map(|slot| slot / ROW), Some(1));
        assert_eq!(slots.tries, ROW as usize + 1);
    }
}
