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
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::time::Duration;
    use tokio::time::{sleep, timeout};

    type Flights = SingleFlight<&'static str, u32>;

    fn in_ms(millis: u64) -> Instant {
        Instant::now() + Duration::from_millis(millis)
    }

    #[tokio::test(start_paused = true)]
    async fn a_thousand_callers_share_one_flight() {
        let flights = Flights::new(|_| false);
        let flown = Arc::new(AtomicU32::new(0));
        let call = || {
            let flown = Arc::clone(&flown);
            flights.join_one("k", in_ms(1000), move |_| async move {
                sleep(Duration::from_millis(100)).await;
                flown.fetch_add(1, Ordering::Relaxed) + 1
            })
        };
        let landed = futures_util::future::join_all((0..1000).map(|_| call())).await;
        assert_eq!(landed.iter().filter(|l| **l == Landed::Own(1)).count(), 1);
        assert_eq!(
            landed.iter().filter(|l| **l == Landed::Shared(1)).count(),
            999
        );
        assert_eq!(
            call().await,
            Landed::Own(2),
            "a flight that has landed is not joined"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_caller_that_gives_up_takes_nobody_along() {
        let flights = Flights::new(|_| false);
        let slow = |_| async {
            sleep(Duration::from_millis(100)).await;
            7
        };
        let leader = timeout(
            Duration::from_millis(10),
            flights.join_one("k", in_ms(10), slow),
        );
        let follower = flights.join_one("k", in_ms(1000), |_| async { unreachable!() });
        let (leader, follower) = tokio::join!(leader, follower);
        assert!(leader.is_err());
        assert_eq!(follower, Landed::Shared(7));
    }

    #[tokio::test(start_paused = true)]
    async fn a_flight_without_callers_ends() {
        let flights = Flights::new(|_| false);
        let alive = Arc::new(());
        let held = Arc::clone(&alive);
        let endless = |_| async move {
            std::future::pending::<()>().await;
            drop(held);
            0
        };
        assert!(
            timeout(
                Duration::from_millis(10),
                flights.join_one("k", in_ms(10), endless)
            )
            .await
            .is_err()
        );
        while Arc::strong_count(&alive) > 1 {
            tokio::task::yield_now().await;
        }
        assert!(flights.lock().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_flight_that_keeps_itself_aloft_lands_without_callers() {
        let flights = Flights::new(|_| false);
        let work = |callers: Callers<u32>| async move {
            let _kept = callers.keep_aloft();
            sleep(Duration::from_millis(100)).await;
            7
        };
        let leader = timeout(
            Duration::from_millis(10),
            flights.join_one("k", in_ms(10), work),
        );
        assert!(leader.await.is_err());
        sleep(Duration::from_millis(50)).await;
        let joined = flights.join_one("k", in_ms(1000), |_| async { unreachable!() });
        assert_eq!(joined.await, Landed::Shared(7));
        assert!(flights.lock().is_empty());
    }

    #[tokio::test]
    async fn a_flight_that_panics_is_lost_and_the_next_one_flies() {
        let flights = Flights::new(|_| false);
        let lost = flights.join_one("k", in_ms(1000), |_| async {
            panic!("as a user's code may")
        });
        assert_eq!(lost.await, Landed::Lost);
        assert_eq!(
            flights.join_one("k", in_ms(1000), |_| async { 1 }).await,
            Landed::Own(1)
        );
    }

    #[tokio::test(start_paused = true)]
    async fn the_latest_deadline_of_its_callers_counts() {
        let flights = Flights::new(|_| false);
        let until_deadline = |callers: Callers<u32>| async move {
            sleep(Duration::from_millis(10)).await;
            u32::try_from((callers.deadline.at() - Instant::now()).as_millis()).unwrap_or(0)
        };
        let leader = flights.join_one("k", in_ms(100), until_deadline);
        let later = flights.join_one("k", in_ms(500), |_| async { unreachable!() });
        let earlier = flights.join_one("k", in_ms(50), |_| async { unreachable!() });
        let (leader, _, _) = tokio::join!(leader, later, earlier);
        assert_eq!(leader, Landed::Own(490));
    }

    #[tokio::test(start_paused = true)]
    async fn who_joins_a_flight_as_its_time_runs_out_flies_anew_with_time_left() {
        const OUT_OF_TIME: u32 = 0;
        let flights = Flights::new(|outcome| *outcome == OUT_OF_TIME);
        // Between its last look at the deadline and its end it still has something to do.
        let fly = |callers: Callers<u32>| async move {
            sleep(Duration::from_millis(10)).await;
            let left = callers.deadline.at() > Instant::now();
            sleep(Duration::from_millis(10)).await;
            if left { 1 } else { OUT_OF_TIME }
        };
        let joins = async |after: u64, until: u64| {
            let deadline = in_ms(until);
            sleep(Duration::from_millis(after)).await;
            flights.join("k", deadline, fly).await
        };
        let (leader, as_short, longer) = tokio::join!(joins(0, 5), joins(15, 20), joins(15, 50));
        assert_eq!(leader, Landed::Own(OUT_OF_TIME));
        assert_eq!(as_short, Landed::Shared(OUT_OF_TIME));
        assert_eq!(longer, Landed::Own(1));
        assert!(flights.lock().is_empty());
    }

    /// What the interleavings below are judged by: flights aloft for each key, and how often there
    /// were two at once.
    #[derive(Default)]
    struct Sky {
        aloft: [AtomicU32; 3],
        collisions: AtomicU32,
    }

    /// Takes a flight down however it ends.
    struct Aloft(Arc<Sky>, u8);

    impl Aloft {
        fn new(sky: Arc<Sky>, key: u8) -> Self {
            if sky.aloft[usize::from(key)].fetch_add(1, Ordering::SeqCst) > 0 {
                sky.collisions.fetch_add(1, Ordering::SeqCst);
            }
            Self(sky, key)
        }
    }

    impl Drop for Aloft {
        fn drop(&mut self) {
            self.0.aloft[usize::from(self.1)].fetch_sub(1, Ordering::SeqCst);
        }
    }

    /// Comes at a random moment for one of a few keys, with a random patience; its flight, if it is
    /// the one to start it, lands, panics, or never ends. The key, and what it saw if it did not
    /// give up.
    async fn caller(
        mut rng: fastrand::Rng,
        flights: Arc<SingleFlight<u8, (u8, u64)>>,
        sky: Arc<Sky>,
    ) -> (u8, Option<Landed<(u8, u64)>>) {
        sleep(Duration::from_millis(rng.u64(..50))).await;
        let (key, patience) = (rng.u8(..3), Duration::from_millis(rng.u64(1..60)));
        let started = Instant::now();
        let fly = |_| async move {
            let _aloft = Aloft::new(sky, key);
            sleep(Duration::from_millis(rng.u64(..40))).await;
            match rng.u8(..10) {
                // Without the panic hook, which would print ten thousand times.
                0 => std::panic::resume_unwind(Box::new("a panic")),
                1 => std::future::pending().await,
                _ => (key, rng.u64(..)),
            }
        };
        let seen = timeout(patience, flights.join_one(key, started + patience, fly)).await;
        assert!(started.elapsed() <= patience, "late");
        (key, seen.ok())
    }

    #[test]
    fn in_a_hundred_thousand_interleavings_nobody_is_lost_or_mixed_up() {
        let mut shared = 0;
        for seed in 0..1000 {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_time()
                .start_paused(true)
                .build()
                .unwrap();
            runtime.block_on(async {
                let mut rng = fastrand::Rng::with_seed(seed);
                let (flights, sky) = (
                    Arc::new(SingleFlight::new(|_| false)),
                    Arc::new(Sky::default()),
                );
                let callers: Vec<_> = (0..100)
                    .map(|_| caller(rng.fork(), Arc::clone(&flights), Arc::clone(&sky)))
                    .map(tokio::spawn)
                    .collect();
                for caller in callers {
                    let (key, seen) = caller.await.unwrap();
                    shared += u32::from(matches!(seen, Some(Landed::Shared(_))));
                    if let Some(Landed::Own((of, _)) | Landed::Shared((of, _))) = seen {
                        assert_eq!(of, key, "seed {seed}: somebody else's outcome");
                    }
                }
                // Flights that nobody waits for end by themselves.
                sleep(Duration::from_millis(1)).await;
                assert!(flights.lock().is_empty(), "seed {seed}");
                let aloft = sky.aloft.each_ref().map(|n| n.load(Ordering::SeqCst));
                assert_eq!(aloft, [0; 3], "seed {seed}");
                assert_eq!(sky.collisions.load(Ordering::SeqCst), 0, "seed {seed}");
            });
        }
        assert!(shared > 10_000, "only {shared} of them met anybody");
    }
}
