//! AMQP byte by byte: a peer that can send invalid messages, and a fake broker.

use super::rabbitmq::Vhost;
use super::wait::PATIENCE;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

pub(crate) const HEADERS: u16 = 1 << 13;
pub(crate) const CORRELATION_ID: u16 = 1 << 10;
pub(crate) const REPLY_TO: u16 = 1 << 9;
pub(crate) const EXPIRATION: u16 = 1 << 8;

const METHOD: u8 = 1;
const HEADER: u8 = 2;
const BODY: u8 = 3;

pub(crate) fn short(text: &[u8]) -> Vec<u8> {
    [&[u8::try_from(text.len()).unwrap()], text].concat()
}

pub(crate) fn long(bytes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(bytes.len()).unwrap().to_be_bytes();
    [&length, bytes].concat()
}

/// A table with one entry, as a property.
pub(crate) fn table(name: &[u8], value: &[u8]) -> Vec<u8> {
    long(&[&short(name), value].concat())
}

/// Arrays or tables inside each other, as the value of an entry.
pub(crate) fn nested(letter: u8, depth: usize) -> Vec<u8> {
    let mut value = b"V".to_vec();
    for _ in 0..depth {
        let name: &[u8] = if letter == b'F' { b"\x01k" } else { b"" };
        value = [&[letter], &long(&[name, &value].concat())[..]].concat();
    }
    value
}

fn frame(kind: u8, channel: u16, payload: &[u8]) -> Vec<u8> {
    let envelope = [&[kind], &channel.to_be_bytes()[..]].concat();
    [&envelope[..], &long(payload), b"\xce"].concat()
}

fn method(channel: u16, class: u16, method: u16, arguments: &[u8]) -> Vec<u8> {
    let payload = [&class.to_be_bytes()[..], &method.to_be_bytes(), arguments].concat();
    frame(METHOD, channel, &payload)
}

/// A message that was delivered.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Message {
    /// The flags and what follows.
    pub(crate) properties: Vec<u8>,
    pub(crate) body: Vec<u8>,
}

/// A connection with one channel.
pub(crate) struct Wire {
    stream: TcpStream,
    unread: Vec<u8>,
}

impl Wire {
    pub(crate) fn connect(vhost: &Vhost) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", vhost.port())).unwrap();
        let mut wire = Self::over(stream);
        wire.send(b"AMQP\0\0\x09\x01");
        wire.expect(10, 10);
        let login = [
            &long(b"")[..],
            &short(b"PLAIN"),
            &long(b"\0guest\0guest"),
            &short(b"en_US"),
        ];
        wire.send(&method(0, 10, 11, &login.concat()));
        let tune = wire.expect(10, 30);
        // The values that the broker offers, without heartbeats.
        wire.send(&method(0, 10, 31, &[&tune[4..10], &[0, 0]].concat()));
        let vhost = [&short(vhost.name().as_bytes())[..], &[0, 0]].concat();
        wire.send(&method(0, 10, 40, &vhost));
        wire.expect(10, 41);
        wire.send(&method(1, 20, 10, &[0]));
        wire.expect(20, 11);
        wire
    }

    fn over(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        Self {
            stream,
            unread: Vec::new(),
        }
    }

    fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("the peer reads");
    }

    fn next_frame(&mut self) -> (u8, Vec<u8>) {
        loop {
            if let Some(length) = self.unread.get(3..7) {
                let total = 8 + u32::from_be_bytes(length.try_into().unwrap()) as usize;
                if self.unread.len() >= total {
                    let frame: Vec<u8> = self.unread.drain(..total).collect();
                    return (frame[0], frame[7..total - 1].to_vec());
                }
            }
            let mut bytes = vec![0; 65_536];
            let count = self.stream.read(&mut bytes).expect("the peer answers");
            assert!(count > 0, "the peer has closed the connection");
            self.unread.extend_from_slice(&bytes[..count]);
        }
    }

    /// The payload of the next method, which must be this one.
    fn expect(&mut self, class: u16, method: u16) -> Vec<u8> {
        let (kind, payload) = self.next_frame();
        let expected = [class.to_be_bytes(), method.to_be_bytes()].concat();
        assert_eq!(
            (kind, &payload[..4]),
            (METHOD, &expected[..]),
            "{payload:?}"
        );
        payload
    }

    /// Declares an exclusive queue that the broker names.
    pub(crate) fn callback_queue(&mut self) -> Vec<u8> {
        let exclusive = [&[0, 0][..], &short(b""), &[0b100], &long(b"")].concat();
        self.send(&method(1, 50, 10, &exclusive));
        let declared = self.expect(50, 11);
        let name = declared[5..5 + usize::from(declared[4])].to_vec();
        self.consume(&name);
        name
    }

    /// Consumes a queue without acks.
    pub(crate) fn consume(&mut self, queue: &[u8]) {
        let no_ack = [&[0, 0][..], &short(queue), &short(b""), &[0b10], &long(b"")].concat();
        self.send(&method(1, 60, 20, &no_ack));
        self.expect(60, 21);
    }

    /// Binds a queue to a new fanout exchange.
    pub(crate) fn fanout(&mut self, exchange: &[u8], queue: &[u8]) {
        let declare = [
            &[0, 0][..],
            &short(exchange),
            &short(b"fanout"),
            &[0],
            &long(b""),
        ]
        .concat();
        self.send(&method(1, 40, 10, &declare));
        self.expect(40, 11);
        let bind = [
            &[0, 0][..],
            &short(queue),
            &short(exchange),
            &short(b""),
            &[0],
            &long(b""),
        ];
        self.send(&method(1, 50, 20, &bind.concat()));
        self.expect(50, 21);
    }

    pub(crate) fn publish(&mut self, queue: &[u8], flags: u16, properties: &[u8], body: &[u8]) {
        self.publish_to(b"", queue, flags, properties, body);
    }

    pub(crate) fn publish_to(
        &mut self,
        exchange: &[u8],
        routing_key: &[u8],
        flags: u16,
        properties: &[u8],
        body: &[u8],
    ) {
        let publish = [&[0, 0][..], &short(exchange), &short(routing_key), &[0]].concat();
        let size = (body.len() as u64).to_be_bytes();
        let header = [&[0, 60, 0, 0][..], &size, &flags.to_be_bytes(), properties].concat();
        let frames = [
            method(1, 60, 40, &publish),
            frame(HEADER, 1, &header),
            frame(BODY, 1, body),
        ];
        self.send(&frames.concat());
    }

    /// The next message of a consumed queue; its body must be in one frame.
    pub(crate) fn next_message(&mut self) -> Message {
        self.expect(60, 60);
        let (kind, header) = self.next_frame();
        assert_eq!(kind, HEADER);
        let body = match header[4..12] {
            [0, 0, 0, 0, 0, 0, 0, 0] => Vec::new(),
            _ => self.next_frame().1,
        };
        Message {
            properties: header[12..].to_vec(),
            body,
        }
    }
}

/// Starts a broker that accepts any login and sends these server properties; `serve` handles each connection after
/// the handshake. Returns its port.
pub(crate) fn fake_broker(
    server_properties: Vec<u8>,
    serve: impl Fn(&mut FakeBroker) + Send + Sync + 'static,
) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let serve = std::sync::Arc::new(serve);
    // The thread ends with the process of the tests.
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let (serve, properties) = (serve.clone(), server_properties.clone());
            std::thread::spawn(move || FakeBroker(Wire::over(stream)).greet(&properties, &*serve));
        }
    });
    port
}

/// The broker's side of one connection.
pub(crate) struct FakeBroker(Wire);

impl FakeBroker {
    fn greet(mut self, properties: &[u8], serve: &dyn Fn(&mut Self)) {
        let wire = &mut self.0;
        let mut version = [0; 8];
        if wire.stream.read_exact(&mut version).is_err() {
            return;
        }
        let start = [&[0, 9][..], properties, &long(b"PLAIN"), &long(b"en_US")].concat();
        wire.send(&method(0, 10, 10, &start));
        // A peer that refuses the properties closes the connection.
        if wire.stream.peek(&mut version).unwrap_or(0) == 0 {
            return;
        }
        wire.expect(10, 11);
        let tune = [&[7, 255][..], &131_072_u32.to_be_bytes(), &[0, 0]].concat();
        wire.send(&method(0, 10, 30, &tune));
        wire.expect(10, 31);
        wire.expect(10, 40);
        wire.send(&method(0, 10, 41, &short(b"")));
        serve(&mut self);
    }

    /// Serves a client until it has published a request; returns the correlation id.
    pub(crate) fn until_published(&mut self) -> Vec<u8> {
        loop {
            let (kind, payload) = self.0.next_frame();
            if kind == HEADER {
                let flags = u16::from_be_bytes([payload[12], payload[13]]);
                let properties = &payload[14..];
                let id_at = match flags & HEADERS {
                    0 => 0,
                    _ => 4 + u32::from_be_bytes(properties[..4].try_into().unwrap()) as usize,
                };
                let length = usize::from(properties[id_at]);
                return properties[id_at + 1..id_at + 1 + length].to_vec();
            }
            let ids = payload.get(..4).map(|ids| (ids[1], ids[3]));
            let answer = match ids {
                Some((20, 10)) => method(1, 20, 11, &long(b"")),
                Some((85, 10)) => method(1, 85, 11, b""),
                Some((60, 10)) => method(1, 60, 11, b""),
                Some((60, 20)) => method(1, 60, 21, &short(b"tag")),
                _ => continue,
            };
            self.0.send(&answer);
        }
    }

    /// Delivers a reply that claims this size, and sends its body as long as the client reads.
    pub(crate) fn reply_for_ever(&mut self, correlation_id: &[u8], claimed: u64) {
        let deliver = [&short(b"tag")[..], &[0; 9], &short(b""), &short(b"reply")].concat();
        let header = [
            &[0, 60, 0, 0][..],
            &claimed.to_be_bytes(),
            &CORRELATION_ID.to_be_bytes(),
            &short(correlation_id),
        ];
        self.0.send(&method(1, 60, 60, &deliver));
        self.0.send(&frame(HEADER, 1, &header.concat()));
        let body = frame(BODY, 1, &vec![b'7'; 100_000]);
        while self.0.stream.write_all(&body).is_ok() {}
    }
}
