//! Converts between spans and trace contexts, by `tracing-opentelemetry`'s layer, if it is installed.

use std::str::FromStr as _;

use opentelemetry::Context;
use opentelemetry::trace::{
    SpanContext, SpanId, TraceContextExt as _, TraceFlags, TraceId, TraceState,
};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

use super::context::TraceContext;

/// The trace context of a span; `None` if the trace is not recorded, so that the worker does not record it either.
pub(super) fn context_of(span: &Span) -> Option<TraceContext> {
    let context = span.context();
    let span = context.span();
    let context = span.span_context();
    (context.is_valid() && context.is_sampled()).then(|| TraceContext {
        trace_id: u128::from_be_bytes(context.trace_id().to_bytes()),
        parent_id: u64::from_be_bytes(context.span_id().to_bytes()),
        flags: context.trace_flags().to_u8(),
        state: Some(context.trace_state().header()).filter(|state| !state.is_empty()),
    })
}

/// Makes a trace context the parent of a span.
pub(super) fn set_parent(span: &Span, parent: &TraceContext) {
    let state = parent.state.as_deref().map(TraceState::from_str);
    let remote = SpanContext::new(
        TraceId::from_bytes(parent.trace_id.to_be_bytes()),
        SpanId::from_bytes(parent.parent_id.to_be_bytes()),
        TraceFlags::new(parent.flags),
        true,
        // An invalid list of vendors is dropped, as the specification requires.
        state.and_then(Result::ok).unwrap_or_default(),
    );
    let parent = Context::new().with_remote_span_context(remote);
    // An error: the span is recorded by other layers than OpenTelemetry's.
    let _ = span.set_parent(parent);
}
