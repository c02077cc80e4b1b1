//! The pipeline of one job: find, wait, compute, fill.
//!
//! A leased job runs in a flight that requests for its key share in this worker. Across workers the cache's
//! lease does the same: its holder computes; the others poll for the answer, in no slot.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::Service;
use super::redelivered::DeliveryState;
use crate::FOR_EVER;
use crate::cache::{Budget, Claim, Key, Lease, Look, Lookup, Token, Vacancy};
use crate::cache_use::CacheUse;
use crate::error::ErrorCode;
use crate::message::{Failure, Reply};
use crate::procedure::{Answer as _, Procedure};
use crate::single_flight::{Callers, Deadline};
use crate::source::Source;
use crate::trace::{Stopwatch, Work};

/// The first and the longest pause between two polls for another worker's answer.
const POLL_PAUSES: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(100));

/// One request to be answered. Its key is passed beside it: the vacancy takes it, without a copy.
pub(super) struct Job<P: Procedure> {
    pub(super) argument: Arc<P::Argument>,
    pub(super) cache_use: CacheUse,
    /// The time that it may still wait for the cache.
    pub(super) budget: Budget,
    pub(super) delivery: Arc<DeliveryState>,
    /// How often the broker has delivered it before.
    pub(super) delivered_before: u64,
    pub(super) watch: Stopwatch,
}

/// How a job runs: its [`Path`](super::serve::Path), with the values that this path takes.
pub(super) enum Run<'a> {
    Inline,
    Leased {
        /// The name under which this worker claims the key.
        token: &'a Token,
        /// The requests that share this flight.
        callers: &'a Callers<Option<Reply>>,
    },
    Uncached {
        /// When the request's time runs out.
        expires: Instant,
    },
}

impl Run<'_> {
    /// When the time of the request runs out, or of the last one that shares its flight.
    fn deadline(&self) -> Deadline {
        match self {
            Self::Inline => Deadline::new(Instant::now() + FOR_EVER),
            Self::Leased { callers, .. } => callers.deadline.clone(),
            Self::Uncached { expires } => Deadline::new(*expires),
        }
    }

    /// Starts computing if there is time left. A flight that has started is finished for the cache's sake, even
    /// without callers.
    fn try_start(&self) -> bool {
        let now = Instant::now();
        match self {
            Self::Inline => true,
            Self::Leased { callers, .. } => {
                let in_time = callers.deadline.at() > now;
                if in_time {
                    callers.keep_alive();
                }
                in_time
            }
            Self::Uncached { expires } => *expires > now,
        }
    }
}

/// The result of [`Service::find`].
enum Found<A> {
    /// The cached answer; its source is `shared` if another worker computed it while this one waited.
    Hit(A, Source),
    /// No answer: this worker computes it.
    Missing(Vacancy),
    /// Another worker was still computing the answer when the time ran out.
    Expired,
}

impl<P: Procedure> Service<P> {
    /// The pipeline: finds the answer, or computes and fills it. `None` when the worker stops.
    pub(super) async fn run(
        self: &Arc<Self>,
        key: Key,
        job: &Job<P>,
        run: Run<'_>,
    ) -> Option<Reply> {
        let mut vacancy = match self.find(key, job, &run).await {
            Found::Hit(answer, source) => {
                return Some(self.reply(answer.to_bytes(), source, true));
            }
            Found::Missing(vacancy) => vacancy,
            Found::Expired => return Some(Reply::failure(expired())),
        };
        let computed = match &run {
            Run::Inline => self.compute_inline(job, vacancy.key()),
            Run::Leased { .. } | Run::Uncached { .. } => {
                let Vacancy { key, budget, lease } = &mut vacancy;
                let computing = Box::pin(self.compute(key, job, budget, &run));
                Lease::kept_during(lease.as_ref(), computing).await
            }
        };
        match computed? {
            Ok(answer) => Some(self.fill(vacancy, answer, job).await),
            Err(failure) => {
                // Workers that wait for this lease may fail as slowly: they need not do so one after another.
                if failure.code == ErrorCode::Failed {
                    self.cache.leave_empty(vacancy).await;
                } else {
                    self.cache.give_back(vacancy).await;
                }
                Some(Reply::failure(failure))
            }
        }
    }

    /// Looks in the cache, if the request permits it. A leased job also claims its key, in the same round trip,
    /// or waits for the worker that has claimed it.
    async fn find(&self, key: Key, job: &Job<P>, run: &Run<'_>) -> Found<P::Answer> {
        match run {
            // Boxed, as computing in a slot is: the tasks of inline requests, which come by the thousand, stay small.
            Run::Leased { token, callers } => {
                Box::pin(self.claim_or_wait(key, job, token, callers)).await
            }
            Run::Inline if job.cache_use.reads() => {
                let (procedure, argument) = (self.computer.procedure(), &job.argument);
                let mut budget = job.budget.clone();
                let lookup = self.cache.lookup(key, &mut budget, procedure, argument);
                match job.watch.step(Work::Lookup, lookup).await {
                    Lookup::Hit(answer) => Found::Hit(answer, Source::Cache),
                    Lookup::Miss(vacancy) => Found::Missing(vacancy),
                }
            }
            Run::Inline | Run::Uncached { .. } => Found::Missing(self.cache.vacancy(key)),
        }
    }

    async fn claim_or_wait(
        &self,
        key: Key,
        job: &Job<P>,
        token: &Token,
        callers: &Callers<Option<Reply>>,
    ) -> Found<P::Answer> {
        let first = self.claim(&key, job, token, Look::First);
        let (claim, source) = match job.watch.step(Work::Lookup, first).await {
            Claim::Held => {
                self.counters.activity.lease_waits.count();
                let wait = self.wait_for_lease(&key, job, token, callers);
                let claim = job.watch.step(Work::LeaseWait, wait).await;
                (claim, Source::Shared)
            }
            claim => (claim, Source::Cache),
        };
        match claim {
            Claim::Hit(answer) => Found::Hit(answer, source),
            Claim::Vacant(vacancy) => Found::Missing(vacancy),
            Claim::Held => Found::Expired,
        }
    }

    /// Polls until the lease's holder has filled its answer or the lease is free. Still `Held` when the time runs out.
    async fn wait_for_lease(
        &self,
        key: &Key,
        job: &Job<P>,
        token: &Token,
        callers: &Callers<Option<Reply>>,
    ) -> Claim<P::Answer> {
        let (mut pause, longest) = POLL_PAUSES;
        loop {
            job.delivery.mark_waiting();
            let left = callers.deadline.at() - Instant::now();
            if left.is_zero() {
                return Claim::Held;
            }
            sleep(pause.mul_f32(0.75 + 0.5 * fastrand::f32()).min(left)).await;
            pause = (pause * 2).min(longest);
            match self.claim(key, job, token, Look::Again).await {
                Claim::Held => {}
                claim => return claim,
            }
        }
    }

    async fn claim(&self, key: &Key, job: &Job<P>, token: &Token, look: Look) -> Claim<P::Answer> {
        let (procedure, argument) = (self.computer.procedure(), &job.argument);
        // A fresh budget per poll: waiting for the lease's holder is not Redis latency.
        let budget = job.budget.clone();
        let look = job.cache_use.reads().then_some(look);
        self.cache
            .claim(key.clone(), budget, token, look, procedure, argument)
            .await
    }

    fn compute_inline(&self, job: &Job<P>, key: &Key) -> Option<Result<Vec<u8>, Failure>> {
        let started = std::time::Instant::now();
        let compute = || self.computer.compute_inline(&job.argument);
        let computed = job.watch.step_now(Work::Compute, compute);
        self.counters.activity.computed(key, started.elapsed());
        computed
    }

    /// Computes in a slot, if there is time left once the job has one. A redelivered request waits for its turn before,
    /// and its attempt is counted.
    async fn compute(
        self: &Arc<Self>,
        key: &Key,
        job: &Job<P>,
        budget: &mut Budget,
        run: &Run<'_>,
    ) -> Option<Result<Vec<u8>, Failure>> {
        let slot = async {
            job.delivery.wait_for_turn().await;
            // Never closed.
            Arc::clone(&self.slots).acquire_owned().await.ok()
        };
        let slot = job.watch.step(Work::SlotWait, slot).await;
        if !run.try_start() {
            return Some(Err(expired()));
        }
        let attempt = match self.count_attempt(key, job, budget).await {
            Ok(attempt) => attempt,
            Err(poison) => return Some(Err(poison)),
        };
        let computing = self.counters.activity.start_computation(key);
        let (max_size, deadline) = (self.max_reply_size, run.deadline());
        let compute = self
            .computer
            .compute(slot, &job.argument, max_size, deadline);
        let computed = job.watch.step(Work::Compute, compute).await;
        drop(computing);
        if let (Some(attempt), Some(_)) = (attempt, &computed) {
            self.forget_attempts(attempt, job);
        }
        computed
    }

    /// Stores the answer, if the request permits it and it is not too large to be sent, and makes a reply of it.
    async fn fill(&self, vacancy: Vacancy, answer: Vec<u8>, job: &Job<P>) -> Reply {
        let filled = if !job.cache_use.writes() {
            false
        } else if answer.len() > self.max_reply_size {
            self.cache.leave_empty(vacancy).await;
            false
        } else {
            let fill = self.cache.fill(vacancy, &answer);
            job.watch.step(Work::Fill, fill).await
        };
        self.reply(answer, Source::Computed, filled)
    }

    /// Makes a reply of an answer; `too-large` if it may not be sent.
    pub(super) fn reply(&self, answer: Vec<u8>, source: Source, filled: bool) -> Reply {
        if answer.len() > self.max_reply_size {
            return Reply::failure(Failure {
                code: ErrorCode::TooLarge,
                message: format!(
                    "the answer has {} bytes, this worker sends {} at most",
                    answer.len(),
                    self.max_reply_size
                ),
            });
        }
        Reply {
            outcome: Ok(Arc::new(answer)),
            source: Some(source),
            filled: Some(filled),
            steps: None,
        }
    }
}

fn expired() -> Failure {
    Failure {
        code: ErrorCode::Expired,
        message: "the request's time ran out before its turn came".to_owned(),
    }
}
