//! Single flight: concurrent callers of one key in this process share one computation.
//!
//! A flight runs as its own task, so a caller that gives up does not cancel it. Its deadline is the latest of
//! its callers' deadlines. It is cancelled when its last caller is gone; if it panics, its callers see
//! [`Outcome::Lost`]. A caller that joins a flight which then runs out of time, and that has time left itself,
//! starts a new one. Pure: the work is handed in.

use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use tokio::sync::watch;
use tokio::time::Instant;

/// Shares one computation among concurrent callers of a key.
pub(crate) struct SingleFlight<K, T> {
    flights: Arc<Mutex<HashMap<K, Flight<T>>>>,
    /// Whether a flight's result only says that its latest deadline has passed.
    is_out_of_time: fn(&T) -> bool,
}

#[derive(Clone)]
struct Flight<T> {
    deadline: Deadline,
    /// Becomes `Some` when the flight ends. Each caller holds a receiver.
    result: Arc<watch::Sender<Option<T>>>,
}

/// The deadline of a flight. Callers that join can move it later, never earlier.
#[derive(Debug, Clone)]
pub(crate) struct Deadline(Arc<Mutex<Instant>>);

/// A flight's view of its callers: their latest deadline, and the right to outlive them.
#[derive(Debug)]
pub(crate) struct Callers<T> {
    /// The latest of their deadlines.
    pub(crate) deadline: Deadline,
    result: Weak<watch::Sender<Option<T>>>,
    /// Counts as one more caller for as long as the work lasts.
    kept: OnceLock<watch::Receiver<Option<T>>>,
}

impl<T> Callers<T> {
    fn new(flight: &Flight<T>) -> Self {
        Self {
            deadline: flight.deadline.clone(),
            result: Arc::downgrade(&flight.result),
            kept: OnceLock::new(),
        }
    }

    /// Lets the flight run to its end even after its last caller is gone, because the work that has begun is
    /// worth finishing.
    pub(crate) fn keep_alive(&self) {
        if let Some(result) = self.result.upgrade() {
            self.kept.get_or_init(|| result.subscribe());
        }
    }
}

/// How a flight ended for one of its callers.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Outcome<T> {
    /// The result of the flight that this caller started.
    Own(T),
    /// The result of a flight that another caller started.
    Shared(T),
    /// The flight ended without a result: it panicked, or the runtime is shutting down.
    Lost,
}

impl Deadline {
    pub(crate) fn new(at: Instant) -> Self {
        Self(Arc::new(Mutex::new(at)))
    }

    pub(crate) fn at(&self) -> Instant {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn extend(&self, at: Instant) {
        let mut deadline = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *deadline = (*deadline).max(at);
    }
}

impl<K, T> fmt::Debug for SingleFlight<K, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SingleFlight")
            .field("flights", &lock(&self.flights).len())
            .finish_non_exhaustive()
    }
}

impl<K, T> SingleFlight<K, T>
where
    K: Clone + Eq + Hash + Send + 'static,
    T: Clone + Send + Sync + 'static,
{
    pub(crate) fn new(is_out_of_time: fn(&T) -> bool) -> Self {
        Self {
            flights: Arc::default(),
            is_out_of_time,
        }
    }

    /// Joins the flight of `key`, or starts it with `work`, and waits for its result.
    ///
    /// The caller bounds its own wait. Cancel safe: dropping this future leaves the flight to its other
    /// callers.
    pub(crate) async fn join<F>(
        &self,
        key: K,
        deadline: Instant,
        work: impl FnOnce(Callers<T>) -> F,
    ) -> Outcome<T>
    where
        F: Future<Output = T> + Send + 'static,
    {
        let flight = loop {
            let mut result = match self.enter(&key, deadline) {
                Entered::New(flight) => break flight,
                Entered::Joined(result) => result,
            };
            match wait(&mut result).await {
                // The flight ran out of time as this caller joined, which has time left itself.
                Some(result) if (self.is_out_of_time)(&result) && Instant::now() < deadline => {}
                Some(result) => return Outcome::Shared(result),
                None => return Outcome::Lost,
            }
        };
        let mut result = flight.result.subscribe();
        let callers = Callers::new(&flight);
        let guard = FlightGuard {
            key,
            flight,
            flights: Arc::clone(&self.flights),
        };
        let work = guard.run(work(callers));
        // Spawned without holding the lock: a runtime that is shutting down drops the task, and with it the
        // guard, inside of `spawn`.
        tokio::spawn(work);
        match wait(&mut result).await {
            Some(result) => Outcome::Own(result),
            None => Outcome::Lost,
        }
    }

    /// Subscribes to the flight of `key`, or enters a new one into the table.
    fn enter(&self, key: &K, deadline: Instant) -> Entered<T> {
        let mut flights = self.lock();
        if let Some(flight) = flights.get(key) {
            flight.deadline.extend(deadline);
            return Entered::Joined(flight.result.subscribe());
        }
        let flight = Flight {
            deadline: Deadline::new(deadline),
            result: Arc::new(watch::Sender::new(None)),
        };
        flights.insert(key.clone(), flight.clone());
        Entered::New(flight)
    }

    /// Whether a caller that joined now would share another caller's flight.
    pub(crate) fn in_flight(&self, key: &K) -> bool {
        self.lock().contains_key(key)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<K, Flight<T>>> {
        lock(&self.flights)
    }
}

/// How a caller enters a flight: starts it, or joins it.
enum Entered<T> {
    New(Flight<T>),
    Joined(watch::Receiver<Option<T>>),
}

/// Waits for a flight's result; `None` if it ends without one.
async fn wait<T: Clone>(result: &mut watch::Receiver<Option<T>>) -> Option<T> {
    result.wait_for(Option::is_some).await.ok()?.clone()
}

fn lock<K, T>(flights: &Mutex<HashMap<K, Flight<T>>>) -> MutexGuard<'_, HashMap<K, Flight<T>>> {
    // Only this file's code runs while the lock is held, and it does not panic.
    flights.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Removes a flight from the table, however it ends.
struct FlightGuard<K: Eq + Hash, T> {
    key: K,
    flight: Flight<T>,
    flights: Arc<Mutex<HashMap<K, Flight<T>>>>,
}

impl<K: Clone + Eq + Hash, T> FlightGuard<K, T> {
    async fn run(self, work: impl Future<Output = T>) {
        let mut work = std::pin::pin!(work);
        loop {
            tokio::select! {
                result = &mut work => {
                    // Removed first: a caller that comes from now on must not get this result.
                    lock(&self.flights).remove(&self.key);
                    self.flight.result.send_replace(Some(result));
                    return;
                }
                () = self.flight.result.closed() => {
                    // A caller may be joining at this moment, under the lock.
                    let mut flights = lock(&self.flights);
                    if self.flight.result.is_closed() {
                        flights.remove(&self.key);
                        return;
                    }
                }
            }
        }
    }
}

impl<K: Eq + Hash, T> Drop for FlightGuard<K, T> {
    fn drop(&mut self) {
        let mut flights = lock(&self.flights);
        // After `run` has removed this flight, the entry of the key may be a later flight.
        if let Some(flight) = flights.get(&self.key)
            && Arc::ptr_eq(&flight.result, &self.flight.result)
        {
            flights.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests;
