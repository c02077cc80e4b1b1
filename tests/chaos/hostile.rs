//! A hostile publisher with the rights of a client: it writes messages byte by byte that no AMQP library
//! would. RabbitMQ delivers all of them; each may harm no other message.

use std::collections::HashSet;
use std::time::Duration;

use fastrand::Rng;
use tokio_util::sync::CancellationToken;

use crate::broker::{DEAD_LETTERS, EXPIRING, REQUESTS};
use crate::support::rabbitmq::Vhost;
use crate::support::wire::{
    CORRELATION_ID, EXPIRATION, HEADERS, REPLY_TO, Wire, long, nested, short, table,
};

/// Flags of the properties that are short strings and that the broker does not check.
const CONTENT_TYPE: u16 = 1 << 15;
const CONTENT_ENCODING: u16 = 1 << 14;
const MESSAGE_ID: u16 = 1 << 7;
const TYPE: u16 = 1 << 5;
const APP_ID: u16 = 1 << 3;
const CLUSTER_ID: u16 = 1 << 2;

const IDS: u16 = CORRELATION_ID | REPLY_TO;
/// Deeper than a recursive parser can go on a stack of the usual size.
const DEEP_ARRAYS: usize = 4000;
const DEEP_TABLES: usize = 2150;
/// A header that just fits a frame.
const NEARLY_A_FRAME: usize = 131_000;
/// Many times the longest argument, in one frame.
const LONG_BODY: usize = 131_000;
/// Forged reply-to names in the first round, and in each later one.
const FORGED: [usize; 2] = [100, 2];
const BETWEEN_ROUNDS: Duration = Duration::from_millis(250);

/// Publishes until it is stopped, and then waits until each of its valid requests has a reply with the
/// correlation id that was sent. Blocks; panics if such a reply does not come.
pub(crate) fn publish(vhost: &Vhost, seed: u64, stop: &CancellationToken) {
    let mut rng = Rng::with_seed(seed);
    let mut wire = Wire::connect(vhost);
    let queue = wire.callback_queue();
    let mut waiting = HashSet::new();
    let mut first = true;
    while !stop.is_cancelled() {
        let id: [u8; 16] = std::array::from_fn(|_| 0x80 | rng.u8(..));
        wire.publish(REQUESTS.as_bytes(), IDS, &ids(&id, &queue), b"30");
        waiting.insert(short(&id));
        for message in hostile(&queue) {
            message.publish(&mut wire);
        }
        for _ in 0..FORGED[usize::from(!first)] {
            let reply_to = forged(&mut rng);
            let properties = ids(b"forged", reply_to.as_bytes());
            wire.publish(REQUESTS.as_bytes(), IDS, &properties, b"30");
        }
        first = false;
        std::thread::sleep(BETWEEN_ROUNDS);
    }
    while !waiting.is_empty() {
        let reply = wire.next_message();
        waiting.retain(|id| !reply.properties.ends_with(id));
    }
}

struct Message {
    queue: &'static str,
    flags: u16,
    properties: Vec<u8>,
    body: Vec<u8>,
}

impl Message {
    fn publish(&self, wire: &mut Wire) {
        wire.publish(
            self.queue.as_bytes(),
            self.flags,
            &self.properties,
            &self.body,
        );
    }
}

/// One message of each kind.
fn hostile(reply_to: &[u8]) -> Vec<Message> {
    let large = |size| table(b"a", &[b"S", &long(&vec![b'x'; size])[..]].concat());
    let with_headers = |queue, headers: Vec<u8>| Message {
        queue,
        flags: HEADERS | IDS,
        properties: [headers, ids(b"headers", reply_to)].concat(),
        body: b"30".to_vec(),
    };
    let deep = || {
        [
            table(b"a", &nested(b'A', DEEP_ARRAYS)),
            table(b"a", &nested(b'F', DEEP_TABLES)),
        ]
    };
    let mut messages = Vec::new();
    for queue in [REQUESTS, DEAD_LETTERS] {
        messages.extend(deep().map(|headers| with_headers(queue, headers)));
    }
    // The headers that dead-lettering adds make it larger than a frame.
    let rest = ids(b"expires", reply_to);
    messages.push(Message {
        queue: EXPIRING,
        flags: HEADERS | IDS | EXPIRATION,
        properties: [large(NEARLY_A_FRAME - rest.len() - 50), rest, short(b"1")].concat(),
        body: b"30".to_vec(),
    });
    let bytes = short(b"\xff\xfe\x80");
    messages.push(Message {
        queue: REQUESTS,
        flags: CONTENT_TYPE
            | CONTENT_ENCODING
            | HEADERS
            | IDS
            | MESSAGE_ID
            | TYPE
            | APP_ID
            | CLUSTER_ID,
        properties: [
            bytes.repeat(2),
            table(b"\xff", &[b"S", &long(b"\xff\xfe")[..]].concat()),
            bytes.repeat(6),
        ]
        .concat(),
        body: b"\xff\xfe".to_vec(),
    });
    messages.push(Message {
        queue: REQUESTS,
        flags: IDS,
        properties: ids(b"long", reply_to),
        body: vec![b'9'; LONG_BODY],
    });
    messages
}

fn ids(id: &[u8], reply_to: &[u8]) -> Vec<u8> {
    [short(id), short(reply_to)].concat()
}

/// A direct reply-to name of a valid form, for a process and a node that do not exist. RabbitMQ 3.10 closes the
/// connection that publishes to it.
fn forged(rng: &mut Rng) -> String {
    let node = format!("reply@{}", rng.u32(..));
    let mut process = vec![131, 88, 118];
    process.extend(
        u16::try_from(node.len())
            .expect("it is short")
            .to_be_bytes(),
    );
    process.extend(node.as_bytes());
    for number in [rng.u32(0..1 << 15), 0, 1] {
        process.extend(number.to_be_bytes());
    }
    let key: [u8; 16] = std::array::from_fn(|_| rng.u8(..));
    format!(
        "amq.rabbitmq.reply-to.{}.{}",
        base64(&process),
        base64(&key)
    )
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let mut whole = [0; 4];
        whole[1..=chunk.len()].copy_from_slice(chunk);
        let bits = u32::from_be_bytes(whole);
        for place in 0..4 {
            let digit = DIGITS[(bits >> (18 - 6 * place) & 63) as usize];
            text.push(if place > chunk.len() {
                '='
            } else {
                digit.into()
            });
        }
    }
    text
}
