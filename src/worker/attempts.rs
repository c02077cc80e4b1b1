//! Steps of redelivered requests only: taking over the lost lease, a lookup before the wait for a turn, and counting
//! each attempt to compute, so that a request that crashes its workers is noticed.

use std::ops::ControlFlow::{self, Break, Continue};
use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use tracing::error;

use super::Service;
use super::pipeline::Job;
use crate::cache::{Attempt, Budget, Key, Lookup, Token};
use crate::cache_use::CacheUse;
use crate::error::ErrorCode;
use crate::message::{Failure, Reply};
use crate::procedure::{Answer as _, Procedure};
use crate::source::Source;
use crate::trace::Work;

/// Attempts at a redelivered request, none of them finished. At this one it is answered `poison` instead.
const MAX_ATTEMPTS: u64 = 3;

/// Deliveries of a request, as the broker counts them, where Redis does not answer. Higher than
/// [`MAX_ATTEMPTS`], because the broker counts for everything that a crashed worker held.
const MAX_DELIVERIES: u64 = 15;

impl<P: Procedure> Service<P> {
    /// Prepares a redelivered request for its flight. `Break` ends the request: with a reply, or without if the
    /// session was lost.
    pub(super) async fn before_flight(
        &self,
        lost: &CancellationToken,
        flight: &(Key, CacheUse),
        job: &mut Job<P>,
        token: &Token,
    ) -> ControlFlow<Option<Reply>> {
        let (key, _) = flight;
        // First of all: fresh requests may be waiting for a lease whose former holder has lost this request.
        self.cache.take_over(key, token, &mut job.budget).await;
        // A flight under way is joined at once: this worker lost its session, not its life, or computes
        // the key for other requests.
        if self.flights.in_flight(flight) {
            return Continue(());
        }
        if let Some(hit) = self.look_before_turn(key, job).await {
            return Break(Some(hit));
        }
        let wait = job
            .watch
            .step(Work::SlotWait, job.delivery.wait_for_fresh());
        match lost.run_until_cancelled(wait).await {
            Some(()) => Continue(()),
            None => Break(None),
        }
    }

    /// Looks in the cache for a redelivered request: a hit needs no turn.
    async fn look_before_turn(&self, key: &Key, job: &mut Job<P>) -> Option<Reply> {
        if !job.cache_use.reads() {
            return None;
        }
        let procedure = self.computer.procedure();
        let budget = &mut job.budget;
        let lookup = self
            .cache
            .lookup(key.clone(), budget, procedure, &job.argument);
        match job.watch.step(Work::Lookup, lookup).await {
            Lookup::Hit(answer) => Some(self.reply(answer.to_bytes(), Source::Cache, true)),
            Lookup::Miss(_) => None,
        }
    }

    /// Counts an attempt at a redelivered request, in Redis or, where Redis does not answer, by the broker's own
    /// count. Fails with `poison` at the limit.
    pub(super) async fn count_attempt(
        &self,
        key: &Key,
        job: &Job<P>,
        budget: &mut Budget,
    ) -> Result<Option<Attempt>, Failure> {
        if !job.delivery.is_redelivered() {
            return Ok(None);
        }
        let (attempt, attempts) = self.cache.count_attempt(key, budget).await;
        let is_poison = match attempts {
            Some(attempts) => attempts >= MAX_ATTEMPTS,
            None => job.delivered_before >= MAX_DELIVERIES,
        };
        if !is_poison {
            return Ok(Some(attempt));
        }
        error!(%key, "poison request: crashed every worker that started it; answering `poison`");
        Err(Failure {
            code: ErrorCode::Poison,
            message: "the request crashed the workers that tried it".to_owned(),
        })
    }

    /// Forgets the attempts at a request that did not crash this worker. Its reply does not wait for that; the turn of
    /// the next redelivered request does.
    pub(super) fn forget_attempts(self: &Arc<Self>, attempt: Attempt, job: &Job<P>) {
        let (service, delivery) = (Arc::clone(self), Arc::clone(&job.delivery));
        tokio::spawn(async move {
            service.cache.forget_attempts(attempt).await;
            drop(delivery);
        });
    }
}
