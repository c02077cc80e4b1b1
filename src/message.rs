//! The wire format: the properties and bounds of requests, replies and failures, in both directions.
//!
//! It is that of RabbitMQ's tutorial six. rpcache adds headers, all of them long strings, which other
//! programs ignore:
//!
//! | header | in | value |
//! | --- | --- | --- |
//! | `x-rpcache-cache` | requests | `bypass` or `refresh` |
//! | `x-rpcache-source` | replies | `cache`, `shared` or `computed` |
//! | `x-rpcache-filled` | replies | `true` or `false` |
//! | `x-rpcache-error` | failures | an [`ErrorCode`] |
//! | `x-rpcache-trace` | requests | `steps`: asks the worker how long its steps take |
//! | `x-rpcache-trace` | replies to those | the steps, in the form of [`Steps`] |
//! | `traceparent`, `tracestate` | requests | W3C's [`TraceContext`], if traces are collected |
//!
//! What a peer sends is parsed here, once, into types that are always valid. Nothing here does I/O.

mod properties;

use std::sync::Arc;
use std::time::Duration;

use lapin::BasicProperties;
use lapin::message::Delivery;
use lapin::types::ShortString;
use uuid::Uuid;

pub(crate) use self::properties::{CorrelationId, correlation_id};

use self::properties::{count, header, headers, insert, oversized, short};
use crate::broker::{CORRELATION_BYTES, MAX_BODY};
use crate::cache_use::CacheUse;
use crate::error::ErrorCode;
pub(crate) use crate::error::Failure;
use crate::procedure::Procedure;
use crate::procedure_name::ProcedureName;
use crate::source::Source;
use crate::text::{quote, quote_inner};
use crate::trace::context::TraceContext;
use crate::trace::steps::Steps;

const CACHE_HEADER: &str = "x-rpcache-cache";
const SOURCE_HEADER: &str = "x-rpcache-source";
const FILLED_HEADER: &str = "x-rpcache-filled";
const ERROR_HEADER: &str = "x-rpcache-error";

/// In a request, `steps` asks how long each of the worker's steps takes; the reply says it.
const TRACE_HEADER: &str = "x-rpcache-trace";

/// The value of [`TRACE_HEADER`] that asks how long the worker's steps take.
const ASKS_STEPS: &str = "steps";

/// The names that W3C gives the headers of a [`TraceContext`].
const PARENT_HEADER: &str = "traceparent";
const STATE_HEADER: &str = "tracestate";

/// The largest argument, in bytes. Keys hold 200 bytes of it; this leaves room for structured ones, and
/// bounds the memory of a worker's prefetched requests.
const MAX_ARGUMENT: usize = 64 * 1024;

/// The beginning of a failure's body: a program that does not know the headers must not take it for an answer.
const FAILURE_PREFIX: &str = "error: ";

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

/// A reply, as a worker writes it and a client reads it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reply {
    /// The answer, or why there is none. Shared by all requests of one flight.
    pub(crate) outcome: Result<Arc<Vec<u8>>, Failure>,
    /// Where the answer came from; unknown if the worker is not rpcache's.
    pub(crate) source: Option<Source>,
    /// Whether the answer is stored; unknown if the worker is not rpcache's.
    pub(crate) filled: Option<bool>,
    /// How long the worker's steps took, if the request asked.
    pub(crate) steps: Option<Box<Steps>>,
}

impl Reply {
    pub(crate) fn failure(failure: Failure) -> Self {
        Self {
            outcome: Err(failure),
            source: None,
            filled: None,
            steps: None,
        }
    }

    /// Whether it comes from a program other than rpcache.
    pub(crate) fn is_foreign(&self) -> bool {
        self.source.is_none() && self.filled.is_none()
    }

    /// Whether the request expired before it was computed.
    pub(crate) fn is_expired(&self) -> bool {
        matches!(&self.outcome, Err(failure) if failure.code == ErrorCode::Expired)
    }

    /// Body and properties. `id` is the request's correlation id, the only property that is copied.
    pub(crate) fn write(self, id: Option<&CorrelationId>) -> (Arc<Vec<u8>>, BasicProperties) {
        let (body, mut headers) = match self.outcome {
            Ok(body) => {
                let source = self.source.unwrap_or(Source::Computed).as_str();
                let filled = if self.filled == Some(true) {
                    "true"
                } else {
                    "false"
                };
                (
                    body,
                    headers([(SOURCE_HEADER, source), (FILLED_HEADER, filled)]),
                )
            }
            Err(failure) => (
                Arc::new(
                    format!("{FAILURE_PREFIX}{}", quote(failure.message.as_bytes())).into_bytes(),
                ),
                headers([(ERROR_HEADER, failure.code.as_str())]),
            ),
        };
        if let Some(steps) = self.steps {
            insert(&mut headers, TRACE_HEADER, steps.to_string());
        }
        let mut properties = BasicProperties::default();
        match id {
            Some(CorrelationId::Text(id)) => {
                properties = properties.with_correlation_id(id.clone());
            }
            Some(CorrelationId::Bytes(id)) => {
                insert(&mut headers, CORRELATION_BYTES, id.as_slice());
            }
            None => {}
        }
        (body, properties.with_headers(headers))
    }

    /// The correlation id and the reply. `None` if the id cannot be one of this process.
    pub(crate) fn read(delivery: Delivery) -> Option<(Uuid, Self)> {
        let id = correlation_id(&delivery.properties)?;
        let properties = &delivery.properties;
        let oversized = oversized(properties).map(|size| Failure {
            code: ErrorCode::TooLarge,
            message: format!("the reply has {size} bytes, this client takes {MAX_BODY} at most"),
        });
        let failure = header(properties, ERROR_HEADER).map(|code| Failure {
            // A later version may have added a code: it is a failure nevertheless.
            code: std::str::from_utf8(code)
                .ok()
                .and_then(|code| code.parse().ok())
                .unwrap_or(ErrorCode::Failed),
            message: failure_message(&delivery.data),
        });
        let reply = Self {
            source: match header(properties, SOURCE_HEADER) {
                Some(b"cache") => Some(Source::Cache),
                Some(b"shared") => Some(Source::Shared),
                Some(b"computed") => Some(Source::Computed),
                _ => None,
            },
            filled: header(properties, FILLED_HEADER).map(|filled| filled == b"true"),
            steps: header(properties, TRACE_HEADER)
                .and_then(Steps::read)
                .map(Box::new),
            outcome: match oversized.or(failure) {
                Some(failure) => Err(failure),
                None => Ok(Arc::new(delivery.data)),
            },
        };
        Some((id, reply))
    }
}

impl Failure {
    /// The procedure panicked. The panic's message has gone to stderr; the caller is sent no internals.
    pub(crate) fn panicked(procedure: &ProcedureName) -> Self {
        Self {
            code: ErrorCode::Failed,
            message: format!("{procedure} panicked"),
        }
    }
}

/// The message of a failure, from the reply's body.
fn failure_message(body: &[u8]) -> String {
    match body.strip_prefix(FAILURE_PREFIX.as_bytes()).unwrap_or(body) {
        [] => "the worker gives no reason".to_owned(),
        message => quote(message),
    }
}

/// Whether the name is a direct reply-to pseudo-queue. A reply there cannot be mandatory: RabbitMQ 3.10 returns
/// such replies even if it delivers them.
pub(crate) fn is_direct_reply_to(name: &ShortString) -> bool {
    name.as_str().starts_with("amq.rabbitmq.reply-to.")
}
