//! Workers' announcements: each worker has a slot, `rpcache:worker:0`, `:1` and so on, a plain string that
//! expires.
//!
//! Slots are numbered, and not named by the workers' ids, so that the fleet is read by asking for a few
//! names instead of scanning all keys. Anybody may have put anything there: a slot is read up to the size of
//! an announcement, and foreign contents cost that slot alone.

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

/// Number of slots.
const MAX_SLOTS: u32 = 64 * ROW;

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
        for row in (0..MAX_SLOTS).step_by(ROW as usize) {
            for slot in self.free_slots(row).await {
                let name = self.slot(slot);
                if self.store.add(&name, &text, TTL, DEADLINE).await.ok()? {
                    return Some(slot);
                }
            }
        }
        None
    }

    /// Slots of a row that may be free: all, once reading them has failed. Something huge may stand there,
    /// which is not to be asked for again.
    async fn free_slots(&self, row: u32) -> Vec<u32> {
        let all = row..row + ROW;
        if !self.slots_unreadable.load(Ordering::Relaxed) {
            let names = self.row(row);
            match self.store.get_many(&bytes(&names), DEADLINE).await {
                Ok(found) => {
                    let free = all
                        .zip(found)
                        .filter(|(_, found)| matches!(found, Ok(None)));
                    return free.map(|(slot, _)| slot).collect();
                }
                Err(_) => self.slots_unreadable.store(true, Ordering::Relaxed),
            }
        }
        all.collect()
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
