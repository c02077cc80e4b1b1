//! A decoder of Protobuf spans that shares no code with the exporter:
//! <https://github.com/open-telemetry/opentelemetry-proto/blob/main/opentelemetry/proto/trace/v1/trace.proto>.

use std::collections::BTreeMap;
use std::fmt::Write as _;

/// An exported span, with the name of its service.
#[derive(Debug, Clone, Default)]
pub(crate) struct Span {
    pub(crate) service: String,
    /// Ids are hexadecimal.
    pub(crate) trace: String,
    pub(crate) id: String,
    /// Empty for a root span.
    pub(crate) parent: String,
    pub(crate) name: String,
    pub(crate) kind: Kind,
    pub(crate) start: u64,
    pub(crate) end: u64,
    pub(crate) attributes: BTreeMap<String, String>,
    pub(crate) failed: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Kind {
    #[default]
    Internal,
    Server,
    Client,
    Producer,
    Consumer,
}

/// The spans of an `ExportTraceServiceRequest`.
pub(crate) fn spans(body: &[u8]) -> Vec<Span> {
    let mut spans = Vec::new();
    for resource_spans in messages(body, 1) {
        let resource = messages(resource_spans, 1).next().unwrap();
        let service = attributes(resource, 1).remove("service.name").unwrap();
        for scope_spans in messages(resource_spans, 2) {
            spans.extend(messages(scope_spans, 2).map(|span| Span {
                service: service.clone(),
                ..self::span(span)
            }));
        }
    }
    spans
}

fn span(message: &[u8]) -> Span {
    let mut span = Span {
        attributes: attributes(message, 9),
        ..Span::default()
    };
    for (number, field) in fields(message) {
        match (number, field) {
            (1, Field::Bytes(id)) => span.trace = hex(id),
            (2, Field::Bytes(id)) => span.id = hex(id),
            (4, Field::Bytes(id)) => span.parent = hex(id),
            (5, Field::Bytes(name)) => span.name = text(name),
            (6, Field::Number(kind)) => {
                span.kind = match kind {
                    1 => Kind::Internal,
                    2 => Kind::Server,
                    3 => Kind::Client,
                    4 => Kind::Producer,
                    5 => Kind::Consumer,
                    other => panic!("no kind: {other}"),
                };
            }
            (7, Field::Number(at)) => span.start = at,
            (8, Field::Number(at)) => span.end = at,
            (15, Field::Bytes(status)) => {
                span.failed = fields(status)
                    .any(|(number, code)| matches!((number, code), (3, Field::Number(2))));
            }
            _ => {}
        }
    }
    span
}

/// Repeated `KeyValue`s.
fn attributes(message: &[u8], number: u64) -> BTreeMap<String, String> {
    let pair = |pair| {
        let key = text(messages(pair, 1).next().unwrap());
        let value = messages(pair, 2).next().unwrap();
        let value = match fields(value).next() {
            Some((1, Field::Bytes(value))) => text(value),
            Some((2, Field::Number(value))) => (value != 0).to_string(),
            Some((_, Field::Number(value))) => value.to_string(),
            other => panic!("{key} has an unknown value: {other:?}"),
        };
        (key, value)
    };
    messages(message, number).map(pair).collect()
}

#[derive(Debug)]
enum Field<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

fn messages(message: &[u8], wanted: u64) -> impl Iterator<Item = &[u8]> {
    fields(message).filter_map(move |(number, field)| match field {
        Field::Bytes(bytes) if number == wanted => Some(bytes),
        _ => None,
    })
}

fn fields(mut rest: &[u8]) -> impl Iterator<Item = (u64, Field<'_>)> {
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let tag = varint(&mut rest);
        let field = match tag & 7 {
            0 => Field::Number(varint(&mut rest)),
            1 => Field::Number(u64::from_le_bytes(take(&mut rest, 8).try_into().unwrap())),
            2 => {
                let length = varint(&mut rest);
                Field::Bytes(take(&mut rest, usize::try_from(length).unwrap()))
            }
            5 => Field::Number(u32::from_le_bytes(take(&mut rest, 4).try_into().unwrap()).into()),
            other => panic!("no wire type: {other}"),
        };
        Some((tag >> 3, field))
    })
}

fn varint(rest: &mut &[u8]) -> u64 {
    let mut number = 0;
    for place in 0.. {
        let byte = take(rest, 1)[0];
        number |= u64::from(byte & 0x7f) << (7 * place);
        if byte < 0x80 {
            break;
        }
    }
    number
}

fn take<'a>(rest: &mut &'a [u8], length: usize) -> &'a [u8] {
    let (taken, left) = rest.split_at(length);
    *rest = left;
    taken
}

fn hex(id: &[u8]) -> String {
    let mut text = String::new();
    for byte in id {
        write!(text, "{byte:02x}").unwrap();
    }
    text
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}
