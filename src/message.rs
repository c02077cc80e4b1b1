//! The wire format, both directions: the properties and bounds of request, reply and failure.
//!
//! Everything is as in RabbitMQ's tutorial six; what rpcache adds are headers that others ignore, all of
//! them long strings:
//!
//! | header | in | says |
//! | --- | --- | --- |
//! | `x-rpcache-cache` | requests | `bypass` or `refresh` |
//! | `x-rpcache-source` | replies | `cache`, `shared` or `computed` |
//! | `x-rpcache-filled` | replies | `true` or `false` |
//! | `x-rpcache-error` | failures | an [`ErrorCode`] |
//! | `x-rpcache-trace` | requests | `steps`: the worker is to tell how long its steps took |
//! | `x-rpcache-trace` | replies to those | the steps, in the form of [`Steps`] |
//! | `traceparent`, `tracestate` | requests | W3C's [`TraceContext`], if somebody collects the trace |
//!
//! What a peer sent is read here, once, into types that cannot be wrong; nothing here does I/O.

use std::sync::Arc;
use std::time::Duration;

use lapin::BasicProperties;
use lapin::message::Delivery;
use lapin::types::{AMQPValue, FieldTable, LongString, ShortString};
use uuid::Uuid;

use crate::broker::{CORRELATION_BYTES, MAX_BODY, OVERSIZED};
use crate::cache_use::CacheUse;
pub(crate) use crate::error::Failure;
use crate::error::{ErrorCode, quote, quote_inner};
use crate::procedure::Procedure;
use crate::procedure_name::ProcedureName;
use crate::source::Source;
use crate::trace::context::TraceContext;
use crate::trace::steps::Steps;

const CACHE_HEADER: &str = "x-rpcache-cache";
const SOURCE_HEADER: &str = "x-rpcache-source";
const FILLED_HEADER: &str = "x-rpcache-filled";
const ERROR_HEADER: &str = "x-rpcache-error";

/// In a request, `steps` asks the worker to tell how long each of its steps took; in the reply, it does.
const TRACE_HEADER: &str = "x-rpcache-trace";
const ASKS_STEPS: &str = "steps";

/// W3C's names: see [`TraceContext`].
const PARENT_HEADER: &str = "traceparent";
const STATE_HEADER: &str = "tracestate";

/// What the body of a failure starts with: no answer to a program that knows no headers.
const FAILURE_PREFIX: &str = "error: ";

/// A longer body is no argument. Keys hold 200 bytes of one; this leaves room for large structured
/// ones, and keeps what a worker's prefetched requests can occupy small.
const LONGEST_ARGUMENT: usize = 64 * 1024;

/// The properties of a request; its body is the argument's text.
pub(crate) fn request_properties(
    id: Uuid,
    reply_to: &ShortString,
    expires_in: Duration,
    cache: CacheUse,
) -> BasicProperties {
    // Zero would mean: only if a consumer is ready at this moment. Above 32 bits (49 days) RabbitMQ
    // closes the channel.
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

/// The same for a request that is traced: with the context that its worker's spans belong to, and the
/// question how long the worker's steps took.
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

/// A request as a worker reads it.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) body: Vec<u8>,
    /// The size in bytes of a body that was too large to be taken; `body` is empty then.
    oversized: Option<u64>,
    pub(crate) reply_to: Option<ShortString>,
    pub(crate) correlation_id: Option<CorrelationId>,
    /// The time it had left when it was published; the broker takes none off.
    pub(crate) expiration: Option<Duration>,
    pub(crate) cache: CacheUse,
    /// How often the broker has delivered it before; only quorum queues count.
    pub(crate) delivered_before: u64,
    /// The trace it belongs to.
    pub(crate) trace: Option<TraceContext>,
    /// Whether its caller wants to know how long the worker's steps took.
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

    /// The argument, or what to tell whoever sent something else. White space around it is left aside where
    /// it is no argument otherwise: programs after the tutorial read `30\n` as their languages do.
    pub(crate) fn argument<P: Procedure>(&self, procedure: &P) -> Result<P::Argument, Failure> {
        let refuse = |message| Failure {
            code: ErrorCode::BadArgument,
            message,
        };
        let length = self.oversized.unwrap_or(self.body.len() as u64);
        if length > LONGEST_ARGUMENT as u64 {
            return Err(refuse(format!(
                "{length} bytes are no argument: {LONGEST_ARGUMENT} are the most"
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

/// Whether the broker routes to this name without a queue behind it; it cannot be mandatory then:
/// RabbitMQ 3.10 returns such replies even when it delivers them.
pub(crate) fn is_direct_reply_to(name: &ShortString) -> bool {
    name.as_str().starts_with("amq.rabbitmq.reply-to.")
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

/// A reply, as a worker writes and a client reads it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reply {
    /// The answer's text, or why there is none. Shared by all requests that hang on one flight.
    pub(crate) outcome: Result<Arc<Vec<u8>>, Failure>,
    /// Ours say whether they computed it, found it in the cache, or waited for another's.
    pub(crate) source: Option<Source>,
    /// Ours say whether the answer is in the cache now; of others, nothing is known.
    pub(crate) filled: Option<bool>,
    /// How long the worker's steps took, where ours was asked.
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

    /// It does not come from a worker of ours.
    pub(crate) fn is_foreign(&self) -> bool {
        self.source.is_none() && self.filled.is_none()
    }

    /// The request's time ran out before it was begun.
    pub(crate) fn is_expired(&self) -> bool {
        matches!(&self.outcome, Err(failure) if failure.code == ErrorCode::Expired)
    }

    /// Body and properties. `id` is the request's correlation id, the only property copied.
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

    /// Whose reply it is, and what it says. `None` if no request of ours can be meant.
    pub(crate) fn read(delivery: Delivery) -> Option<(Uuid, Self)> {
        let id = correlation_id(&delivery.properties)?;
        let properties = &delivery.properties;
        let oversized = oversized(properties).map(|size| Failure {
            code: ErrorCode::TooLarge,
            message: format!("the reply has {size} bytes, this client takes {MAX_BODY} at most"),
        });
        let failure = header(properties, ERROR_HEADER).map(|code| Failure {
            // A code that a later version may have added is a failure all the same.
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

/// A request's correlation id as it came, to be sent back. AMQP lets it be any bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum CorrelationId {
    Text(ShortString),
    /// Not UTF-8: [`crate::broker`] carries it past lapin in a header.
    Bytes(Vec<u8>),
}

impl CorrelationId {
    pub(crate) fn read(properties: &BasicProperties) -> Option<Self> {
        match properties.correlation_id() {
            Some(id) => Some(Self::Text(id.clone())),
            None => header(properties, CORRELATION_BYTES).map(|id| Self::Bytes(id.to_vec())),
        }
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Text(id) => id.as_str().as_bytes(),
            Self::Bytes(id) => id,
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

/// The size of a body that was too large to be taken, and is missing.
fn oversized(properties: &BasicProperties) -> Option<u64> {
    std::str::from_utf8(header(properties, OVERSIZED)?)
        .ok()?
        .parse()
        .ok()
}

/// The correlation id of a reply or a returned request, if it is one of ours.
pub(crate) fn correlation_id(properties: &BasicProperties) -> Option<Uuid> {
    let id = properties.correlation_id().as_ref()?;
    Uuid::try_parse(id.as_str()).ok()
}

fn headers<const N: usize>(entries: [(&'static str, &str); N]) -> FieldTable {
    let mut table = FieldTable::default();
    for (name, value) in entries {
        insert(&mut table, name, value);
    }
    table
}

fn insert(table: &mut FieldTable, name: &'static str, value: impl Into<LongString>) {
    table.insert(ShortString::from(name), AMQPValue::LongString(value.into()));
}

/// A header of ours: LongString as we write it; some libraries write the other text types.
fn header<'a>(properties: &'a BasicProperties, name: &str) -> Option<&'a [u8]> {
    match properties.headers().as_ref()?.inner().get(name)? {
        AMQPValue::LongString(text) => Some(text.as_bytes()),
        AMQPValue::ShortString(text) => Some(text.as_str().as_bytes()),
        AMQPValue::ByteArray(bytes) => Some(bytes.as_slice()),
        _ => None,
    }
}

/// A number that the broker put into the headers.
fn count(properties: &BasicProperties, name: &str) -> Option<u64> {
    match *properties.headers().as_ref()?.inner().get(name)? {
        AMQPValue::LongLongInt(count) => u64::try_from(count).ok(),
        AMQPValue::LongInt(count) => u64::try_from(count).ok(),
        AMQPValue::LongUInt(count) => Some(count.into()),
        AMQPValue::ShortInt(count) => u64::try_from(count).ok(),
        AMQPValue::ShortUInt(count) => Some(count.into()),
        AMQPValue::ShortShortInt(count) => u64::try_from(count).ok(),
        AMQPValue::ShortShortUInt(count) => Some(count.into()),
        _ => None,
    }
}

/// For text of ours that is known to be short.
fn short(text: &str) -> ShortString {
    ShortString::try_new(text).unwrap_or_default()
}
