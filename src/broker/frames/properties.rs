//! Checks content headers of messages, and rewrites those that lapin cannot parse. Pure.
//!
//! RabbitMQ forwards a message's properties as its publisher sent them. Properties that lapin cannot parse are
//! reduced to those that rpcache reads: `reply_to`, `correlation_id`, `expiration` and [`KEPT_HEADERS`]. A
//! correlation id that is not UTF-8 passes lapin in a header, [`CORRELATION_BYTES`], and becomes a correlation id
//! again in the reply.

use super::table::{self, entries, push_long_string, take_long, take_short};

/// Header with the bytes of a correlation id that is not UTF-8. Only between this filter and
/// [`crate::message`], never on the wire.
pub(crate) const CORRELATION_BYTES: &str = "x-rpcache-correlation-bytes";

/// Header with the size in bytes, in decimal digits, of a body that was dropped as too large. Never on the wire.
pub(crate) const OVERSIZED: &str = "x-rpcache-oversized";

/// Headers that rpcache reads.
const KEPT_HEADERS: [&[u8]; 9] = [
    b"x-rpcache-cache",
    b"x-rpcache-source",
    b"x-rpcache-filled",
    b"x-rpcache-error",
    b"x-rpcache-trace",
    b"x-death",
    b"x-delivery-count",
    b"traceparent",
    b"tracestate",
];

/// Bytes of headers that are kept in a rewritten content header: together with the other properties they fit
/// AMQP's smallest frame, 4,096 bytes.
const MAX_KEPT: usize = 2500;

const CONTENT_TYPE: u16 = 1 << 15;
const CONTENT_ENCODING: u16 = 1 << 14;
const HEADERS: u16 = 1 << 13;
const DELIVERY_MODE: u16 = 1 << 12;
const PRIORITY: u16 = 1 << 11;
const CORRELATION_ID: u16 = 1 << 10;
const REPLY_TO: u16 = 1 << 9;
const EXPIRATION: u16 = 1 << 8;
const MESSAGE_ID: u16 = 1 << 7;
const TIMESTAMP: u16 = 1 << 6;
const KIND: u16 = 1 << 5;
const USER_ID: u16 = 1 << 4;
const APP_ID: u16 = 1 << 3;
const CLUSTER_ID: u16 = 1 << 2;
/// A bit without a meaning, and the bit that announces more flags, which lapin does not support.
const UNUSED: u16 = 0b11;

/// A content header, as far as it can be parsed.
#[derive(Debug)]
pub(super) struct ContentHeader<'a> {
    pub(super) body_size: u64,
    /// `None` if the properties violate AMQP.
    properties: Option<Properties<'a>>,
}

#[derive(Debug, Default)]
struct Properties<'a> {
    flags: u16,
    headers: &'a [u8],
    /// Delivery mode and priority.
    modes: &'a [u8],
    /// Content type and encoding; and everything from the message id on. Not read by rpcache.
    before: &'a [u8],
    after: &'a [u8],
    correlation_id: Option<&'a [u8]>,
    reply_to: Option<&'a [u8]>,
    expiration: Option<&'a [u8]>,
    /// Whether all short strings are UTF-8.
    is_text: bool,
}

impl<'a> ContentHeader<'a> {
    /// Bytes before the properties: class, weight and body size.
    pub(super) const FIXED: usize = 12;

    /// Parses a content header; `None` if it is too short for the body's size.
    pub(super) fn read(payload: &'a [u8]) -> Option<Self> {
        let body_size = payload.get(4..Self::FIXED)?.try_into().ok()?;
        Some(Self {
            body_size: u64::from_be_bytes(body_size),
            properties: Properties::read(&payload[Self::FIXED..]),
        })
    }

    /// Whether lapin can parse it.
    pub(super) fn is_parsable(&self) -> bool {
        self.properties
            .as_ref()
            .is_some_and(|properties| properties.is_text && table::is_parsable(properties.headers))
    }

    /// Reduces the header to the properties that rpcache reads; with an empty body if that is `oversized`.
    pub(super) fn reduced(&self, oversized: bool) -> Vec<u8> {
        let none = Properties::default();
        let read = self.properties.as_ref().unwrap_or(&none);
        let is_text = |text: &&[u8]| std::str::from_utf8(text).is_ok();
        let mut headers = Vec::new();
        for entry in entries(read.headers) {
            if KEPT_HEADERS.contains(&entry.name)
                && headers.len() + entry.whole.len() <= MAX_KEPT
                && table::is_parsable(entry.whole)
            {
                headers.extend_from_slice(entry.whole);
            }
        }
        if let Some(id) = read.correlation_id.filter(|id| !is_text(id)) {
            push_long_string(&mut headers, CORRELATION_BYTES, id);
        }
        if oversized {
            let size = self.body_size.to_string();
            push_long_string(&mut headers, OVERSIZED, size.as_bytes());
        }
        let kept = Properties {
            flags: if headers.is_empty() { 0 } else { HEADERS },
            headers: &headers,
            correlation_id: read.correlation_id.filter(is_text),
            reply_to: read.reply_to.filter(is_text),
            expiration: read.expiration.filter(is_text),
            ..Properties::default()
        };
        kept.write(if oversized { 0 } else { self.body_size })
    }

    /// Whether an outbound header contains [`CORRELATION_BYTES`].
    pub(super) fn has_correlation_bytes(&self) -> bool {
        let properties = self.properties.as_ref();
        properties.is_some_and(|read| correlation_bytes(read.headers).is_some())
    }

    /// Moves [`CORRELATION_BYTES`] to the correlation id; `None` if there are none.
    pub(super) fn with_correlation_bytes(&self) -> Option<Vec<u8>> {
        let read = self.properties.as_ref()?;
        let id = correlation_bytes(read.headers)?;
        let headers: Vec<u8> = entries(read.headers)
            .filter(|entry| entry.name != CORRELATION_BYTES.as_bytes())
            .flat_map(|entry| entry.whole)
            .copied()
            .collect();
        let written = Properties {
            headers: &headers,
            correlation_id: Some(id),
            ..*read
        };
        Some(written.write(self.body_size))
    }
}

fn correlation_bytes(headers: &[u8]) -> Option<&[u8]> {
    let entry = entries(headers).find(|entry| entry.name == CORRELATION_BYTES.as_bytes())?;
    entry.long_string().filter(|id| id.len() <= 255)
}

impl<'a> Properties<'a> {
    /// Parses properties that fill all of `bytes`.
    fn read(bytes: &'a [u8]) -> Option<Self> {
        let flags = u16::from_be_bytes(bytes.get(..2)?.try_into().ok()?);
        if flags & UNUSED != 0 {
            return None;
        }
        let mut walk = Walk {
            bytes,
            at: 2,
            flags,
            fits: true,
            is_text: true,
        };
        walk.short(CONTENT_TYPE);
        walk.short(CONTENT_ENCODING);
        let before = walk.since(2);
        let headers = walk.table(HEADERS);
        let modes_at = walk.at;
        walk.skip(DELIVERY_MODE, 1);
        walk.skip(PRIORITY, 1);
        let modes = walk.since(modes_at);
        let correlation_id = walk.short(CORRELATION_ID);
        let reply_to = walk.short(REPLY_TO);
        let expiration = walk.short(EXPIRATION);
        let after_at = walk.at;
        walk.short(MESSAGE_ID);
        walk.skip(TIMESTAMP, 8);
        for flag in [KIND, USER_ID, APP_ID, CLUSTER_ID] {
            walk.short(flag);
        }
        (walk.fits && walk.at == bytes.len()).then(|| Self {
            flags,
            headers,
            modes,
            before,
            after: walk.since(after_at),
            correlation_id,
            reply_to,
            expiration,
            is_text: walk.is_text,
        })
    }

    /// Writes the payload of a content header of class basic.
    fn write(&self, body_size: u64) -> Vec<u8> {
        let strings = [
            (CORRELATION_ID, self.correlation_id),
            (REPLY_TO, self.reply_to),
            (EXPIRATION, self.expiration),
        ];
        let mut flags = self.flags;
        for (flag, value) in strings {
            flags = if value.is_some() {
                flags | flag
            } else {
                flags & !flag
            };
        }
        let mut payload = vec![0, 60, 0, 0];
        payload.extend_from_slice(&body_size.to_be_bytes());
        payload.extend_from_slice(&flags.to_be_bytes());
        payload.extend_from_slice(self.before);
        if flags & HEADERS != 0 {
            // At most as long as what was read, plus two headers of this module.
            let length = u32::try_from(self.headers.len()).unwrap_or(0);
            payload.extend_from_slice(&length.to_be_bytes());
            payload.extend_from_slice(self.headers);
        }
        payload.extend_from_slice(self.modes);
        for value in strings.into_iter().filter_map(|(_, value)| value) {
            payload.push(u8::try_from(value.len()).unwrap_or(0));
            payload.extend_from_slice(value);
        }
        payload.extend_from_slice(self.after);
        payload
    }
}

/// A cursor over properties in the order of the flags.
struct Walk<'a> {
    bytes: &'a [u8],
    at: usize,
    flags: u16,
    /// Whether all properties so far fit.
    fits: bool,
    /// Whether all short strings so far are UTF-8.
    is_text: bool,
}

impl<'a> Walk<'a> {
    fn has(&self, flag: u16) -> bool {
        self.fits && self.flags & flag != 0
    }

    fn short(&mut self, flag: u16) -> Option<&'a [u8]> {
        if !self.has(flag) {
            return None;
        }
        let Some((text, end)) = take_short(self.bytes, self.at) else {
            self.fits = false;
            return None;
        };
        self.at = end;
        self.is_text &= std::str::from_utf8(text).is_ok();
        Some(text)
    }

    fn table(&mut self, flag: u16) -> &'a [u8] {
        if !self.has(flag) {
            return &[];
        }
        let Some((content, end)) = take_long(self.bytes, self.at) else {
            self.fits = false;
            return &[];
        };
        self.at = end;
        content
    }

    fn skip(&mut self, flag: u16, size: usize) {
        if self.has(flag) {
            self.at += size;
            self.fits = self.at <= self.bytes.len();
        }
    }

    /// The bytes from `start` to the cursor.
    fn since(&self, start: usize) -> &'a [u8] {
        self.bytes.get(start..self.at).unwrap_or_default()
    }
}
