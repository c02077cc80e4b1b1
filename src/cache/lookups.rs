//! Lookups of many callers at the same moment: they go to Redis together.
//!
//! One that comes while none is under way takes the shortest way, a GET of its own. Others that are
//! ready at the same moment share an MGET, which Redis and the connection serve in a fraction of the
//! time of as many GETs. Nobody waits for company: what has come together when everybody who could run
//! has run is sent. What the keys are for, nobody here knows.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use redis::Cmd;
use tokio::sync::oneshot;
use tokio::task::yield_now;

use super::connection::{Connection, Unanswered};
use crate::trace;

/// Keys of one MGET, at most. The answers are handed out when the last one is there: many large
/// ones would keep the first waiting.
const MOST_TOGETHER: usize = 32;

/// What stands under a key.
pub(super) type Found = Result<Option<Vec<u8>>, Unanswered>;

/// The lookups of one process in one Redis.
#[derive(Debug)]
pub(super) struct Lookups {
    connection: Arc<Connection>,
    budget: Duration,
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    /// GETs and MGETs that are not answered yet.
    under_way: usize,
    /// What will be sent next, and who waits for it. While there is any, a [`Gathering`] is on its
    /// way to send it.
    next: Together,
}

struct Together {
    mget: Cmd,
    callers: Vec<oneshot::Sender<Found>>,
}

/// One exchange that is under way.
struct UnderWay<'a>(&'a Mutex<State>);

impl<'a> UnderWay<'a> {
    fn begin(lookups: &'a Mutex<State>, state: &mut State) -> Self {
        state.under_way += 1;
        Self(lookups)
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        lock(self.0).under_way -= 1;
    }
}

/// The obligation to send what comes together. Dropped, nobody is left waiting for it: the runtime
/// on which it was to be sent may be shut down while callers are on another one.
struct Gathering(Option<Arc<Mutex<State>>>);

impl Gathering {
    /// Waits until everybody who is ready has had the chance to join. Nobody, if others have come in
    /// between, filled it up and sent it.
    async fn end(mut self) -> Together {
        yield_now().await;
        self.take()
    }

    fn take(&mut self) -> Together {
        match self.0.take() {
            Some(state) => std::mem::replace(&mut lock(&state).next, Together::none()),
            None => Together::none(),
        }
    }
}

impl Drop for Gathering {
    fn drop(&mut self) {
        drop(self.take());
    }
}

impl std::fmt::Debug for Together {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Together")
            .field("callers", &self.callers.len())
            .finish_non_exhaustive()
    }
}

impl Together {
    fn none() -> Self {
        Self {
            mget: redis::cmd("MGET"),
            callers: Vec::with_capacity(MOST_TOGETHER),
        }
    }
}

impl Lookups {
    /// `budget` is what a lookup may take that has all of it.
    pub(super) fn new(connection: Arc<Connection>, budget: Duration) -> Self {
        Self {
            connection,
            budget,
            state: Arc::new(Mutex::new(State {
                under_way: 0,
                next: Together::none(),
            })),
        }
    }

    /// What stands under `key`, within `limit`. A value that is no string is told as such to those
    /// who go alone; MGET calls it nothing.
    ///
    /// Cancel safe.
    pub(super) async fn get(&self, key: &str, limit: Duration) -> Found {
        match self.go(key, limit >= self.budget) {
            Way::Alone(_under_way) => self.connection.run_twice(&Cmd::get(key), limit).await,
            Way::Together(found) => {
                trace::operation_is("MGET");
                // Without a word: the runtime is being shut down.
                found.await.unwrap_or(Err(Unanswered::Unavailable))
            }
        }
    }

    /// `patient`: it has all the time that others have.
    fn go(&self, key: &str, patient: bool) -> Way<'_> {
        let mut state = lock(&self.state);
        if (state.under_way == 0 && state.next.callers.is_empty()) || !patient {
            return Way::Alone(UnderWay::begin(&self.state, &mut state));
        }
        let (told, found) = oneshot::channel();
        state.next.mget.arg(key);
        state.next.callers.push(told);
        let gathered = match state.next.callers.len() {
            1 => Some(Gathered::Soon(Gathering(Some(Arc::clone(&self.state))))),
            MOST_TOGETHER => {
                let full = std::mem::replace(&mut state.next, Together::none());
                Some(Gathered::Now(full))
            }
            _ => None,
        };
        drop(state);
        if let Some(gathered) = gathered {
            // Without the lock: a runtime that is being shut down drops what it is given right here.
            let (connection, state) = (Arc::clone(&self.connection), Arc::clone(&self.state));
            tokio::spawn(look(connection, state, gathered, self.budget));
        }
        Way::Together(found)
    }
}

enum Way<'a> {
    Alone(UnderWay<'a>),
    Together(oneshot::Receiver<Found>),
}

enum Gathered {
    Now(Together),
    Soon(Gathering),
}

/// Sends what has come together, and hands out what is found.
async fn look(
    connection: Arc<Connection>,
    state: Arc<Mutex<State>>,
    gathered: Gathered,
    budget: Duration,
) {
    let together = match gathered {
        Gathered::Now(full) => full,
        Gathered::Soon(gathering) => gathering.end().await,
    };
    if together.callers.is_empty() {
        return;
    }
    let under_way = UnderWay::begin(&state, &mut lock(&state));
    let found = connection.get_many(&together.mget, budget).await;
    drop(under_way);
    match found {
        Ok(found) => {
            for (caller, found) in together.callers.into_iter().zip(found) {
                // It has given up.
                let _ = caller.send(found);
            }
        }
        Err(unanswered) => {
            for caller in together.callers {
                let _ = caller.send(Err(unanswered.clone()));
            }
        }
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    // Nothing panics while it is held.
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
