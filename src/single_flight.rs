//! Callers of one key in one process share one flight.
//!
//! A flight is a task of its own, so that a caller who gives up takes nobody along. It has the
//! latest deadline of its callers; it ends early when the last of them is gone, and if it panics its
//! callers are told instead of waiting. Whoever joins one that runs out of time in that moment, and has
//! more, flies anew. Pure: what a flight does is handed in.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tokio::sync::watch;
use tokio::time::Instant;

/// Keys in flight; each holds its latest deadline and where its outcome will appear.
pub(crate) struct SingleFlight<K, T> {
    flights: Arc<Mutex<HashMap<K, Flight<T>>>>,
    /// Of an outcome: whether it says no more than that the latest deadline has passed.
    is_out_of_time: fn(&T) -> bool,
}

#[derive(Clone)]
struct Flight<T> {
    deadline: Deadline,
    /// Holds `Some` from the moment it ends. A flight's callers are the receivers.
    outcome: Arc<watch::Sender<Option<T>>>,
}

/// A moment that callers who join may move further away, never nearer.
#[derive(Debug, Clone)]
pub(crate) struct Deadline(Arc<Mutex<Instant>>);

/// What a flight can know of its callers.
#[derive(Debug)]
pub(crate) struct Callers<T> {
    /// The latest of theirs.
    pub(crate) deadline: Deadline,
    outcome: Weak<watch::Sender<Option<T>>>,
}

/// While it is held, its flight goes on although all callers may be gone.
#[derive(Debug)]
pub(crate) struct KeptAloft<T> {
    _caller: Option<watch::Receiver<Option<T>>>,
}

impl<T> Callers<T> {
    /// For a flight that others can join.
    fn new(flight: &Flight<T>) -> Self {
        Self {
            deadline: flight.deadline.clone(),
            outcome: Arc::downgrade(&flight.outcome),
        }
    }

    /// Keeps the flight aloft: what it has begun is worth finishing, whoever is still there.
    pub(crate) fn keep_aloft(&self) -> KeptAloft<T> {
        KeptAloft {
            _caller: self.outcome.upgrade().map(|outcome| outcome.subscribe()),
        }
    }
}

/// What became of a flight for one of its callers.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Landed<T> {
    /// This caller's own flight.
    Own(T),
    /// Another caller had started it.
    Shared(T),
    /// It ended without an outcome: it panicked, or the runtime is being shut down.
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
        let aloft = lock(&self.flights).len();
        f.debug_struct("SingleFlight")
            .field("aloft", &aloft)
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

    /// Joins the flight of `key`, or starts it with `fly`, and waits for it. The caller bounds its
    /// own wait: dropping this future is all that it takes to give up.
    pub(crate) async fn join<F>(
        &self,
        key: K,
        deadline: Instant,
        mut fly: impl FnMut(Callers<T>) -> F,
    ) -> Landed<T>
    where
        F: Future<Output = T> + Send + 'static,
    {
        loop {
            match self.join_one(key.clone(), deadline, &mut fly).await {
                // It was about to end when this caller joined, who has more time.
                Landed::Shared(outcome)
                    if (self.is_out_of_time)(&outcome) && Instant::now() < deadline => {}
                landed => return landed,
            }
        }
    }

    /// The same for one flight, whatever comes of it.
    async fn join_one<F>(
        &self,
        key: K,
        deadline: Instant,
        fly: impl FnOnce(Callers<T>) -> F,
    ) -> Landed<T>
    where
        F: Future<Output = T> + Send + 'static,
    {
        let (mut outcome, begun) = match self.lock().entry(key.clone()) {
            Entry::Occupied(flight) => {
                let flight = flight.get();
                flight.deadline.extend(deadline);
                (flight.outcome.subscribe(), None)
            }
            Entry::Vacant(vacant) => {
                let (sender, receiver) = watch::channel(None);
                let flight = Flight {
                    deadline: Deadline::new(deadline),
                    outcome: Arc::new(sender),
                };
                vacant.insert(flight.clone());
                let work = fly(Callers::new(&flight));
                let seat = Seat {
                    key,
                    flight,
                    flights: Arc::clone(&self.flights),
                };
                (receiver, Some(seat.fly(work)))
            }
        };
        let own = begun.is_some();
        if let Some(flight) = begun {
            // Without the lock: a runtime that is being shut down drops it right here.
            tokio::spawn(flight);
        }
        let landed = match outcome.wait_for(Option::is_some).await {
            Ok(outcome) => outcome.clone(),
            Err(_) => None,
        };
        match landed {
            Some(outcome) if own => Landed::Own(outcome),
            Some(outcome) => Landed::Shared(outcome),
            None => Landed::Lost,
        }
    }

    /// Whether one who joined at this moment would share somebody else's flight.
    pub(crate) fn is_aloft(&self, key: &K) -> bool {
        self.lock().contains_key(key)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<K, Flight<T>>> {
        lock(&self.flights)
    }
}

fn lock<K, T>(flights: &Mutex<HashMap<K, Flight<T>>>) -> MutexGuard<'_, HashMap<K, Flight<T>>> {
    // No code of others runs while it is held.
    flights.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A flight's place in the table, vacated however the flight ends.
struct Seat<K: Eq + Hash, T> {
    key: K,
    flight: Flight<T>,
    flights: Arc<Mutex<HashMap<K, Flight<T>>>>,
}

impl<K: Clone + Eq + Hash, T> Seat<K, T> {
    async fn fly(self, work: impl Future<Output = T>) {
        let mut work = std::pin::pin!(work);
        loop {
            tokio::select! {
                outcome = &mut work => {
                    // Vacated first: whoever comes from now on looks for itself.
                    lock(&self.flights).remove(&self.key);
                    self.flight.outcome.send_replace(Some(outcome));
                    return;
                }
                () = self.flight.outcome.closed() => {
                    // Somebody may be joining at this moment, under the lock.
                    let mut flights = lock(&self.flights);
                    if self.flight.outcome.is_closed() {
                        flights.remove(&self.key);
                        return;
                    }
                }
            }
        }
    }
}

impl<K: Eq + Hash, T> Drop for Seat<K, T> {
    fn drop(&mut self) {
        let mut flights = lock(&self.flights);
        // After an ordinary end, the key's entry may be a later flight's.
        if let Some(flight) = flights.get(&self.key)
            && Arc::ptr_eq(&flight.outcome, &self.flight.outcome)
        {
            flights.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests;
