//! Combines lookups of one moment into one command.
//!
//! A lookup that comes while none is in flight goes alone, by GET: the shortest way. Others that are ready
//! at the same moment share an MGET, which Redis and the connection serve in a fraction of the time of as
//! many GETs. A batch is sent when a yield to the scheduler brings no further lookup: those that are ready join it,
//! and none waits for the network to fill it.
//!
//! Under load, the nodes of a cluster have a share of each moment's lookups. There, none goes alone while lookups are
//! in flight at any node: what each command costs both sides is several times what each key costs.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use redis::{Arg, Cmd, ErrorKind, Pipeline, RedisError, ServerErrorKind};
use tokio::sync::oneshot;
use tokio::task::yield_now;
use tokio::time::Instant;

use super::connection::{Connection, readable};
use super::errors::CommandError;
use super::nodes::each_reply;
use crate::trace;

/// What stands under one key; `None`: nothing.
pub(super) type Found = Result<Option<Vec<u8>>, CommandError>;

/// Keys of one MGET, at most. The answers are handed out when the last one is there: many large
/// ones would keep the first waiting.
const MAX_BATCH: usize = 32;

/// Looks up keys over one connection.
#[derive(Debug)]
pub(super) struct Batcher {
    connection: Arc<Connection>,
    budget: Duration,
    in_flight: Arc<InFlight>,
    /// The batch that is sent next. While it has any callers, a [`Flush`] is on its way to send it.
    next: Arc<Mutex<Batch>>,
}

/// Number of GETs and batches that are not answered yet, at one server or at all nodes of a cluster.
#[derive(Debug, Default)]
pub(super) struct InFlight(AtomicUsize);

struct Batch {
    mget: Cmd,
    callers: Vec<oneshot::Sender<Found>>,
}

/// Counts one command as in flight until dropped.
struct Counted<'a>(&'a InFlight);

impl InFlight {
    fn begin(&self) -> Counted<'_> {
        self.0.fetch_add(1, Ordering::Relaxed);
        Counted(self)
    }

    fn is_none(&self) -> bool {
        self.0.load(Ordering::Relaxed) == 0
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The obligation to send the next batch. Dropping it ends the batch, and its callers are answered at
/// once: the runtime on which it was to be sent may be shut down while callers are on another one.
struct Flush(Option<Arc<Mutex<Batch>>>);

impl Flush {
    /// Takes the batch after all tasks that are ready had the chance to join it: replies that have arrived
    /// meanwhile make further ones ready. It is empty if others have filled it up and sent it.
    async fn batch(mut self) -> Batch {
        let mut callers = 1;
        loop {
            yield_now().await;
            let now = self.callers();
            if now <= callers {
                return self.take();
            }
            callers = now;
        }
    }

    fn callers(&self) -> usize {
        self.0.as_ref().map_or(0, |next| lock(next).callers.len())
    }

    fn take(&mut self) -> Batch {
        match self.0.take() {
            Some(next) => std::mem::replace(&mut lock(&next), Batch::empty()),
            None => Batch::empty(),
        }
    }
}

impl Drop for Flush {
    fn drop(&mut self) {
        drop(self.take());
    }
}

impl std::fmt::Debug for Batch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Batch")
            .field("callers", &self.callers.len())
            .finish_non_exhaustive()
    }
}

impl Batch {
    fn empty() -> Self {
        Self {
            mget: redis::cmd("MGET"),
            callers: Vec::with_capacity(MAX_BATCH),
        }
    }
}

impl Batcher {
    /// `budget` limits a batch, and is what a lookup must have left to join one.
    pub(super) fn new(
        connection: Arc<Connection>,
        in_flight: Arc<InFlight>,
        budget: Duration,
    ) -> Self {
        Self {
            connection,
            budget,
            in_flight,
            next: Arc::new(Mutex::new(Batch::empty())),
        }
    }

    /// Gets what stands under `key`, within `limit`. A value that is no string is an error where the
    /// lookup goes alone; MGET calls it nothing.
    ///
    /// Cancel safe.
    pub(super) async fn get(&self, key: &str, limit: Duration) -> Found {
        match self.route(key, limit >= self.budget) {
            Route::Alone(_counted) => self.connection.run_twice(&Cmd::get(key), limit).await,
            Route::Batched(reply) => {
                trace::operation_is("MGET");
                // The sender is dropped without a reply when the runtime is being shut down.
                reply.await.unwrap_or(Err(CommandError::Unavailable))
            }
        }
    }

    /// `full_budget`: the lookup has as much time as the batch may take.
    fn route(&self, key: &str, full_budget: bool) -> Route<'_> {
        let mut next = lock(&self.next);
        if (next.callers.is_empty() && self.in_flight.is_none()) || !full_budget {
            return Route::Alone(self.in_flight.begin());
        }
        let (caller, reply) = oneshot::channel();
        next.mget.arg(key);
        next.callers.push(caller);
        let dispatch = match next.callers.len() {
            1 => Some(Dispatch::Next(Flush(Some(Arc::clone(&self.next))))),
            MAX_BATCH => {
                let full = std::mem::replace(&mut *next, Batch::empty());
                Some(Dispatch::Full(full))
            }
            _ => None,
        };
        drop(next);
        if let Some(dispatch) = dispatch {
            // Without the lock: a runtime that is being shut down drops what it is given right here.
            let (connection, in_flight) =
                (Arc::clone(&self.connection), Arc::clone(&self.in_flight));
            tokio::spawn(look_up(connection, in_flight, dispatch, self.budget));
        }
        Route::Batched(reply)
    }
}

enum Route<'a> {
    Alone(Counted<'a>),
    Batched(oneshot::Receiver<Found>),
}

enum Dispatch {
    Full(Batch),
    Next(Flush),
}

/// Sends a batch, and hands out the replies.
async fn look_up(
    connection: Arc<Connection>,
    in_flight: Arc<InFlight>,
    dispatch: Dispatch,
    budget: Duration,
) {
    let batch = match dispatch {
        Dispatch::Full(full) => full,
        Dispatch::Next(flush) => flush.batch().await,
    };
    if batch.callers.is_empty() {
        return;
    }
    let counted = in_flight.begin();
    let found = get_many(&connection, &batch.mget, budget).await;
    drop(counted);
    match found {
        Ok(found) => {
            for (caller, found) in batch.callers.into_iter().zip(found) {
                // A caller that has given up has no receiver.
                let _ = caller.send(found);
            }
        }
        Err(error) => {
            for caller in batch.callers {
                let _ = caller.send(Err(error.clone()));
            }
        }
    }
}

/// Gets what stands under the keys of an MGET, in their order. A Redis Cluster refuses it if its keys are in
/// several slots, even where one node holds all of those: there the keys go one by one, in one round trip. A
/// value that is no string is an error then; MGET calls it nothing.
///
/// Cancel safe.
pub(super) async fn get_many(
    connection: &Connection,
    mget: &Cmd,
    limit: Duration,
) -> Result<Vec<Found>, CommandError> {
    let started = Instant::now();
    if !connection.goes_one_by_one() {
        let found = connection.run_twice::<Vec<Option<Vec<u8>>>>(mget, limit);
        match found.await {
            Err(CommandError::Refused(error)) if is_cross_slot(&error) => {
                connection.go_one_by_one();
            }
            found => return found.map(|found| found.into_iter().map(Ok).collect()),
        }
    }
    let mut gets = one_by_one("GET", mget);
    gets.ignore_errors();
    let left = limit.saturating_sub(started.elapsed());
    let replies = connection.send_twice((&gets).into(), left).await?;
    let replies = each_reply(Ok(replies), gets.len());
    Ok(replies.into_iter().map(readable).collect())
}

pub(super) fn is_cross_slot(error: &RedisError) -> bool {
    error.kind() == ErrorKind::Server(ServerErrorKind::CrossSlot)
}

/// One command for each key of `many`, whose arguments are all keys.
pub(super) fn one_by_one(name: &str, many: &Cmd) -> Pipeline {
    let mut commands = Pipeline::with_capacity(MAX_BATCH);
    for arg in many.args_iter().skip(1) {
        if let Arg::Simple(key) = arg {
            let mut command = Cmd::with_capacity(2, name.len() + key.len());
            command.arg(name).arg(key);
            commands.add_command(command);
        }
    }
    commands
}

fn lock(next: &Mutex<Batch>) -> MutexGuard<'_, Batch> {
    // Nothing panics while it is held.
    next.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
