//! Reads and writes single properties and headers of messages: the correlation id, headers as text or numbers.

use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable, LongString, ShortString};
use uuid::Uuid;

use crate::broker::{CORRELATION_BYTES, OVERSIZED};

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

/// The correlation id of a reply or of a returned request, if it can be one of this process.
pub(crate) fn correlation_id(properties: &BasicProperties) -> Option<Uuid> {
    let id = properties.correlation_id().as_ref()?;
    Uuid::try_parse(id.as_str()).ok()
}

/// The size of a body that was too large to be received, and is missing.
pub(super) fn oversized(properties: &BasicProperties) -> Option<u64> {
    std::str::from_utf8(header(properties, OVERSIZED)?)
        .ok()?
        .parse()
        .ok()
}

pub(super) fn headers<const N: usize>(entries: [(&'static str, &str); N]) -> FieldTable {
    let mut table = FieldTable::default();
    for (name, value) in entries {
        insert(&mut table, name, value);
    }
    table
}

pub(super) fn insert(table: &mut FieldTable, name: &'static str, value: impl Into<LongString>) {
    table.insert(ShortString::from(name), AMQPValue::LongString(value.into()));
}

/// A header as text. rpcache writes long strings; some libraries write other types of text.
pub(super) fn header<'a>(properties: &'a BasicProperties, name: &str) -> Option<&'a [u8]> {
    match properties.headers().as_ref()?.inner().get(name)? {
        AMQPValue::LongString(text) => Some(text.as_bytes()),
        AMQPValue::ShortString(text) => Some(text.as_str().as_bytes()),
        AMQPValue::ByteArray(bytes) => Some(bytes.as_slice()),
        _ => None,
    }
}

/// A header that the broker sets, as a number.
pub(super) fn count(properties: &BasicProperties, name: &str) -> Option<u64> {
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
pub(super) fn short(text: &str) -> ShortString {
    ShortString::try_new(text).unwrap_or_default()
}
