//! Keeps redelivered requests apart: one of them may have crashed the worker that had it.
//!
//! A worker that a request crashes loses all its deliveries, and the broker redelivers all of them. So a
//! redelivered request waits until the fresh requests that the worker held before it are settled, and then for
//! its turn: redelivered requests are computed one at a time, in a random order. If one of them crashes this
//! worker, too, it takes no fresh request along, and the innocent ones get ahead of it before long. Attempts
//! that end with their worker are counted in Redis, see [`super::attempts`]: at the third one
//! the request is answered `poison`.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use super::prefetch_window::Permit;

/// The longest random wait before a turn, so that what is redelivered together is computed in a random order.
const SHUFFLE: Duration = Duration::from_millis(100);

/// The order of deliveries in a worker, and the turn of redelivered ones. Clones share both.
#[derive(Debug, Clone)]
pub(super) struct Redelivered {
    fresh: Arc<Fresh>,
    turn: Arc<Semaphore>,
}

/// The fresh deliveries that are not settled yet.
#[derive(Debug)]
struct Fresh {
    order: Mutex<Order>,
    /// The oldest fresh delivery's number; the next number if there is none.
    oldest: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Order {
    next: u64,
    fresh: BTreeSet<u64>,
}

/// What the worker knows of one delivery, until that is settled or dropped. Its drop lets the redelivered
/// requests behind a fresh one go, and gives a redelivered one's turn to the next.
#[derive(Debug)]
pub(super) struct DeliveryState {
    permit: Permit,
    number: u64,
    redelivered: bool,
    all: Redelivered,
    /// Held until the drop.
    turn: Mutex<Option<OwnedSemaphorePermit>>,
}

impl Redelivered {
    pub(super) fn new() -> Self {
        Self {
            fresh: Arc::new(Fresh {
                order: Mutex::default(),
                oldest: watch::Sender::new(0),
            }),
            turn: Arc::new(Semaphore::new(1)),
        }
    }

    /// Registers a delivery. Called in the order in which deliveries come.
    pub(super) fn register(&self, redelivered: bool, permit: Permit) -> DeliveryState {
        let mut order = self.fresh.lock();
        let number = order.next;
        order.next += 1;
        if !redelivered {
            order.fresh.insert(number);
        }
        DeliveryState {
            permit,
            number,
            redelivered,
            all: self.clone(),
            turn: Mutex::default(),
        }
    }
}

impl DeliveryState {
    /// Notes that the request only waits for what is computed for another one.
    pub(super) fn mark_waiting(&self) {
        self.permit.mark_waiting();
    }

    pub(super) fn is_redelivered(&self) -> bool {
        self.redelivered
    }

    /// Waits, if redelivered, until the fresh deliveries before this one are settled.
    ///
    /// A request does so before it shares a flight: otherwise a fresh request that joins the flight would wait
    /// for this one, and this one for the fresh request.
    pub(super) async fn wait_for_fresh(&self) {
        if !self.redelivered {
            return;
        }
        let mut oldest = self.all.fresh.oldest.subscribe();
        // Cannot fail: the sender is ours.
        let _ = oldest
            .wait_for(|_| self.all.fresh.none_before(self.number))
            .await;
        tokio::time::sleep(SHUFFLE.mul_f32(fastrand::f32())).await;
    }

    /// Waits, if redelivered, for the turn, and keeps it until this is dropped: if the next request crashes the
    /// worker, it must not take this one along a second time.
    pub(super) async fn wait_for_turn(&self) {
        if self.redelivered {
            // Never closed.
            let turn = Arc::clone(&self.all.turn).acquire_owned().await;
            *self.turn.lock().unwrap_or_else(PoisonError::into_inner) = turn.ok();
        }
    }
}

impl Drop for DeliveryState {
    fn drop(&mut self) {
        if self.redelivered {
            return;
        }
        let fresh = &self.all.fresh;
        let oldest = {
            let mut order = fresh.lock();
            order.fresh.remove(&self.number);
            order.fresh.first().copied().unwrap_or(order.next)
        };
        fresh
            .oldest
            .send_if_modified(|known| std::mem::replace(known, oldest) != oldest);
    }
}

impl Fresh {
    fn none_before(&self, number: u64) -> bool {
        self.lock()
            .fresh
            .first()
            .is_none_or(|&oldest| oldest > number)
    }

    fn lock(&self) -> MutexGuard<'_, Order> {
        // Nothing panics while it is held.
        self.order.lock().unwrap_or_else(PoisonError::into_inner)
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

    /// Waits for everything that a request waits for before it is computed.
    async fn start(delivery: &DeliveryState) {
        delivery.wait_for_fresh().await;
        delivery.wait_for_turn().await;
    }

    #[tokio::test(start_paused = true)]
    async fn fresh_request_waits_for_no_turn() {
        let redelivered = Redelivered::new();
        let _earlier = redelivered.register(true, Permit::alone());
        let fresh = redelivered.register(false, Permit::alone());
        assert!(start(&fresh).now_or_never().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn redelivered_request_waits_for_the_fresh_ones_before_it_only() {
        let redelivered = Redelivered::new();
        let before = [
            redelivered.register(false, Permit::alone()),
            redelivered.register(false, Permit::alone()),
        ];
        let delivery = redelivered.register(true, Permit::alone());
        let _later = redelivered.register(false, Permit::alone());
        assert!(timeout(LONG, start(&delivery)).await.is_err());
        let started = tokio::spawn(async move { start(&delivery).await });
        for fresh in before {
            tokio::task::yield_now().await;
            assert!(!started.is_finished());
            drop(fresh);
        }
        assert!(timeout(LONG, started).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn redelivered_requests_have_their_turn_one_at_a_time_in_random_order() {
        let redelivered = Redelivered::new();
        let order = Arc::new(Mutex::new(Vec::new()));
        let all = (0..20).map(|i| {
            let delivery = redelivered.register(true, Permit::alone());
            let (order, turn) = (Arc::clone(&order), Arc::clone(&redelivered.turn));
            async move {
                start(&delivery).await;
                assert_eq!(turn.available_permits(), 0);
                order.lock().unwrap().push(i);
                sleep(LONG).await;
                drop(delivery);
            }
        });
        futures_util::future::join_all(all).await;
        let order = order.lock().unwrap();
        assert_eq!(order.len(), 20);
        // Fails by itself once in 20! runs.
        assert!(!order.is_sorted());
    }

    /// What the worker of one interleaving holds.
    #[derive(Default)]
    struct Held {
        fresh: BTreeSet<u64>,
        /// The redelivered request whose turn it is.
        turn: Option<u64>,
    }

    /// A panic that is part of the test.
    struct Panic;

    /// One delivery's task, as slow as the seed says. A fresh one ends after a while, normally or by a panic; a
    /// redelivered one has its turn and ends, or its session ends before. Returns whether it had a turn.
    async fn serve(mut rng: Rng, delivery: DeliveryState, held: Arc<Mutex<Held>>) -> bool {
        let number = delivery.number;
        if !delivery.redelivered {
            start(&delivery).await;
            sleep(millis(&mut rng, 100)).await;
            held.lock().unwrap().fresh.remove(&number);
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
        if timeout(patience, start(&delivery)).await.is_err() {
            assert!(patience < LONG, "it waits for ever");
            return false;
        }
        {
            let mut held = held.lock().unwrap();
            let oldest = held.fresh.first();
            assert!(oldest.is_none_or(|oldest| *oldest > number), "too early");
            assert_eq!(held.turn.replace(number), None, "two at once");
        }
        sleep(millis(&mut rng, 50)).await;
        held.lock().unwrap().turn = None;
        drop(delivery);
        true
    }

    #[test]
    fn in_a_hundred_thousand_interleavings_no_redelivered_request_starts_too_early_or_never() {
        let turns = Mutex::new(0);
        of_each_seed(2000, async |mut rng| {
            let (redelivered, held) = (Redelivered::new(), Arc::new(Mutex::new(Held::default())));
            let mut tasks = JoinSet::new();
            for _ in 0..50 {
                if rng.bool() {
                    sleep(millis(&mut rng, 20)).await;
                }
                let delivery = redelivered.register(rng.bool(), Permit::alone());
                if !delivery.redelivered {
                    held.lock().unwrap().fresh.insert(delivery.number);
                }
                let serve = serve(rng.fork(), delivery, Arc::clone(&held));
                tasks.spawn(shuffled(rng.fork(), serve));
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
            assert!(redelivered.fresh.lock().fresh.is_empty());
            assert_eq!(redelivered.turn.available_permits(), 1);
        });
        let turns = turns.into_inner().unwrap();
        assert!(turns > 10_000, "only {turns} turns");
    }
}
