//! Requests: what a client writes and a worker reads.

use std::time::Duration;

use lapin::BasicProperties;
use lapin::types::ShortString;
use uuid::Uuid;

use super::{
    CACHE_HEADER, CorrelationId, Failure, TRACE_HEADER, count, header, headers, insert, oversized,
    short,
};
use crate::cache_use::CacheUse;
use crate::error::ErrorCode;
use crate::procedure::Procedure;
use crate::text::quote_inner;
use crate::trace::context::TraceContext;

/// The value of [`TRACE_HEADER`] that asks how long the worker's steps take.
const ASKS_STEPS: &str = "steps";

/// The names that W3C gives the headers of a [`TraceContext`].
const PARENT_HEADER: &str = "traceparent";
const STATE_HEADER: &str = "tracestate";

/// The largest argument, in bytes. Keys hold 200 bytes of it; this leaves room for structured ones, and
/// bounds the memory of a worker's prefetched requests.
const MAX_ARGUMENT: usize = 64 * 1024;

/// The properties of a request. Its body is the argument's text.
pub(crate) fn request_properties(
    id: Uuid,
    reply_to: &ShortString,
    expires_in: Duration,
    cache: CacheUse,
) -> BasicProperties {
    // Zero means: only if a consumer is ready at this moment. Above 32 bits (49 days) RabbitMQ closes the
    // channel.
    let expiration = expires_in.as_millis().clamp(1, u128::from(u32::MAX));
    let properties = BasicProperties::default()
        .with_reply_to(reply_to.clone())
        .with_correlation_id(short(&id.to_string()))
        .with_expiration(short(&expiration.to_string()));
    match cache {
        CacheUse::Normal => properties,
        CacheUse::Bypass => properties.with_headers(headers([(CACHE_HEADER, "bypass")])),
        CacheUse::Refresh => properties.with_headers(headers([(CACHE_HEADER, "refresh")])),
    }
}

/// Adds the context of a trace to a request's properties, and the question how long the worker's steps take.
pub(crate) fn traced(
    properties: BasicProperties,
    context: Option<&TraceContext>,
    asks_steps: bool,
) -> BasicProperties {
    if context.is_none() && !asks_steps {
        return properties;
    }
    let mut headers = properties.headers().clone().unwrap_or_default();
    if let Some(context) = context {
        insert(&mut headers, PARENT_HEADER, context.to_string());
        if let Some(state) = &context.state {
            insert(&mut headers, STATE_HEADER, state.as_str());
        }
    }
    if asks_steps {
        insert(&mut headers, TRACE_HEADER, ASKS_STEPS);
    }
    properties.with_headers(headers)
}

/// A request, as a worker reads it.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) body: Vec<u8>,
    /// The size in bytes of a body that was too large to be received; `body` is empty then.
    oversized: Option<u64>,
    pub(crate) reply_to: Option<ShortString>,
    pub(crate) correlation_id: Option<CorrelationId>,
    /// The time that was left when it was published. The broker does not count it down.
    pub(crate) expiration: Option<Duration>,
    pub(crate) cache: CacheUse,
    /// How often the broker has delivered it before. Only quorum queues count that.
    pub(crate) delivered_before: u64,
    /// The trace it belongs to.
    pub(crate) trace: Option<TraceContext>,
    /// Whether the caller asks how long the worker's steps take.
    pub(crate) asks_steps: bool,
}

impl Request {
    pub(crate) fn read(body: Vec<u8>, properties: &BasicProperties) -> Self {
        let cache = match header(properties, CACHE_HEADER) {
            Some(b"bypass") => CacheUse::Bypass,
            Some(b"refresh") => CacheUse::Refresh,
            _ => CacheUse::Normal,
        };
        let expiration = properties.expiration().as_ref();
        Self {
            body,
            reply_to: properties
                .reply_to()
                .clone()
                .filter(|name| !name.as_str().is_empty()),
            correlation_id: CorrelationId::read(properties),
            oversized: oversized(properties),
            expiration: expiration
                .and_then(|millis| millis.as_str().parse().ok())
                .map(Duration::from_millis),
            cache,
            delivered_before: count(properties, "x-delivery-count").unwrap_or(0),
            trace: header(properties, PARENT_HEADER)
                .and_then(|parent| TraceContext::read(parent, header(properties, STATE_HEADER))),
            asks_steps: header(properties, TRACE_HEADER) == Some(ASKS_STEPS.as_bytes()),
        }
    }

    /// The argument, or the failure to reply. White space around it is ignored if the text is no argument
    /// otherwise: the tutorial's servers read `30\n` as a number.
    pub(crate) fn argument<P: Procedure>(&self, procedure: &P) -> Result<P::Argument, Failure> {
        let refuse = |message| Failure {
            code: ErrorCode::BadArgument,
            message,
        };
        let length = self.oversized.unwrap_or(self.body.len() as u64);
        if length > MAX_ARGUMENT as u64 {
            return Err(refuse(format!(
                "{length} bytes are no argument: {MAX_ARGUMENT} are the most"
            )));
        }
        let text = std::str::from_utf8(&self.body)
            .map_err(|_| refuse(format!("\"{}\" is not UTF-8 text", quote_inner(&self.body))))?;
        procedure.parse_argument(text).or_else(|message| {
            let trimmed = procedure.parse_argument(text.trim_ascii());
            trimmed.map_err(|_| refuse(message))
        })
    }
}
