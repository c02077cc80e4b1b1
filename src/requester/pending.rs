//! The requests that await their reply: correlation id -> waiter. Pure, no I/O.
//!
//! A waiter registers before its request is published and is forgotten when it is dropped, so that
//! a caller that gave up leaves nothing behind. A reply to an id that nobody waits for (late, twice,
//! or never asked) is dropped.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;
use uuid::Uuid;

use crate::error::Error;
use crate::message::Reply;

/// Requests in flight at once from one client; more are refused as `overloaded`.
pub(super) const MOST_IN_FLIGHT: usize = 65_536;

/// What a request can end in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    Reply(Reply),
    /// The connection is gone, and the reply with it: worth another try.
    Lost,
    /// There was no queue at this moment: worth another try in a while.
    Unroutable,
    /// The broker refused it: worth one more try, since a queue that is being deleted does so, too.
    Nacked,
    /// Not worth another try.
    Failed(Error),
}

/// The table; clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Pending {
    most: usize,
    table: Arc<Mutex<HashMap<Uuid, Entry>>>,
}

#[derive(Debug)]
struct Entry {
    outcome: oneshot::Sender<Outcome>,
    /// Does not mind that nobody serves at the moment.
    patient: bool,
}

/// A registered wait for one reply.
#[derive(Debug)]
pub(crate) struct Waiter {
    id: Uuid,
    outcome: oneshot::Receiver<Outcome>,
    table: Pending,
}

impl Pending {
    /// An empty table with room for so many.
    pub(super) fn new(most: usize) -> Self {
        Self {
            most,
            table: Arc::default(),
        }
    }

    /// Registers a wait for the reply to `id`; `None` when too many are in flight.
    pub(crate) fn register(&self, id: Uuid, patient: bool) -> Option<Waiter> {
        let mut table = self.lock();
        if table.len() >= self.most {
            return None;
        }
        let (sender, outcome) = oneshot::channel();
        let entry = Entry {
            outcome: sender,
            patient,
        };
        table.insert(id, entry);
        Some(Waiter {
            id,
            outcome,
            table: self.clone(),
        })
    }

    /// Ends the wait for `id`, if there is one: the first outcome wins.
    pub(crate) fn complete(&self, id: Uuid, outcome: Outcome) {
        let waiter = self.lock().remove(&id);
        if let Some(waiter) = waiter {
            // It has just given up: as if the outcome had come later.
            let _ = waiter.outcome.send(outcome);
        }
    }

    /// Ends all waits alike.
    pub(crate) fn complete_all(&self, outcome: &Outcome) {
        let waiters = std::mem::take(&mut *self.lock());
        for waiter in waiters.into_values() {
            let _ = waiter.outcome.send(outcome.clone());
        }
    }

    /// Ends the waits of those who want to know that nobody serves.
    pub(crate) fn complete_impatient(&self, outcome: &Outcome) {
        let waiters: Vec<_> = self
            .lock()
            .extract_if(|_, waiter| !waiter.patient)
            .collect();
        for (_, waiter) in waiters {
            let _ = waiter.outcome.send(outcome.clone());
        }
    }

    pub(crate) fn is_patient(&self, id: Uuid) -> bool {
        self.lock().get(&id).is_some_and(|waiter| waiter.patient)
    }

    pub(crate) fn awaits(&self, id: Uuid) -> bool {
        self.lock().contains_key(&id)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Uuid, Entry>> {
        // Nothing panics while it is held.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiter {
    /// Cancel safe: the wait goes on until the waiter is dropped.
    pub(crate) async fn outcome(&mut self) -> Outcome {
        // The sender is only dropped unused when the same id was registered anew.
        (&mut self.outcome).await.unwrap_or(Outcome::Lost)
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        // An outcome that has arrived took the entry with it; an entry that is there and still
        // open may be a later registration of the same id, which is not ours to remove.
        self.outcome.close();
        let mut table = self.table.lock();
        if table
            .get(&self.id)
            .is_some_and(|entry| entry.outcome.is_closed())
        {
            table.remove(&self.id);
        }
    }
}

#[cfg(test)]
mod tests;
