//! Serves one delivery: reads the request, answers it, replies, settles.
//!
//! [`Service::serve`] is the whole path, in a task of its own. How the answer is found is decided once, before any work
//! starts: see [`Path`]. [`super::pipeline`] takes that path, and [`super::replier`] publishes the reply.

use std::ops::ControlFlow::Break;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_util::FutureExt as _;
use lapin::message::Delivery;
use lapin::types::ShortString;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, warn};

use super::Service;
use super::pipeline::{Job, Run};
use super::redelivered::DeliveryState;
use super::replier::{Replier, Unsettled};
use crate::FOR_EVER;
use crate::cache::{Key, Token};
use crate::cache_use::CacheUse;
use crate::error::quote;
use crate::message::{CorrelationId, Reply, Request};
use crate::procedure::Procedure;
use crate::single_flight::Outcome;
use crate::source::Source;
use crate::trace::{self, Stopwatch, Work};

/// Where the answer is computed if the cache does not have it, and who else computes the same key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Path {
    /// On the async thread, without lease, slot or flight: computing takes less time than coordinating.
    Inline,
    /// In a slot, once per key: requests in this worker share a flight, workers compete for a lease.
    Leased,
    /// In a slot, for this request alone.
    Uncached,
}

impl Path {
    /// `is_cheap` is the procedure's verdict on the argument. It is not asked about a redelivered request:
    /// that may have crashed a worker, so none of it runs before the attempt is counted.
    fn of(cache: CacheUse, redelivered: bool, is_cheap: impl FnOnce() -> bool) -> Self {
        if !redelivered && is_cheap() {
            Self::Inline
        } else if cache.shares() {
            Self::Leased
        } else {
            Self::Uncached
        }
    }
}

impl<P: Procedure> Service<P> {
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
        let is_cheap = || self.computer.is_cheap(&argument);
        let path = Path::of(request.cache, delivery.is_redelivered(), is_cheap);
        let job = Job {
            argument,
            cache_use: request.cache,
            budget: self.cache.budget(),
            delivery: Arc::clone(delivery),
            delivered_before: request.delivered_before,
            watch: watch.clone(),
        };
        let expires = watch.taken + request.expiration.unwrap_or(FOR_EVER).min(FOR_EVER);
        // Boxed: the tasks of inline requests, which come by the thousand, stay small.
        match path {
            Path::Inline => self.run(key, &job, Run::Inline).await,
            Path::Leased => {
                let id = request.correlation_id.as_ref().map(CorrelationId::as_bytes);
                let token = Token::new(id, &self.id);
                Box::pin(self.answer_leased(lost, key, job, token, expires)).await
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
    async fn answer_leased(
        self: &Arc<Self>,
        lost: &CancellationToken,
        key: Key,
        mut job: Job<P>,
        token: Token,
        expires: Instant,
    ) -> Option<Reply> {
        let flight = (key.clone(), job.cache_use);
        if job.delivery.is_redelivered()
            && let Break(reply) = self.before_flight(lost, &flight, &mut job, &token).await
        {
            return reply;
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

    /// Whether this queue may be replied to: only callback queues, known by their name (see [`ReplyPattern`](super::ReplyPattern)) or
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
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn path_depends_on_cache_use_cost_and_redelivery() {
        let (fresh, redelivered, cheap, costly) = (false, true, true, false);
        let expected = [
            (CacheUse::Normal, fresh, cheap, Path::Inline),
            (CacheUse::Refresh, fresh, cheap, Path::Inline),
            (CacheUse::Bypass, fresh, cheap, Path::Inline),
            (CacheUse::Normal, fresh, costly, Path::Leased),
            (CacheUse::Refresh, fresh, costly, Path::Leased),
            (CacheUse::Bypass, fresh, costly, Path::Uncached),
            (CacheUse::Normal, redelivered, costly, Path::Leased),
            (CacheUse::Bypass, redelivered, costly, Path::Uncached),
        ];
        for (cache, redelivered, is_cheap, path) in expected {
            let decided = Path::of(cache, redelivered, || is_cheap);
            assert_eq!(decided, path, "{cache:?}, {redelivered}, {is_cheap}");
        }
    }

    #[test]
    fn redelivered_request_is_never_inline_and_runs_no_code_of_the_procedure() {
        for cache in [CacheUse::Normal, CacheUse::Refresh, CacheUse::Bypass] {
            let path = Path::of(cache, true, || panic!("asked whether it is cheap"));
            assert_ne!(path, Path::Inline);
        }
    }
}
