//! Spans of the steps of a call, which show where it waits and for how long.
//!
//! They are spans of the crate `tracing` with the target `rpcache::trace` and the level TRACE, named after
//! OpenTelemetry's conventions for [messaging](https://opentelemetry.io/docs/specs/semconv/messaging/rabbitmq/)
//! and [databases](https://opentelemetry.io/docs/specs/semconv/db/redis/); our own attributes start with
//! `rpcache.`. While no subscriber records them, a step costs the load of an integer, and the future of a hit is
//! larger by the arguments of a call.
//!
//! On request, a worker reports in its reply how long each of its steps took ([`Stopwatch`], [`steps`]): the
//! caller sees them without a collector.

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

/// The target of every span.
const TARGET: &str = "rpcache::trace";

/// The target of events that repeat the steps in a worker's reply.
const REPORTED: &str = "rpcache::trace::told";

/// Whether a subscriber records spans. The only cost of a step if none does.
#[inline]
pub(crate) fn on() -> bool {
    span_enabled!(target: TARGET, Level::TRACE)
}

/// Runs `work` within a span, if spans are recorded. Only then is it boxed.
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

/// Starts a span, if spans are recorded. Dropping it ends it.
pub(crate) fn begin(span: impl FnOnce() -> Span) -> Span {
    if on() { span() } else { Span::none() }
}

/// Runs a batched lookup for several calls: each trace gets a lookup span of its own. A batch of one has the span
/// of the cache.
pub(crate) async fn batched<T>(
    calls: &[&Span],
    lookup_all: impl Future<Output = Vec<T>>,
    is_hit: impl Fn(&T) -> bool,
) -> Vec<T> {
    if !on() {
        return lookup_all.await;
    }
    if let &[call] = calls {
        return lookup_all.instrument(call.clone()).await;
    }
    let begin = |call: &&Span| call.in_scope(|| lookup(Operation::Mget(calls.len())));
    let spans: Vec<Span> = calls.iter().map(begin).collect();
    let found = lookup_all.await;
    for (span, found) in spans.iter().zip(&found) {
        span.record("rpcache.result", if is_hit(found) { "hit" } else { "miss" });
    }
    found
}

/// Records an attribute of the current span.
pub(crate) fn record(field: &'static str, value: &str) {
    if on() {
        Span::current().record(field, value);
    }
}

/// Renames the current lookup span: its operation is part of a batch.
pub(crate) fn operation_is(name: &'static str) {
    record("db.operation.name", name);
    record("otel.name", name);
}

/// Marks the current span as failed with this error code.
pub(crate) fn failed(code: &'static str) {
    record("error.type", code);
    record("otel.status_code", "error");
}

/// Whether requests ask workers to report their steps: whether a subscriber records the reports.
pub(crate) fn asks_workers() -> bool {
    enabled!(target: REPORTED, Level::TRACE)
}

/// Marks the current request span as replied, and emits the worker's reported steps as events.
pub(crate) fn replied(steps: Option<&Steps>) {
    record("rpcache.replied", "true");
    let Some(steps) = steps else { return };
    for step in steps.each() {
        let (name, started_us, took_us) = (step.name.as_str(), step.started_us, step.took_us);
        trace!(target: REPORTED, step = name, started_us, took_us, "a worker's step");
    }
    let total_us = steps.total_us();
    trace!(target: REPORTED, total_us, "a worker's steps");
}

/// The trace context to send with a request: the worker's spans then belong to the same trace as `span`.
#[cfg_attr(
    not(feature = "trace-context"),
    expect(unused_variables, reason = "without the feature, no context is sent")
)]
pub(crate) fn context_of(span: &Span) -> Option<TraceContext> {
    #[cfg(feature = "trace-context")]
    return otel::context_of(span);
    #[cfg(not(feature = "trace-context"))]
    None
}

/// Makes a received trace context the parent of a worker's span.
#[cfg_attr(
    not(feature = "trace-context"),
    expect(unused_variables, reason = "without the feature, no context is used")
)]
fn set_parent(span: &Span, parent: &TraceContext) {
    #[cfg(feature = "trace-context")]
    otel::set_parent(span, parent);
}
