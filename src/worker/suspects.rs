//! Requests that were delivered before. One of them may have ended the worker that had it.
//!
//! A worker that is killed by a request loses with it everything that it held, and the broker gives
//! all of that out again: so a redelivered request is a suspect. Suspects wait until the fresh ones
//! that the worker held before them are settled, and are then computed one at a time, in a random
//! order: if one of them kills this worker, too, it takes no fresh one along, and the innocent get
//! ahead of it before long. How often a suspect was begun and its worker was not heard of again is
//! counted in Redis, see [`crate::cache::Start`]; at [`MOST_STARTS`] it is answered `poison`.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use super::intake::Place;

/// A request that was begun so often and never finished is not begun again.
pub(super) const MOST_STARTS: u64 = 3;

/// The same for what the broker counts, where Redis cannot be asked: deliveries of a whole batch
/// are counted alike, innocent ones too, so the limit is further away.
pub(super) const MOST_DELIVERIES: u64 = 15;

/// What comes back together is taken in a random order: each waits up to this long.
const SHUFFLE: Duration = Duration::from_millis(100);

/// Who is in the worker's hands, in the order of arrival.
#[derive(Debug, Clone)]
pub(super) struct Suspects {
    fresh: Arc<Fresh>,
    turn: Arc<Semaphore>,
}

#[derive(Debug)]
struct Fresh {
    held: Mutex<Held>,
    /// The oldest fresh one that is held; the next number if there is none.
    oldest: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Held {
    next: u64,
    numbers: BTreeSet<u64>,
}

/// A delivery in the worker's hands. When dropped, a fresh one lets the suspects behind it go, and a
/// suspect gives its turn to the next.
#[derive(Debug)]
pub(super) struct Arrival {
    place: Place,
    number: u64,
    suspect: bool,
    suspects: Suspects,
    /// Given back with it.
    turn: Mutex<Option<OwnedSemaphorePermit>>,
}

impl Suspects {
    pub(super) fn new() -> Self {
        Self {
            fresh: Arc::new(Fresh {
                held: Mutex::default(),
                oldest: watch::Sender::new(0),
            }),
            turn: Arc::new(Semaphore::new(1)),
        }
    }

    /// Takes note of a delivery, in the order in which they come.
    pub(super) fn arrived(&self, redelivered: bool, place: Place) -> Arrival {
        let mut held = self.fresh.lock();
        let number = held.next;
        held.next += 1;
        if !redelivered {
            held.numbers.insert(number);
        }
        Arrival {
            place,
            number,
            suspect: redelivered,
            suspects: self.clone(),
            turn: Mutex::default(),
        }
    }
}

impl Arrival {
    /// It only waits for what is computed for another request.
    pub(super) fn waits(&self) {
        self.place.waits();
    }

    pub(super) fn is_suspect(&self) -> bool {
        self.suspect
    }

    /// For a suspect, waits until the fresh ones before it are settled. Whoever shares a flight with
    /// others does so before: one of those might be a fresh one that it would wait for.
    pub(super) async fn after_fresh(&self) {
        if !self.suspect {
            return;
        }
        let mut oldest = self.suspects.fresh.oldest.subscribe();
        // The sender cannot be gone: it is ours.
        let _ = oldest
            .wait_for(|_| self.suspects.fresh.none_before(self.number))
            .await;
        tokio::time::sleep(SHUFFLE.mul_f32(fastrand::f32())).await;
    }

    /// For a suspect, waits for its turn, which it has until it is settled: the next one, if that
    /// ends the worker, must not take an innocent one along a second time.
    pub(super) async fn turn(&self) {
        if self.suspect {
            // Never closed.
            let turn = Arc::clone(&self.suspects.turn).acquire_owned().await;
            *self.turn.lock().unwrap_or_else(PoisonError::into_inner) = turn.ok();
        }
    }
}

impl Drop for Arrival {
    fn drop(&mut self) {
        if self.suspect {
            return;
        }
        let fresh = &self.suspects.fresh;
        let oldest = {
            let mut held = fresh.lock();
            held.numbers.remove(&self.number);
            held.numbers.first().copied().unwrap_or(held.next)
        };
        fresh
            .oldest
            .send_if_modified(|known| std::mem::replace(known, oldest) != oldest);
    }
}

impl Fresh {
    fn none_before(&self, number: u64) -> bool {
        self.lock()
            .numbers
            .first()
            .is_none_or(|&oldest| oldest > number)
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        // Nothing panics while it is held.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::interleavings::{millis, of_each_seed, shuffled};
    use fastrand::Rng;
    use futures_util::FutureExt as _;
    use tokio::task::JoinSet;
    use tokio::time::{sleep, timeout};

    const LONG: Duration = Duration::from_secs(60);

    /// All that it waits for before it is computed.
    async fn begins(arrival: &Arrival) {
        arrival.after_fresh().await;
        arrival.turn().await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_fresh_one_has_no_turn_to_wait_for() {
        let suspects = Suspects::new();
        let _suspect = suspects.arrived(true, Place::alone());
        assert!(
            begins(&suspects.arrived(false, Place::alone()))
                .now_or_never()
                .is_some()
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_suspect_waits_for_the_fresh_ones_before_it_and_not_for_later_ones() {
        let suspects = Suspects::new();
        let before = [
            suspects.arrived(false, Place::alone()),
            suspects.arrived(false, Place::alone()),
        ];
        let suspect = suspects.arrived(true, Place::alone());
        let _later = suspects.arrived(false, Place::alone());
        assert!(timeout(LONG, begins(&suspect)).await.is_err());
        let turn = tokio::spawn(async move { begins(&suspect).await });
        for fresh in before {
            tokio::task::yield_now().await;
            assert!(!turn.is_finished());
            drop(fresh);
        }
        assert!(timeout(LONG, turn).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn suspects_have_their_turn_one_at_a_time_and_in_no_fixed_order() {
        let suspects = Suspects::new();
        let order = Arc::new(Mutex::new(Vec::new()));
        let all = (0..20).map(|i| {
            let (arrival, order) = (suspects.arrived(true, Place::alone()), Arc::clone(&order));
            let busy = Arc::clone(&suspects.turn);
            async move {
                begins(&arrival).await;
                assert_eq!(busy.available_permits(), 0);
                order.lock().unwrap().push(i);
                sleep(LONG).await;
                drop(arrival);
            }
        });
        futures_util::future::join_all(all).await;
        let order = order.lock().unwrap();
        assert_eq!(order.len(), 20);
        assert!(
            !order.is_sorted(),
            "one chance in 20! that this fails by itself"
        );
    }

    /// What is in the worker's hands in one world.
    #[derive(Default)]
    struct Hands {
        fresh: BTreeSet<u64>,
        suspect: Option<u64>,
    }

    /// A panic that is part of the test.
    struct Panic;

    /// A delivery, taken at once, its task as slow as it likes: fresh ones end after a while, well or
    /// by a panic; suspects have their turn and end, or their session ends before.
    async fn delivery(mut rng: Rng, arrival: Arrival, hands: Arc<Mutex<Hands>>) -> bool {
        let number = arrival.number;
        if !arrival.suspect {
            begins(&arrival).await;
            sleep(millis(&mut rng, 100)).await;
            hands.lock().unwrap().fresh.remove(&number);
            if rng.u8(..10) == 0 {
                // Without the panic hook, which would print ten thousand times.
                std::panic::resume_unwind(Box::new(Panic));
            }
            return false;
        }
        let patience = match rng.u8(..4) {
            0 => millis(&mut rng, 300),
            _ => LONG,
        };
        if timeout(patience, begins(&arrival)).await.is_err() {
            assert!(patience < LONG, "it waits for ever");
            return false;
        }
        {
            let mut hands = hands.lock().unwrap();
            let oldest = hands.fresh.first();
            assert!(oldest.is_none_or(|oldest| *oldest > number), "too early");
            assert_eq!(hands.suspect.replace(number), None, "two at once");
        }
        sleep(millis(&mut rng, 50)).await;
        hands.lock().unwrap().suspect = None;
        drop(arrival);
        true
    }

    #[test]
    fn in_a_hundred_thousand_interleavings_no_suspect_begins_too_early_or_never() {
        let turns = Mutex::new(0);
        of_each_seed(2000, async |mut rng| {
            let (suspects, hands) = (Suspects::new(), Arc::new(Mutex::new(Hands::default())));
            let mut tasks = JoinSet::new();
            for _ in 0..50 {
                if rng.bool() {
                    sleep(millis(&mut rng, 20)).await;
                }
                let arrival = suspects.arrived(rng.bool(), Place::alone());
                if !arrival.suspect {
                    hands.lock().unwrap().fresh.insert(arrival.number);
                }
                let delivery = delivery(rng.fork(), arrival, Arc::clone(&hands));
                tasks.spawn(shuffled(rng.fork(), delivery));
            }
            while let Some(ended) = tasks.join_next().await {
                match ended {
                    Ok(had_turn) => *turns.lock().unwrap() += u32::from(had_turn),
                    Err(ended) => {
                        let panic = ended.into_panic();
                        if !panic.is::<Panic>() {
                            std::panic::resume_unwind(panic);
                        }
                    }
                }
            }
            assert!(suspects.fresh.lock().numbers.is_empty());
            assert_eq!(suspects.turn.available_permits(), 1);
        });
        let turns = turns.into_inner().unwrap();
        assert!(turns > 10_000, "only {turns} suspects had their turn");
    }
}
