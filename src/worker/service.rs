//! One delivery's way through the worker: read, plan, answer, reply, settle.
//!
//! [`Service::serve`] is the whole path. Its middle, the pipeline that finds or computes an answer, is
//! [`super::pipeline`].

use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_util::FutureExt as _;
use lapin::message::Delivery;
use lapin::types::ShortString;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, error, warn};

use super::computer::Computer;
use super::counters::Counters;
use super::pipeline::{Job, Run};
use super::plan::{CachePolicy, Path, Plan};
use super::redelivered::{DeliveryState, Redelivered};
use super::replier::{Replier, Unsettled};
use super::{ReplyPattern, WorkerOptions};
use crate::FOR_EVER;
use crate::cache::{Cache, Key, Lookup, Token};
use crate::error::quote;
use crate::log_throttle::LogThrottle;
use crate::message::{CorrelationId, Failure, Reply, Request};
use crate::procedure::{Answer as _, Procedure};
use crate::procedure_name::ProcedureName;
use crate::queue::QueueName;
use crate::single_flight::{Outcome, SingleFlight};
use crate::source::Source;
use crate::trace::{self, Stopwatch, Work};

/// Serves requests: everything that all requests of a worker share.
#[derive(Debug)]
pub(super) struct Service<P: Procedure> {
    /// Identifies this worker in leases and announcements.
    pub(super) id: String,
    pub(super) computer: Computer<P>,
    /// One for each computation at once.
    pub(super) slots: Arc<Semaphore>,
    pub(super) cache: Cache,
    /// Leased jobs under way. Jobs that must not read the cache do not share with those that may.
    pub(super) flights: SingleFlight<(Key, CachePolicy), Option<Reply>>,
    pub(super) counters: Counters,
    pub(super) queue: QueueName,
    reply_to: Vec<ReplyPattern>,
    pub(super) max_reply_size: usize,
    refused_reply_to: LogThrottle,
    /// Throttles the log of poison requests that the broker gave up.
    pub(super) poison: LogThrottle,
    pub(super) redelivered: Redelivered,
}

impl<P: Procedure> Service<P> {
    pub(super) fn new(
        procedure: P,
        cache: Cache,
        queue: QueueName,
        counters: Counters,
        options: &WorkerOptions,
    ) -> Self {
        Self {
            id: format!("{:08x}", fastrand::u32(..)),
            computer: Computer::new(procedure),
            slots: Arc::new(Semaphore::new(options.concurrency.max(1).into())),
            cache,
            flights: SingleFlight::new(|reply| reply.as_ref().is_some_and(Reply::is_expired)),
            counters,
            queue,
            reply_to: options.reply_to.clone(),
            max_reply_size: options.max_reply_size,
            refused_reply_to: LogThrottle::default(),
            poison: LogThrottle::default(),
            redelivered: Redelivered::new(),
        }
    }

    /// Serves one delivery: check, find or compute and fill, reply, wait for the confirm, ack.
    ///
    /// In this order: a caller that has seen an answer finds it in the cache, a lost reply is still cached, and
    /// a killed worker's delivery goes to the next one. Returns early, without settling, when the session is
    /// lost: the broker redelivers.
    pub(super) async fn serve(
        self: Arc<Self>,
        replier: Arc<Replier>,
        delivery: DeliveryState,
        message: Delivery,
    ) {
        let taken = Instant::now();
        let activity = &self.counters.activity;
        activity.taken.count();
        let _held = activity.held.enter();
        let (unsettled, request) = Unsettled::take(message, Request::read);
        let delivery = Arc::new(delivery);
        let watch = Stopwatch::start(taken, request.asks_steps);
        let span = || {
            let id = request.correlation_id.as_ref().map(CorrelationId::as_bytes);
            let (size, redelivered) = (request.body.len(), delivery.is_redelivered());
            trace::process(&self.queue, id, size, redelivered, request.trace.as_ref())
        };
        let respond = self.respond(&replier, &delivery, unsettled, &request, &watch);
        trace::within(span, respond).await;
    }

    /// The path of [`serve`](Self::serve) within the request's span.
    async fn respond(
        self: &Arc<Self>,
        replier: &Replier,
        delivery: &Arc<DeliveryState>,
        unsettled: Unsettled,
        request: &Request,
        watch: &Stopwatch,
    ) {
        if let Some(name) = &request.reply_to
            && !self
                .may_reply_to(replier, name, || delivery.mark_waiting())
                .await
        {
            return replier.ack(unsettled).await;
        }
        let answer = async {
            let reply = self.answer(&replier.lost, delivery, request, watch).await?;
            self.observe(request, &reply, watch.taken);
            Some(reply)
        };
        // The user's code may panic while it reads or writes text; a computation's panic is a failure already.
        let reply = AssertUnwindSafe(answer).catch_unwind().await;
        let Some(mut reply) = reply.unwrap_or_else(|_| Some(self.panicked())) else {
            return;
        };
        self.counters
            .activity
            .answered(&reply, watch.taken.elapsed());
        reply.steps = watch.report();
        let Some(reply_to) = &request.reply_to else {
            return replier.ack(unsettled).await;
        };
        let (body, properties) = reply.write(request.correlation_id.as_ref());
        let replying = replier.reply(unsettled, reply_to, &body, properties, || {
            delivery.mark_waiting();
        });
        trace::within(trace::reply, replying).await;
    }

    /// Answers one request. `None` when the session was lost before there was a reply, or the worker stops.
    pub(super) async fn answer(
        self: &Arc<Self>,
        lost: &CancellationToken,
        delivery: &Arc<DeliveryState>,
        request: &Request,
        watch: &Stopwatch,
    ) -> Option<Reply> {
        let argument = match request.argument(&**self.computer.procedure()) {
            Ok(argument) => Arc::new(argument),
            Err(failure) => return Some(Reply::failure(failure)),
        };
        let key = self.cache.key(self.name(), &*argument);
        self.counters.activity.recent.requested(key.as_str());
        let is_cheap = || self.computer.procedure().is_cheap(&argument);
        let plan = Plan::new(request.cache, delivery.is_redelivered(), is_cheap);
        let job = Job {
            argument,
            policy: plan.policy,
            budget: self.cache.budget(),
            delivery: Arc::clone(delivery),
            delivered_before: request.delivered_before,
            watch: watch.clone(),
        };
        let expires = watch.taken + request.expiration.unwrap_or(FOR_EVER).min(FOR_EVER);
        // Boxed: the tasks of inline requests, which come by the thousand, stay small.
        match plan.path {
            Path::Inline => self.run(key, &job, Run::Inline).await,
            Path::Leased => {
                let id = request.correlation_id.as_ref().map(CorrelationId::as_bytes);
                let token = Token::new(id, &self.id);
                Box::pin(self.run_leased(lost, key, job, token, expires)).await
            }
            Path::Uncached => {
                let run = async {
                    job.delivery.wait_for_fresh().await;
                    self.run(key, &job, Run::Uncached { expires }).await
                };
                Box::pin(lost.run_until_cancelled(run)).await?
            }
        }
    }

    /// Joins the flight of the job's key, or runs the job in a new one.
    async fn run_leased(
        self: &Arc<Self>,
        lost: &CancellationToken,
        key: Key,
        mut job: Job<P>,
        token: Token,
        expires: Instant,
    ) -> Option<Reply> {
        let flight = (key.clone(), job.policy);
        if job.delivery.is_redelivered() {
            // First of all: fresh requests may be waiting for a lease whose former holder has lost this request.
            let budget = &mut job.budget;
            self.cache.take_over(&key, &token, budget).await;
            // A flight under way is joined at once: this worker lost its session, not its life, or computes
            // the key for other requests.
            if !self.flights.in_flight(&flight) {
                if let Some(hit) = self.look_before_turn(&key, &mut job).await {
                    return Some(hit);
                }
                let wait = job
                    .watch
                    .step(Work::SlotWait, job.delivery.wait_for_fresh());
                lost.run_until_cancelled(wait).await?;
            }
        }
        let joins = self.flights.in_flight(&flight);
        if joins {
            job.delivery.mark_waiting();
        }
        let _span = joins.then(|| trace::begin(trace::join));
        let (watch, joined_at) = (job.watch.clone(), Instant::now());
        let service = Arc::clone(self);
        let run = |callers| {
            let run = async move {
                let (token, callers) = (&token, &callers);
                service.run(key, &job, Run::Leased { token, callers }).await
            };
            run.in_current_span()
        };
        let joined = self.flights.join(flight, expires, run);
        match lost.run_until_cancelled(joined).await? {
            Outcome::Own(reply) => reply,
            Outcome::Shared(reply) => {
                self.counters.activity.shared_flights.count();
                watch.record(Work::FlightWait, joined_at);
                reply.map(|reply| Reply {
                    source: reply.source.map(|_| Source::Shared),
                    ..reply
                })
            }
            Outcome::Lost => Some(self.panicked()),
        }
    }

    /// Looks in the cache for a redelivered request: a hit needs no turn.
    async fn look_before_turn(&self, key: &Key, job: &mut Job<P>) -> Option<Reply> {
        if !job.policy.read {
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

    /// Whether this queue may be replied to: only callback queues, known by their name (see [`ReplyPattern`]) or
    /// by being exclusive to another connection; never the queues that requests come from. `on_wait` is
    /// called before the broker is asked.
    pub(super) async fn may_reply_to(
        &self,
        replier: &Replier,
        name: &ShortString,
        on_wait: impl Fn(),
    ) -> bool {
        let text = name.as_str();
        let known = self.reply_to.iter().any(|pattern| pattern.matches(text));
        // Boxed: asking the broker is rare, and each delivery's task would be larger.
        let asked = || Box::pin(replier.replies().is_callback_queue(name, on_wait));
        let allowed = !self.queue.covers(text) && (known || asked().await);
        if allowed {
            return true;
        }
        self.counters.activity.refused_reply_to.count();
        if let Some(left_out) = self.refused_reply_to.happened() {
            warn!(
                reply_to = quote(text.as_bytes()),
                left_out,
                "refused a request: its reply_to is no callback queue; --reply-to PATTERN allows it",
            );
        }
        false
    }

    /// Cancels all computations, for good. Then waits, for a bounded time, until Redis has forgotten the attempts
    /// of this worker that end here: it did not crash, and no other worker must take them for poison.
    pub(super) async fn cease(&self) {
        self.computer.cancel();
        self.cache.attempts_settled().await;
    }

    /// Logs a warning if the cache can grow without bound. Never returns.
    pub(super) async fn warn_if_unbounded(&self) -> Infallible {
        self.cache.warn_if_unbounded().await;
        std::future::pending().await
    }

    pub(super) fn name(&self) -> &ProcedureName {
        self.computer.procedure().name()
    }

    /// The reply after a panic of the procedure while it read or wrote text; a panic while it computes is caught
    /// there.
    fn panicked(&self) -> Reply {
        let name = self.name();
        error!("{name} panicked: answering `failed`");
        Reply::failure(Failure::panicked(name))
    }
}
