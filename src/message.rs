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
//! | `x-rpcache-error` | failures | an [`ErrorCode`](crate::ErrorCode) |
//! | `x-rpcache-trace` | requests | `steps`: asks the worker how long its steps take |
//! | `x-rpcache-trace` | replies to those | the steps, in the form of [`Steps`](crate::trace::steps::Steps) |
//! | `traceparent`, `tracestate` | requests | W3C's [`TraceContext`](crate::trace::context::TraceContext), if traces are collected |
//!
//! What a peer sends is parsed here, once, into types that are always valid. Nothing here does I/O.

mod reply;
mod request;

use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable, LongString, ShortString};
use uuid::Uuid;

pub(crate) use self::reply::Reply;
pub(crate) use self::request::{Request, request_properties, traced};
use crate::broker::{CORRELATION_BYTES, OVERSIZED};
pub(crate) use crate::error::Failure;

const CACHE_HEADER: &str = "x-rpcache-cache";
const SOURCE_HEADER: &str = "x-rpcache-source";
const FILLED_HEADER: &str = "x-rpcache-filled";
const ERROR_HEADER: &str = "x-rpcache-error";

/// In a request, `steps` asks how long each of the worker's steps takes; the reply says it.
const TRACE_HEADER: &str = "x-rpcache-trace";

/// Whether the name is a direct reply-to pseudo-queue. A reply there cannot be mandatory: RabbitMQ 3.10 returns
/// such replies even if it delivers them.
pub(crate) fn is_direct_reply_to(name: &ShortString) -> bool {
    name.as_str().starts_with("amq.rabbitmq.reply-to.")
}

/// A request's correlation id, to be sent back as it came: any bytes, by AMQP's specification.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum CorrelationId {
    Text(ShortString),
    /// Not UTF-8: [`crate::broker`] passes it around lapin in a header.
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

/// The size of a body that was too large to be received, and is missing.
fn oversized(properties: &BasicProperties) -> Option<u64> {
    std::str::from_utf8(header(properties, OVERSIZED)?)
        .ok()?
        .parse()
        .ok()
}

/// The correlation id of a reply or of a returned request, if it can be one of this process.
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

/// A header as text. rpcache writes long strings; some libraries write other types of text.
fn header<'a>(properties: &'a BasicProperties, name: &str) -> Option<&'a [u8]> {
    match properties.headers().as_ref()?.inner().get(name)? {
        AMQPValue::LongString(text) => Some(text.as_bytes()),
        AMQPValue::ShortString(text) => Some(text.as_str().as_bytes()),
        AMQPValue::ByteArray(bytes) => Some(bytes.as_slice()),
        _ => None,
    }
}

/// A header that the broker sets, as a number.
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

/// For text that is known to be short.
fn short(text: &str) -> ShortString {
    ShortString::try_new(text).unwrap_or_default()
}
