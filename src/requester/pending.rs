//! The table of requests in flight: correlation id -> waiter. Pure, no I/O.
//!
//! A waiter registers before its request is published, and unregisters when dropped, so a cancelled call leaves
//! nothing behind. A reply without a waiter (late, duplicate or unsolicited) is dropped.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;
use uuid::Uuid;

use crate::error::Error;
use crate::message::Reply;

/// Requests in flight at once from one client; more are refused as `overloaded`.
pub(super) const MAX_IN_FLIGHT: usize = 65_536;

/// The outcome of one attempt at a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    Reply(Reply),
    /// The connection was lost, and the reply with it: to be published again.
    Lost,
    /// The queue does not exist at the moment: to be published again after a pause.
    Unroutable,
    /// The broker refused the message: to be published once more, since a queue that is being deleted refuses,
    /// too.
    Nacked,
    /// Not to be published again.
    Failed(Error),
}

/// The waiters by correlation id. Clones share the table.
#[derive(Debug, Clone)]
pub(crate) struct Pending {
    capacity: usize,
    table: Arc<Mutex<HashMap<Uuid, Entry>>>,
}

#[derive(Debug)]
struct Entry {
    outcome: oneshot::Sender<Outcome>,
    /// Keeps waiting while no worker serves the queue.
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
    /// An empty table for at most `capacity` waiters.
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            capacity,
            table: Arc::default(),
        }
    }

    /// Registers a waiter for the reply to `id`; `None` if the table is full.
    pub(crate) fn register(&self, id: Uuid, patient: bool) -> Option<Waiter> {
        let mut table = self.lock();
        if table.len() >= self.capacity {
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

    /// Completes the waiter of `id`, if there is one. The first outcome wins.
    pub(crate) fn complete(&self, id: Uuid, outcome: Outcome) {
        let waiter = self.lock().remove(&id);
        if let Some(waiter) = waiter {
            // An error: the waiter was dropped just now.
            let _ = waiter.outcome.send(outcome);
        }
    }

    /// Completes all waiters with the same outcome.
    pub(crate) fn complete_all(&self, outcome: &Outcome) {
        let waiters = std::mem::take(&mut *self.lock());
        for waiter in waiters.into_values() {
            let _ = waiter.outcome.send(outcome.clone());
        }
    }

    /// Completes the waiters that do not wait for a worker to start.
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
        // Nothing panics while the lock is held.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiter {
    /// Waits for the outcome. Cancel safe: may be called again until the waiter is dropped.
    pub(crate) async fn outcome(&mut self) -> Outcome {
        // The sender is dropped unused only if the same id was registered again.
        (&mut self.outcome).await.unwrap_or(Outcome::Lost)
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        // An outcome removes the entry. An entry that is still open after `close` is a later registration of the
        // same id, and stays.
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
