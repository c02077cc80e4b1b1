//! One missing answer in a worker's hands: claimed, waited for or computed, filled.
//!
//! Requests for the same key in one worker share a flight, so that one of them waits or computes and
//! the others hang on it. Across workers, the cache's lease does the same: whoever has it computes;
//! the others wait, in no compute slot, until the answer is in the cache or the lease is free.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use tracing::error;

use super::Desk;
use super::suspects::{self, Arrival};
use crate::cache::{Budget, Claim, Key, Lease, Look, Start, Token, Vacancy};
use crate::cache_use::CacheUse;
use crate::error::ErrorCode;
use crate::message::{Failure, Reply};
use crate::procedure::{Answer as _, Procedure};
use crate::single_flight::Callers;
use crate::source::Source;
use crate::trace::{Stopwatch, Work};

/// Between two looks at what another worker computes: at first, and at most.
const FIRST_LOOK: Duration = Duration::from_millis(5);
const SELDOM_LOOK: Duration = Duration::from_millis(100);

/// What a flight brings home; `None` if all has to end.
pub(super) type Landed = Option<Reply>;

/// A request that was read and whose answer is not known.
pub(super) struct Wanted<P: Procedure> {
    pub(super) argument: Arc<P::Argument>,
    pub(super) key: Key,
    pub(super) cache: CacheUse,
    /// What it may still wait for Redis.
    pub(super) budget: Budget,
    pub(super) token: Token,
    pub(super) arrival: Arc<Arrival>,
    /// How often the broker has delivered it before.
    pub(super) delivered_before: u64,
    pub(super) watch: Stopwatch,
}

impl<P: Procedure> Desk<P> {
    /// The answer from whoever computes it, or computed here.
    pub(super) async fn fly(
        self: Arc<Self>,
        wanted: Arc<Wanted<P>>,
        callers: Callers<Landed>,
    ) -> Landed {
        let first = self.claim(Look::First, &wanted);
        let mut source = Source::Cache;
        let claimed = match wanted.watch.step(Work::Lookup, first).await {
            Claim::Held => {
                self.vitals.activity.lease_waits.count();
                // Who has waited for an answer shares another's flight, as it were.
                source = Source::Shared;
                let wait = self.wait_for_lease(&wanted, &callers);
                wanted.watch.step(Work::LeaseWait, wait).await
            }
            claimed => claimed,
        };
        match claimed {
            Claim::Hit(answer) => Some(self.answered(answer.to_bytes(), source, true)),
            Claim::Vacant(vacancy) => self.compute_and_fill(&wanted, vacancy, &callers).await,
            Claim::Held => Some(Reply::failure(out_of_time())),
        }
    }

    /// Looks again and again at what another worker computes; still held when the time is up.
    async fn wait_for_lease(
        &self,
        wanted: &Wanted<P>,
        callers: &Callers<Landed>,
    ) -> Claim<P::Answer> {
        let mut pause = FIRST_LOOK;
        loop {
            wanted.arrival.waits();
            let left = callers.deadline.at() - Instant::now();
            if left.is_zero() {
                return Claim::Held;
            }
            sleep(pause.mul_f32(0.75 + 0.5 * fastrand::f32()).min(left)).await;
            pause = (pause * 2).min(SELDOM_LOOK);
            match self.claim(Look::Again, wanted).await {
                Claim::Held => {}
                claimed => return claimed,
            }
        }
    }

    async fn claim(&self, look: Look, wanted: &Wanted<P>) -> Claim<P::Answer> {
        let procedure = self.computer.procedure();
        let (key, argument) = (wanted.key.clone(), &wanted.argument);
        // Each time anew: who is told that another has it waits for that one, not for Redis.
        let budget = wanted.budget.clone();
        let look = (wanted.cache == CacheUse::Normal).then_some(look);
        self.cache
            .claim(key, budget, &wanted.token, look, procedure, argument)
            .await
    }

    async fn compute_and_fill(
        self: &Arc<Self>,
        wanted: &Wanted<P>,
        mut vacancy: Vacancy,
        callers: &Callers<Landed>,
    ) -> Landed {
        // What has begun is finished for the cache's sake, whoever is still there.
        let start = || (callers.deadline.at() > Instant::now()).then(|| callers.keep_aloft());
        let computing = self.compute(wanted, &mut vacancy.budget, start);
        let lease = vacancy.lease.as_ref();
        let (computed, _kept) = Lease::kept_during(lease, computing).await;
        let answer = match computed? {
            Ok(answer) => answer,
            Err(failure) => {
                // What was tried in vain may take others as long: they need not take turns.
                if failure.code == ErrorCode::Failed {
                    self.cache.leave_empty(vacancy).await;
                } else {
                    self.cache.give_back(vacancy).await;
                }
                return Some(Reply::failure(failure));
            }
        };
        Some(self.fill_and_answer(vacancy, answer, &wanted.watch).await)
    }

    /// Computes, a suspect in its turn and each in a slot, if `start` lets it by then. Gives back
    /// what that gave. `None` if it was cancelled.
    pub(super) async fn compute<S>(
        self: &Arc<Self>,
        wanted: &Wanted<P>,
        budget: &mut Budget,
        start: impl FnOnce() -> Option<S>,
    ) -> (Option<Result<Vec<u8>, Failure>>, Option<S>) {
        let key = &wanted.key;
        let slot = async {
            wanted.arrival.turn().await;
            self.computer.slot().await
        };
        let slot = wanted.watch.step(Work::SlotWait, slot).await;
        let started = start();
        if started.is_none() {
            return (Some(Err(out_of_time())), None);
        }
        let start = match self.begin(wanted, budget).await {
            Ok(start) => start,
            Err(poison) => return (Some(Err(poison)), started),
        };
        let begun = self.vitals.activity.begins(key);
        let compute = self.computer.compute(slot, &wanted.argument);
        let computed = wanted.watch.step(Work::Compute, compute).await;
        drop(begun);
        if let (Some(start), Some(_)) = (start, &computed) {
            // We are alive: it was innocent. Its reply does not wait until that is told; the next
            // suspect's turn does.
            let (desk, arrival) = (Arc::clone(self), Arc::clone(&wanted.arrival));
            tokio::spawn(async move {
                desk.cache.forget_starts(start).await;
                drop(arrival);
            });
        }
        (
            computed.map(|computed| computed.map(|answer| answer.to_bytes())),
            started,
        )
    }

    /// Counts a suspect's start, in Redis or, where that cannot be asked, as the broker does.
    async fn begin(
        &self,
        wanted: &Wanted<P>,
        budget: &mut Budget,
    ) -> Result<Option<Start>, Failure> {
        if !wanted.arrival.is_suspect() {
            return Ok(None);
        }
        let key = &wanted.key;
        let (start, starts) = self.cache.count_start(key, budget).await;
        let is_poison = match starts {
            Some(starts) => starts >= suspects::MOST_STARTS,
            None => wanted.delivered_before >= suspects::MOST_DELIVERIES,
        };
        if !is_poison {
            return Ok(Some(start));
        }
        error!(%key, "a request has ended the workers that began it, and is not begun again");
        Err(Failure {
            code: ErrorCode::Poison,
            message: "the request has ended the workers that tried it".to_owned(),
        })
    }

    /// Computes nothing any more. What is abandoned by that has not ended this worker: so that no
    /// other takes it for poison, Redis is told, for as long as that has time for it.
    pub(super) async fn cease(&self) {
        self.computer.cancel();
        self.cache.starts_settled().await;
    }
}

/// Whether the flight's time ran out, and no more is known.
pub(super) fn is_out_of_time(landed: &Landed) -> bool {
    landed.as_ref().is_some_and(Reply::is_expired)
}

/// Its callers have given up.
fn out_of_time() -> Failure {
    Failure {
        code: ErrorCode::Expired,
        message: "the request's time ran out before its turn came".to_owned(),
    }
}
