//! Tests of flights: sharing, cancellation, panics, deadlines, and random interleavings.

use super::*;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use tokio::time::{sleep, timeout};

type Flights = SingleFlight<&'static str, u32>;

fn in_ms(millis: u64) -> Instant {
    Instant::now() + Duration::from_millis(millis)
}

#[tokio::test(start_paused = true)]
async fn thousand_callers_share_one_flight() {
    let flights = Flights::new(|_| false);
    let runs = Arc::new(AtomicU32::new(0));
    let call = || {
        let runs = Arc::clone(&runs);
        flights.join("k", in_ms(1000), move |_| async move {
            sleep(Duration::from_millis(100)).await;
            runs.fetch_add(1, Ordering::Relaxed) + 1
        })
    };
    let outcomes = futures_util::future::join_all((0..1000).map(|_| call())).await;
    assert_eq!(
        outcomes.iter().filter(|o| **o == Outcome::Own(1)).count(),
        1
    );
    assert_eq!(
        outcomes
            .iter()
            .filter(|o| **o == Outcome::Shared(1))
            .count(),
        999
    );
    assert_eq!(
        call().await,
        Outcome::Own(2),
        "a flight that has ended is not joined"
    );
}

#[tokio::test(start_paused = true)]
async fn caller_that_gives_up_does_not_cancel_the_flight() {
    let flights = Flights::new(|_| false);
    let slow = |_| async {
        sleep(Duration::from_millis(100)).await;
        7
    };
    let leader = timeout(
        Duration::from_millis(10),
        flights.join("k", in_ms(10), slow),
    );
    let follower = flights.join("k", in_ms(1000), |_| async { unreachable!() });
    let (leader, follower) = tokio::join!(leader, follower);
    assert!(leader.is_err());
    assert_eq!(follower, Outcome::Shared(7));
}

#[tokio::test(start_paused = true)]
async fn flight_without_callers_is_cancelled() {
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
            flights.join("k", in_ms(10), endless)
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
async fn flight_kept_alive_ends_without_callers() {
    let flights = Flights::new(|_| false);
    let work = |callers: Callers<u32>| async move {
        callers.keep_alive();
        sleep(Duration::from_millis(100)).await;
        7
    };
    let leader = timeout(
        Duration::from_millis(10),
        flights.join("k", in_ms(10), work),
    );
    assert!(leader.await.is_err());
    sleep(Duration::from_millis(50)).await;
    let joined = flights.join("k", in_ms(1000), |_| async { unreachable!() });
    assert_eq!(joined.await, Outcome::Shared(7));
    assert!(flights.lock().is_empty());
}

#[tokio::test]
async fn flight_that_panics_is_lost_and_a_new_one_starts() {
    let flights = Flights::new(|_| false);
    let lost = flights.join("k", in_ms(1000), |_| async {
        panic!("as a user's code may")
    });
    assert_eq!(lost.await, Outcome::Lost);
    assert_eq!(
        flights.join("k", in_ms(1000), |_| async { 1 }).await,
        Outcome::Own(1)
    );
}

#[tokio::test(start_paused = true)]
async fn deadline_is_the_latest_of_all_callers() {
    let flights = Flights::new(|_| false);
    let until_deadline = |callers: Callers<u32>| async move {
        sleep(Duration::from_millis(10)).await;
        u32::try_from((callers.deadline.at() - Instant::now()).as_millis()).unwrap_or(0)
    };
    let leader = flights.join("k", in_ms(100), until_deadline);
    let later = flights.join("k", in_ms(500), |_| async { unreachable!() });
    let earlier = flights.join("k", in_ms(50), |_| async { unreachable!() });
    let (leader, _, _) = tokio::join!(leader, later, earlier);
    assert_eq!(leader, Outcome::Own(490));
}

#[tokio::test(start_paused = true)]
async fn caller_that_joins_a_flight_out_of_time_starts_a_new_one() {
    const OUT_OF_TIME: u32 = 0;
    let flights = Flights::new(|outcome| *outcome == OUT_OF_TIME);
    // Between its last look at the deadline and its end it still has something to do.
    let work = |callers: Callers<u32>| async move {
        sleep(Duration::from_millis(10)).await;
        let left = callers.deadline.at() > Instant::now();
        sleep(Duration::from_millis(10)).await;
        if left { 1 } else { OUT_OF_TIME }
    };
    let joins = async |after: u64, until: u64| {
        let deadline = in_ms(until);
        sleep(Duration::from_millis(after)).await;
        flights.join("k", deadline, work).await
    };
    let (leader, as_short, longer) = tokio::join!(joins(0, 5), joins(15, 20), joins(15, 50));
    assert_eq!(leader, Outcome::Own(OUT_OF_TIME));
    assert_eq!(as_short, Outcome::Shared(OUT_OF_TIME));
    assert_eq!(longer, Outcome::Own(1));
    assert!(flights.lock().is_empty());
}

/// Counts flights under way for each key, and how often there were two at once.
#[derive(Default)]
struct Observed {
    in_flight: [AtomicU32; 3],
    collisions: AtomicU32,
}

/// One flight under way, until dropped.
struct InFlight(Arc<Observed>, u8);

impl InFlight {
    fn new(observed: Arc<Observed>, key: u8) -> Self {
        if observed.in_flight[usize::from(key)].fetch_add(1, Ordering::SeqCst) > 0 {
            observed.collisions.fetch_add(1, Ordering::SeqCst);
        }
        Self(observed, key)
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight[usize::from(self.1)].fetch_sub(1, Ordering::SeqCst);
    }
}

/// Calls one of a few keys at a random moment with a random timeout. A flight that it starts returns, panics
/// or never ends. Returns the key and the outcome, if it came within the timeout.
async fn caller(
    mut rng: fastrand::Rng,
    flights: Arc<SingleFlight<u8, (u8, u64)>>,
    observed: Arc<Observed>,
) -> (u8, Option<Outcome<(u8, u64)>>) {
    sleep(Duration::from_millis(rng.u64(..50))).await;
    let (key, patience) = (rng.u8(..3), Duration::from_millis(rng.u64(1..60)));
    let started = Instant::now();
    let work = |_| async move {
        let _in_flight = InFlight::new(observed, key);
        sleep(Duration::from_millis(rng.u64(..40))).await;
        match rng.u8(..10) {
            // Without the panic hook, which would print ten thousand times.
            0 => std::panic::resume_unwind(Box::new("a panic")),
            1 => std::future::pending().await,
            _ => (key, rng.u64(..)),
        }
    };
    let seen = timeout(patience, flights.join(key, started + patience, work)).await;
    assert!(started.elapsed() <= patience, "late");
    (key, seen.ok())
}

#[test]
fn in_a_hundred_thousand_interleavings_no_caller_is_lost_or_gets_another_keys_result() {
    let mut shared = 0;
    for seed in 0..1000 {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(async {
            let mut rng = fastrand::Rng::with_seed(seed);
            let (flights, observed) = (
                Arc::new(SingleFlight::new(|_| false)),
                Arc::new(Observed::default()),
            );
            let callers: Vec<_> = (0..100)
                .map(|_| caller(rng.fork(), Arc::clone(&flights), Arc::clone(&observed)))
                .map(tokio::spawn)
                .collect();
            for caller in callers {
                let (key, seen) = caller.await.unwrap();
                shared += u32::from(matches!(seen, Some(Outcome::Shared(_))));
                if let Some(Outcome::Own((of, _)) | Outcome::Shared((of, _))) = seen {
                    assert_eq!(of, key, "seed {seed}: another key's result");
                }
            }
            // Flights without callers are cancelled.
            sleep(Duration::from_millis(1)).await;
            assert!(flights.lock().is_empty(), "seed {seed}");
            let in_flight = observed
                .in_flight
                .each_ref()
                .map(|n| n.load(Ordering::SeqCst));
            assert_eq!(in_flight, [0; 3], "seed {seed}");
            assert_eq!(observed.collisions.load(Ordering::SeqCst), 0, "seed {seed}");
        });
    }
    assert!(shared > 10_000, "only {shared} callers shared a flight");
}
