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
