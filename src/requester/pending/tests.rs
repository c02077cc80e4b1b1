//! Tests of the table of waiters: replies, dropped waiters, lost connections, and random interleavings.

use super::*;
use crate::interleavings::{millis, of_each_seed, shuffled};
use fastrand::Rng;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

fn reply(text: &str) -> Outcome {
    Outcome::Reply(Reply {
        outcome: Ok(Arc::new(text.into())),
        source: None,
        filled: None,
        steps: None,
    })
}

#[tokio::test]
async fn the_first_reply_wins_and_later_ones_are_dropped() {
    let pending = Pending::new(MAX_IN_FLIGHT);
    let id = Uuid::new_v4();
    let mut waiter = pending.register(id, false).unwrap();
    pending.complete(Uuid::new_v4(), reply("another request's"));
    pending.complete(id, reply("first"));
    pending.complete(id, reply("second"));
    assert_eq!(waiter.outcome().await, reply("first"));
    assert!(pending.is_empty());
}

#[test]
fn a_dropped_waiter_leaves_nothing_behind() {
    let pending = Pending::new(MAX_IN_FLIGHT);
    let id = Uuid::new_v4();
    drop(pending.register(id, false).unwrap());
    assert!(pending.is_empty());
    pending.complete(id, reply("late"));
}

#[tokio::test]
async fn dropping_an_old_waiter_keeps_a_new_one_of_the_same_id() {
    let pending = Pending::new(MAX_IN_FLIGHT);
    let id = Uuid::new_v4();
    let old = pending.register(id, false).unwrap();
    let mut new = pending.register(id, false).unwrap();
    drop(old);
    pending.complete(id, reply("for the new one"));
    assert_eq!(new.outcome().await, reply("for the new one"));
}

#[tokio::test]
async fn all_waiters_are_completed_when_the_connection_is_lost() {
    let pending = Pending::new(MAX_IN_FLIGHT);
    let mut waiters: Vec<Waiter> = (0..100)
        .map(|_| pending.register(Uuid::new_v4(), false).unwrap())
        .collect();
    pending.complete_all(&Outcome::Lost);
    for waiter in &mut waiters {
        assert_eq!(waiter.outcome().await, Outcome::Lost);
    }
    assert!(pending.is_empty());
}

#[tokio::test]
async fn only_impatient_waiters_are_completed_without_a_worker() {
    let pending = Pending::new(MAX_IN_FLIGHT);
    let (early, late) = (Uuid::new_v4(), Uuid::new_v4());
    let mut impatient = pending.register(early, false).unwrap();
    let mut patient = pending.register(late, true).unwrap();
    pending.complete_impatient(&Outcome::Unroutable);
    assert_eq!(impatient.outcome().await, Outcome::Unroutable);
    assert!(pending.is_patient(late));
    pending.complete(late, reply("after all"));
    assert_eq!(patient.outcome().await, reply("after all"));
}

#[test]
fn the_table_is_bounded() {
    let pending = Pending::new(MAX_IN_FLIGHT);
    let waiters: Vec<Waiter> = (0..MAX_IN_FLIGHT)
        .map(|_| pending.register(Uuid::new_v4(), false).unwrap())
        .collect();
    assert!(pending.register(Uuid::new_v4(), false).is_none());
    drop(waiters);
    assert!(pending.register(Uuid::new_v4(), false).is_some());
}

/// A simple model of the table: the waiters by id, and the outcome of each. Waiters are numbered.
#[derive(Default)]
struct Model {
    waits: HashMap<Uuid, (usize, bool)>,
    outcomes: Vec<Option<Outcome>>,
}

impl Model {
    fn register(&mut self, id: Uuid, patient: bool) -> usize {
        let number = self.outcomes.len();
        self.outcomes.push(None);
        if let Some((old, _)) = self.waits.insert(id, (number, patient)) {
            self.outcomes[old] = Some(Outcome::Lost);
        }
        number
    }

    fn complete(&mut self, outcome: &Outcome, to: impl Fn(Uuid, bool) -> bool) {
        for (_, (number, _)) in self.waits.extract_if(|id, (_, patient)| to(*id, *patient)) {
            self.outcomes[number] = Some(outcome.clone());
        }
    }
}

/// Worlds, with twenty waiters each.
const SEEDS: u64 = 5000;

/// The tolerance of timers.
const TICK: Duration = Duration::from_millis(1);

/// Fewer than there are ids: the table is full at times.
const CAPACITY: usize = 4;

struct World {
    ids: [Uuid; 6],
    pending: Pending,
    model: Mutex<Model>,
    coverage: Mutex<Coverage>,
}

/// Counts the tested events in all worlds.
#[derive(Debug, Default)]
struct Coverage {
    replied: u32,
    timed_out: u32,
    replaced: u32,
    refused: u32,
}

/// Registers at a random moment, waits for a random time, and is dropped; some are dropped without waiting.
async fn waits(mut rng: Rng, world: Arc<World>) {
    sleep(millis(&mut rng, 40)).await;
    let (id, patient) = (world.ids[rng.usize(..6)], rng.bool());
    let full = world.model.lock().unwrap().waits.len() == CAPACITY;
    let Some(mut waiter) = world.pending.register(id, patient) else {
        assert!(full, "refused though there was room");
        world.coverage.lock().unwrap().refused += 1;
        return;
    };
    assert!(!full, "more than the bound");
    let number = world.model.lock().unwrap().register(id, patient);
    if rng.u8(..4) == 0 {
        // Dropped without waiting.
        sleep(millis(&mut rng, 10)).await;
    } else {
        let (started, patience) = (Instant::now(), millis(&mut rng, 40));
        let outcome = timeout(patience, waiter.outcome()).await.ok();
        let expected = world.model.lock().unwrap().outcomes[number].clone();
        assert_eq!(outcome, expected, "not its outcome");
        let mut coverage = world.coverage.lock().unwrap();
        if outcome.is_none() {
            let took = started.elapsed();
            assert!(took >= patience && took <= patience + TICK, "{took:?}");
            coverage.timed_out += 1;
        }
        coverage.replied += u32::from(matches!(outcome, Some(Outcome::Reply(_))));
        coverage.replaced += u32::from(outcome == Some(Outcome::Lost));
    }
    drop(waiter);
    let waits = &mut world.model.lock().unwrap().waits;
    if waits.get(&id).is_some_and(|(waits, _)| *waits == number) {
        waits.remove(&id);
    }
}

/// Completes one waiter, whether it waits or not, maybe twice; or the impatient ones; or all.
async fn completes(mut rng: Rng, world: Arc<World>, number: usize) {
    sleep(millis(&mut rng, 60)).await;
    let id = world.ids[rng.usize(..6)];
    let (pending, mut model) = (&world.pending, world.model.lock().unwrap());
    match rng.u8(..12) {
        0 => {
            model.complete(&Outcome::Nacked, |_, _| true);
            pending.complete_all(&Outcome::Nacked);
        }
        1 => {
            model.complete(&Outcome::Unroutable, |_, patient| !patient);
            pending.complete_impatient(&Outcome::Unroutable);
        }
        times => {
            let outcome = reply(&number.to_string());
            model.complete(&outcome, |of, _| of == id);
            pending.complete(id, outcome);
            if times == 2 {
                pending.complete(id, reply("twice"));
            }
        }
    }
    let (waits, patient) = match model.waits.get(&id) {
        Some((_, patient)) => (true, *patient),
        None => (false, false),
    };
    assert_eq!(
        (waits, patient),
        (pending.awaits(id), pending.is_patient(id))
    );
    assert_eq!(model.waits.is_empty(), pending.is_empty());
}

#[test]
fn in_a_hundred_thousand_interleavings_every_waiter_gets_its_outcome() {
    let coverage = Mutex::new(Coverage::default());
    of_each_seed(SEEDS, async |mut rng| {
        let world = Arc::new(World {
            ids: std::array::from_fn(|_| Uuid::from_u128(rng.u128(..))),
            pending: Pending::new(CAPACITY),
            model: Mutex::default(),
            coverage: Mutex::new(std::mem::take(&mut coverage.lock().unwrap())),
        });
        let mut tasks = JoinSet::new();
        for number in 0..20 {
            tasks.spawn(shuffled(rng.fork(), waits(rng.fork(), Arc::clone(&world))));
            tasks.spawn(shuffled(
                rng.fork(),
                completes(rng.fork(), Arc::clone(&world), number),
            ));
        }
        tasks.join_all().await;
        assert!(world.pending.is_empty());
        *coverage.lock().unwrap() = std::mem::take(&mut world.coverage.lock().unwrap());
    });
    let coverage = coverage.into_inner().unwrap();
    let rarest = coverage
        .replied
        .min(coverage.timed_out)
        .min(coverage.replaced)
        .min(coverage.refused);
    assert!(rarest > 1000, "{coverage:?}");
}
