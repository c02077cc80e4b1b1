//! A call as spans, one for each step, for whoever records them: who waits where, and for how long.
//!
//! They are spans of the crate `tracing` with the target `rpcache::trace` and the level TRACE, named after
//! OpenTelemetry's conventions for [messaging](https://opentelemetry.io/docs/specs/semconv/messaging/rabbitmq/)
//! and [databases](https://opentelemetry.io/docs/specs/semconv/db/redis/); what is our own starts with
//! `rpcache.`. Where nobody records them, a step costs the load of an integer, and the future of a hit is
//! larger by the arguments of a call. A worker that is asked tells how long each of its steps took ([`Stopwatch`], [`steps`]): its
//! caller then needs no collector.

pub(crate) mod context;
#[cfg(feature = "trace-context")]
mod otel;
mod spans;
pub(crate) mod steps;
mod stopwatch;

use futures_util::future::Either;
use tracing::{Instrument as _, Level, Span, enabled, span_enabled, trace};

use self::context::TraceContext;
pub(crate) use self::spans::{
    Operation, Work, call, connect_to_rabbitmq, connect_to_redis, join, lookup, process, reply,
    request, send, store,
};
use self::steps::Steps;
pub(crate) use self::stopwatch::Stopwatch;

/// Of every span.
const TARGET: &str = "rpcache::trace";

/// Of the events that repeat what a worker told.
const TOLD: &str = "rpcache::trace::told";

/// Whether anybody records spans: all that a step costs where nobody does.
#[inline]
pub(crate) fn on() -> bool {
    span_enabled!(target: TARGET, Level::TRACE)
}

/// Does `work` within a span, where one is recorded: then, and only then, in a box.
pub(crate) fn within<F: Future>(
    span: impl FnOnce() -> Span,
    work: F,
) -> impl Future<Output = F::Output> {
    if on() {
        Either::Right(Box::pin(work.instrument(span())))
    } else {
        Either::Left(work)
    }
}

/// A span of this moment, where it is recorded; its end is its drop.
pub(crate) fn begin(span: impl FnOnce() -> Span) -> Span {
    if on() { span() } else { Span::none() }
}

/// Looks into Redis for several calls at once: each has a look of its own in its trace, and one alone has
/// it from the cache.
pub(crate) async fn together<T>(
    calls: &[&Span],
    look: impl Future<Output = Vec<T>>,
    is_hit: impl Fn(&T) -> bool,
) -> Vec<T> {
    if !on() {
        return look.await;
    }
    if let &[call] = calls {
        return look.instrument(call.clone()).await;
    }
    let begin = |call: &&Span| call.in_scope(|| lookup(Operation::Mget(calls.len())));
    let spans: Vec<Span> = calls.iter().map(begin).collect();
    let found = look.await;
    for (span, found) in spans.iter().zip(&found) {
        span.record("rpcache.result", if is_hit(found) { "hit" } else { "miss" });
    }
    found
}

/// Adds to the step that is under way.
pub(crate) fn record(field: &'static str, value: &str) {
    if on() {
        Span::current().record(field, value);
    }
}

/// The look into Redis that is under way goes together with others.
pub(crate) fn operation_is(name: &'static str) {
    record("db.operation.name", name);
    record("otel.name", name);
}

/// The step that is under way has failed, with this code.
pub(crate) fn failed(code: &'static str) {
    record("error.type", code);
    record("otel.status_code", "error");
}

/// Whether a worker is asked to tell its steps: whether anybody wants to know.
pub(crate) fn asks_workers() -> bool {
    enabled!(target: TOLD, Level::TRACE)
}

/// The request that is under way has its reply. Repeats what the worker told, for whoever records that.
pub(crate) fn replied(steps: Option<&Steps>) {
    record("rpcache.replied", "true");
    let Some(steps) = steps else { return };
    for step in steps.each() {
        let (name, started_us, took_us) = (step.name.as_str(), step.started_us, step.took_us);
        trace!(target: TOLD, step = name, started_us, took_us, "a worker's step");
    }
    let total_us = steps.total_us();
    trace!(target: TOLD, total_us, "a worker's steps");
}

/// What travels with a request, so that its worker's spans belong to the same trace as `span`.
#[cfg_attr(
    not(feature = "trace-context"),
    expect(unused_variables, reason = "nothing travels")
)]
pub(crate) fn context_of(span: &Span) -> Option<TraceContext> {
    #[cfg(feature = "trace-context")]
    return otel::context_of(span);
    #[cfg(not(feature = "trace-context"))]
    None
}

/// Makes what came with a request the parent of its worker's span.
#[cfg_attr(
    not(feature = "trace-context"),
    expect(unused_variables, reason = "nothing has travelled")
)]
fn set_parent(span: &Span, parent: &TraceContext) {
    #[cfg(feature = "trace-context")]
    otel::set_parent(span, parent);
}
