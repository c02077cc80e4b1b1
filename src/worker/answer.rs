//! From a request to its reply: by whom and when its answer is computed, if it has to be.

use std::sync::Arc;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use super::Desk;
use super::flight::Wanted;
use super::suspects::Arrival;
use crate::FOR_EVER;
use crate::cache::{Key, Lookup, Token, Vacancy};
use crate::cache_use::CacheUse;
use crate::error::ErrorCode;
use crate::message::{CorrelationId, Failure, Reply, Request};
use crate::procedure::{Answer as _, Procedure};
use crate::single_flight::Landed;
use crate::source::Source;
use crate::trace::{self, Operation, Stopwatch, Work};

impl<P: Procedure> Desk<P> {
    /// The reply; `None` when the session was lost before there was one, or all has to end.
    pub(super) async fn answer(
        self: &Arc<Self>,
        lost: &CancellationToken,
        arrival: &Arc<Arrival>,
        request: &Request,
        watch: &Stopwatch,
    ) -> Option<Reply> {
        let argument = match request.argument(&**self.computer.procedure()) {
            Ok(argument) => Arc::new(argument),
            Err(failure) => return Some(Reply::failure(failure)),
        };
        let key = self.cache.key(self.name(), &*argument);
        self.vitals.activity.lately.asked(key.as_str());
        if !arrival.is_suspect() && self.computer.procedure().is_cheap(&argument) {
            return self
                .answer_cheap(key, &argument, request.cache, watch)
                .await;
        }
        let correlation_id = request.correlation_id.as_ref().map(CorrelationId::as_bytes);
        let wanted = Wanted {
            argument,
            key,
            cache: request.cache,
            budget: self.cache.budget(),
            token: Token::new(correlation_id, &self.id),
            arrival: Arc::clone(arrival),
            delivered_before: request.delivered_before,
            watch: watch.clone(),
        };
        let expires = watch.taken + request.expiration.unwrap_or(FOR_EVER).min(FOR_EVER);
        // In a box: the tasks of cheap requests, which come by the thousand, stay small.
        Box::pin(self.answer_dear(lost, wanted, expires)).await
    }

    /// For an argument that takes its time: the answer is looked for, waited for or computed.
    async fn answer_dear(
        self: &Arc<Self>,
        lost: &CancellationToken,
        mut wanted: Wanted<P>,
        expires: Instant,
    ) -> Option<Reply> {
        if wanted.cache == CacheUse::Bypass {
            return self.compute_aside(lost, &wanted, expires).await;
        }
        if wanted.arrival.is_suspect()
            && let Some(reply) = self.look_before_turn(lost, &mut wanted).await?
        {
            return Some(reply);
        }
        let flight = (wanted.key.clone(), wanted.cache);
        let (watch, joined_at) = (wanted.watch.clone(), Instant::now());
        let joins = self.flights.is_aloft(&flight);
        if joins {
            wanted.arrival.waits();
        }
        let _span = joins.then(|| trace::begin(trace::join));
        let wanted = Arc::new(wanted);
        let fly = |callers| {
            let flight = Arc::clone(self).fly(Arc::clone(&wanted), callers);
            flight.in_current_span()
        };
        let joined = self.flights.join(flight, expires, fly);
        match lost.run_until_cancelled(joined).await? {
            Landed::Own(reply) => reply,
            Landed::Shared(reply) => {
                self.vitals.activity.shared_flights.count();
                watch.note(Work::FlightWait, joined_at);
                reply.map(|reply| Reply {
                    source: reply.source.map(|_| Source::Shared),
                    ..reply
                })
            }
            Landed::Lost => Some(self.panicked()),
        }
    }

    /// For a request that the cache has nothing to do with.
    async fn compute_aside(
        self: &Arc<Self>,
        lost: &CancellationToken,
        wanted: &Wanted<P>,
        expires: Instant,
    ) -> Option<Reply> {
        let mut budget = wanted.budget.clone();
        let start = || (expires > Instant::now()).then_some(());
        let compute = async {
            wanted.arrival.after_fresh().await;
            self.compute(wanted, &mut budget, start).await
        };
        let (computed, _) = lost.run_until_cancelled(compute).await?;
        Some(match computed? {
            Ok(answer) => self.answered(answer, Source::Computed, false),
            Err(failure) => Reply::failure(failure),
        })
    }

    /// For a suspect: the answer if it is in the cache already; else waits until others, which it
    /// might take along, are settled.
    async fn look_before_turn(
        &self,
        lost: &CancellationToken,
        wanted: &mut Wanted<P>,
    ) -> Option<Option<Reply>> {
        let (key, argument, budget) = (&wanted.key, &wanted.argument, &mut wanted.budget);
        // First of all: fresh ones may wait for what the former holder does not compute any more.
        self.cache.take_over(key, &wanted.token, budget).await;
        // This worker is at it: it has lost its session, not its life, or others want the same.
        if self.flights.is_aloft(&(key.clone(), wanted.cache)) {
            return Some(None);
        }
        if wanted.cache == CacheUse::Normal {
            let procedure = self.computer.procedure();
            let lookup = self
                .cache
                .lookup_within(budget, key.clone(), procedure, argument);
            let lookup = trace::within(|| trace::lookup(Operation::Get), lookup);
            if let Lookup::Hit(answer) = wanted.watch.step(Work::Lookup, lookup).await {
                return Some(Some(self.answered(answer.to_bytes(), Source::Cache, true)));
            }
        }
        let wait = wanted
            .watch
            .step(Work::SlotWait, wanted.arrival.after_fresh());
        lost.run_until_cancelled(wait).await?;
        Some(None)
    }

    /// For an argument that is computed faster than anybody could be asked for it: here and now,
    /// without a lease.
    async fn answer_cheap(
        &self,
        key: Key,
        argument: &Arc<P::Argument>,
        cache: CacheUse,
        watch: &Stopwatch,
    ) -> Option<Reply> {
        let procedure = self.computer.procedure();
        let vacancy = match cache {
            CacheUse::Normal => {
                let never = Instant::now() + FOR_EVER;
                let lookup = self.cache.lookup(key, procedure, argument, never);
                match watch.step(Work::Lookup, lookup).await {
                    Lookup::Hit(answer) => {
                        return Some(self.answered(answer.to_bytes(), Source::Cache, true));
                    }
                    Lookup::Miss(vacancy) => Some(vacancy),
                }
            }
            CacheUse::Refresh => Some(self.cache.vacancy(key)),
            CacheUse::Bypass => None,
        };
        let begun = std::time::Instant::now();
        let compute = || self.computer.compute_cheap(argument);
        let computed = watch.step_now(Work::Compute, compute);
        let took = begun.elapsed();
        self.vitals.activity.computed.observe(took);
        if let Some(vacancy) = &vacancy {
            let key = vacancy.key().as_str();
            self.vitals.activity.lately.computed(key, took);
        }
        let answer = match computed? {
            Ok(answer) => answer.to_bytes(),
            Err(failure) => return Some(Reply::failure(failure)),
        };
        Some(match vacancy {
            Some(vacancy) => self.fill_and_answer(vacancy, answer, watch).await,
            None => self.answered(answer, Source::Computed, false),
        })
    }

    pub(super) async fn fill_and_answer(
        &self,
        vacancy: Vacancy,
        answer: Vec<u8>,
        watch: &Stopwatch,
    ) -> Reply {
        let filled = if answer.len() <= self.max_reply_size {
            let fill = self.cache.fill(vacancy, &answer);
            watch.step(Work::Fill, fill).await
        } else {
            self.cache.leave_empty(vacancy).await;
            false
        };
        self.answered(answer, Source::Computed, filled)
    }

    pub(super) fn answered(&self, answer: Vec<u8>, source: Source, filled: bool) -> Reply {
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
