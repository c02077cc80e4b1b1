//! Tests the filter against lapin's parser, on generated frames, valid and hostile.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};

use amq_protocol::frame::{AMQPFrame, parse_frame};
use amq_protocol::types::AMQPValue;
use fastrand::Rng;
use futures_util::FutureExt as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::properties::{CORRELATION_BYTES, OVERSIZED};
use super::*;

/// Frames in each direction, in all.
const GENERATED: usize = 500_000;

/// A stream that reads and writes chunks of random size, and is sometimes not ready.
struct Choppy {
    rng: Rng,
    comes: VecDeque<u8>,
    went: Vec<u8>,
    /// Whether it was not ready the last time.
    waited: bool,
}

impl Choppy {
    fn new(seed: u64, comes: &[u8]) -> Self {
        Self {
            rng: Rng::with_seed(seed),
            comes: comes.iter().copied().collect(),
            went: Vec::new(),
            waited: false,
        }
    }

    /// How many bytes there may be this time.
    fn piece(&mut self, cx: &mut Context<'_>) -> Poll<usize> {
        if !self.waited && self.rng.u8(..4) == 0 {
            self.waited = true;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.waited = false;
        Poll::Ready(match self.rng.u8(..4) {
            0 => self.rng.usize(1..20),
            1 => self.rng.usize(1..300),
            _ => 200_000,
        })
    }
}

impl AsyncRead for Choppy {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let piece = ready!(self.piece(cx)).min(buffer.remaining());
        let count = piece.min(self.comes.len());
        let bytes: Vec<u8> = self.comes.drain(..count).collect();
        buffer.put_slice(&bytes);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Choppy {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let count = ready!(self.piece(cx)).min(bytes.len());
        self.went.extend_from_slice(&bytes[..count]);
        Poll::Ready(Ok(count))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Runs a future that only ever waits for a [`Choppy`].
fn run<T>(future: impl Future<Output = T>) -> T {
    let mut future = Box::pin(future);
    loop {
        if let Some(output) = future.as_mut().now_or_never() {
            return output;
        }
    }
}

/// Filters `comes`, read in buffers of random size.
fn filtered(seed: u64, comes: &[u8]) -> io::Result<Vec<u8>> {
    let mut frames = Frames::new(Choppy::new(seed, comes), MAX_FRAME);
    let mut rng = Rng::with_seed(seed);
    let mut read = Vec::new();
    let mut buffer = vec![0; 300_000];
    run(async {
        loop {
            let size = if rng.bool() {
                buffer.len()
            } else {
                rng.usize(1..500)
            };
            match frames.read(&mut buffer[..size]).await? {
                0 => return Ok(read),
                count => read.extend_from_slice(&buffer[..count]),
            }
        }
    })
}

fn frame(kind: u8, channel: u16, payload: &[u8]) -> Vec<u8> {
    let envelope = Envelope {
        kind,
        channel,
        size: payload.len(),
    };
    envelope.frame(payload)
}

fn parsed(bytes: &[u8]) -> Option<AMQPFrame> {
    match parse_frame(bytes) {
        Ok(([], frame)) => Some(frame),
        _ => None,
    }
}

fn short(bytes: &[u8]) -> Vec<u8> {
    let mut short = vec![u8::try_from(bytes.len()).unwrap()];
    short.extend_from_slice(bytes);
    short
}

fn long(bytes: &[u8]) -> Vec<u8> {
    let mut long = u32::try_from(bytes.len()).unwrap().to_be_bytes().to_vec();
    long.extend_from_slice(bytes);
    long
}

/// Arrays or tables inside each other.
fn nested(rng: &mut Rng, depth: usize) -> Vec<u8> {
    let tables = rng.bool();
    // From the inside out, each with the length of all that is inside.
    let mut inside = 1;
    let mut openings = Vec::with_capacity(depth);
    for _ in 0..depth {
        let content = if tables { inside + 2 } else { inside };
        let mut opening = vec![if tables { b'F' } else { b'A' }];
        opening.extend_from_slice(&u32::try_from(content).unwrap().to_be_bytes());
        if tables {
            opening.extend_from_slice(b"\x01k");
        }
        inside = content + 5;
        openings.push(opening);
    }
    openings.reverse();
    [openings.concat(), b"V".to_vec()].concat()
}

/// Generates messages, some of them with arbitrary bytes.
struct Publisher {
    rng: Rng,
    /// Whether the nesting is shallow enough for lapin's recursive parser.
    is_shallow: bool,
}

impl Publisher {
    fn text(&mut self) -> Vec<u8> {
        let longest = if self.rng.u8(..8) == 0 { 255 } else { 36 };
        let length = self.rng.usize(0..=longest);
        let honest = self.rng.u8(..4) > 0;
        (0..length)
            .map(|_| {
                if honest {
                    self.rng.u8(b' '..b'~')
                } else {
                    self.rng.u8(..)
                }
            })
            .collect()
    }

    fn value(&mut self) -> Vec<u8> {
        let rng = &mut self.rng;
        match rng.u8(..12) {
            0..6 => [b"S".to_vec(), long(&self.text())].concat(),
            6 => [b"l".to_vec(), rng.u64(..).to_be_bytes().to_vec()].concat(),
            7 => vec![b't', rng.u8(..)],
            8 => {
                let depth = rng.usize(1..20);
                nested(rng, depth)
            }
            9 if rng.u8(..20) == 0 => {
                self.is_shallow = false;
                let depth = rng.usize(40..5000);
                nested(rng, depth)
            }
            10 if rng.u8(..20) == 0 => {
                let size = rng.usize(100_000..200_000);
                [b"S".to_vec(), long(&vec![b'x'; size])].concat()
            }
            _ => vec![rng.u8(..), rng.u8(..), rng.u8(..)],
        }
    }

    fn table(&mut self) -> Vec<u8> {
        let mut table = Vec::new();
        for _ in 0..self.rng.usize(0..4) {
            let name = match self.rng.u8(..3) {
                0 => self.text(),
                1 => b"x-rpcache-cache".to_vec(),
                _ => b"traceparent".to_vec(),
            };
            table.extend(short(&name));
            table.extend(self.value());
        }
        if self.rng.u8(..10) == 0 {
            table.truncate(self.rng.usize(0..=table.len()));
        }
        table
    }

    /// A content header, and its correlation id if that can be parsed.
    fn header(&mut self, body_size: u64) -> (Vec<u8>, Option<Vec<u8>>) {
        self.is_shallow = true;
        let unused = if self.rng.u8(..30) == 0 {
            self.rng.u16(..4)
        } else {
            0
        };
        let flags = (self.rng.u16(..) & !3) | unused;
        let mut payload = [
            &[0, 60, 0, 0][..],
            &body_size.to_be_bytes(),
            &flags.to_be_bytes(),
        ]
        .concat();
        let mut correlation_id = None;
        for bit in (2..16).rev().filter(|bit| flags & (1 << bit) != 0) {
            match bit {
                13 => payload.extend(long(&self.table())),
                12 | 11 => payload.push(self.rng.u8(..)),
                6 => payload.extend(self.rng.u64(..).to_be_bytes()),
                _ => {
                    let text = self.text();
                    payload.extend(short(&text));
                    if bit == 10 {
                        correlation_id = Some(text);
                    }
                }
            }
        }
        let whole = payload.len();
        if self.rng.u8(..15) == 0 {
            payload.truncate(self.rng.usize(12..=whole));
        }
        let readable = unused == 0 && payload.len() == whole;
        (payload, correlation_id.filter(|_| readable))
    }

    fn deliver(&mut self) -> Vec<u8> {
        [
            vec![0, 60, 0, 60],
            short(&self.text()),
            vec![0; 9],
            short(&self.text()),
            short(&self.text()),
        ]
        .concat()
    }
}

fn correlation_id(frame: &AMQPFrame) -> Option<Vec<u8>> {
    let AMQPFrame::Header(_, header) = frame else {
        return None;
    };
    if let Some(id) = header.properties.correlation_id() {
        return Some(id.as_str().as_bytes().to_vec());
    }
    match header
        .properties
        .headers()
        .as_ref()?
        .inner()
        .get(CORRELATION_BYTES)?
    {
        AMQPValue::LongString(id) => Some(id.as_bytes().to_vec()),
        _ => None,
    }
}

/// One message as received, and the frames that lapin must get for it.
struct Message {
    comes: Vec<Vec<u8>>,
    /// `None`: something else that lapin can parse.
    expected: Vec<Option<Vec<u8>>>,
    correlation_id: Option<Vec<u8>>,
}

fn message(publisher: &mut Publisher) -> Message {
    let channel = publisher.rng.u16(1..4);
    let body = publisher.text();
    let deliver = frame(1, channel, &publisher.deliver());
    let (payload, correlation_id) = publisher.header(body.len() as u64);
    let header = frame(2, channel, &payload);
    let passes = publisher.is_shallow
        && header.len() <= MAX_FRAME as usize
        && payload
            .get(13)
            .is_some_and(|flags| flags.trailing_zeros() >= 2)
        && parsed(&header).is_some();
    let heartbeat = frame(8, 0, &[]);
    let body = frame(3, channel, &body);
    Message {
        expected: vec![
            parsed(&deliver).map(|_| deliver.clone()),
            passes.then(|| header.clone()),
            Some(body.clone()),
            Some(heartbeat.clone()),
        ],
        comes: vec![deliver, header, body, heartbeat],
        correlation_id,
    }
}

#[test]
fn lapin_can_parse_every_filtered_frame_and_parsable_ones_are_unchanged() {
    let (mut frames, mut changed) = (0, 0);
    for seed in 0.. {
        let mut publisher = Publisher {
            rng: Rng::with_seed(seed),
            is_shallow: true,
        };
        let messages: Vec<_> = (0..200).map(|_| message(&mut publisher)).collect();
        let comes: Vec<u8> = messages
            .iter()
            .flat_map(|message| message.comes.concat())
            .collect();
        let read = filtered(seed, &comes).unwrap();
        let mut rest = &read[..];
        for message in messages {
            for expected in message.expected {
                let total = Envelope::read(rest).unwrap().total();
                let (frame, behind) = rest.split_at(total);
                rest = behind;
                frames += 1;
                let Some(expected) = expected else {
                    changed += 1;
                    assert!(frame.len() <= MAX_FRAME as usize, "seed {seed}");
                    let parsed = parsed(frame).expect("lapin can parse it");
                    if matches!(parsed, AMQPFrame::Header(..)) {
                        assert_eq!(
                            correlation_id(&parsed),
                            message.correlation_id,
                            "seed {seed}"
                        );
                    }
                    continue;
                };
                assert!(
                    frame == expected,
                    "seed {seed}: an honest frame was changed"
                );
            }
        }
        assert!(rest.is_empty(), "seed {seed}");
        if frames >= GENERATED {
            break;
        }
    }
    assert!(
        changed > frames / 20 && changed < frames / 2,
        "{changed} of {frames}"
    );
}

#[test]
fn oversized_bodies_are_dropped_and_the_rest_passes() {
    let header = |size: u64| {
        let flags_and_id = [&[0x04, 0][..], &short(b"id")].concat();
        [&[0, 60, 0, 0][..], &size.to_be_bytes(), &flags_and_id].concat()
    };
    let piece = frame(3, 1, &vec![b'x'; 60_000]);
    let other = [frame(1, 2, b"\0\x0a\0\x3d"), frame(8, 0, &[])].concat();
    let size = MAX_BODY + 1;
    let mut comes = frame(2, 1, &header(size));
    let mut left = size;
    while left > 0 {
        let part = left.min(60_000);
        comes.extend_from_slice(&if part == 60_000 {
            piece.clone()
        } else {
            frame(3, 1, &vec![b'x'; usize::try_from(part).unwrap()])
        });
        left -= part;
    }
    let last = frame(3, 1, b"the next message's");
    comes.splice(..0, frame(1, 0, b"\0\x0a\0\x3d"));
    comes.extend_from_slice(&other);
    comes.extend_from_slice(&frame(2, 1, &header(18)));
    comes.extend_from_slice(&last);
    // In chunks like a socket's: one byte at a time would take too long.
    let mut inbound = Inbound::new(MAX_FRAME);
    let mut read = Vec::new();
    for piece in comes.chunks_mut(100_000) {
        let mut bytes = inbound.pending().to_vec();
        bytes.extend_from_slice(piece);
        let judged = inbound.judge_in_place(&mut bytes).unwrap();
        read.extend_from_slice(&bytes[..judged]);
        read.extend_from_slice(inbound.ready());
        inbound.take(inbound.ready().len());
        assert!(inbound.pending().len() < 100);
    }
    let first = frame(1, 0, b"\0\x0a\0\x3d").len();
    let total = Envelope::read(&read[first..]).unwrap().total();
    let Some(AMQPFrame::Header(1, bare)) = parsed(&read[first..first + total]) else {
        panic!("no header");
    };
    assert_eq!(bare.body_size, 0);
    assert_eq!(
        bare.properties.correlation_id().as_ref().unwrap().as_str(),
        "id"
    );
    let headers = bare.properties.headers().as_ref().unwrap().inner();
    assert_eq!(
        headers[OVERSIZED],
        AMQPValue::LongString(size.to_string().into())
    );
    let rest = [other, frame(2, 1, &header(18)), last].concat();
    assert!(read[first + total..] == rest);
}

#[test]
fn headers_of_any_size_are_reduced() {
    for size in [MAX_FRAME as usize, 1 << 20, 1 << 24] {
        let table = [short(b"big"), b"S".to_vec(), long(&vec![b'x'; size])].concat();
        let payload = [
            &[0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x20, 0][..],
            &long(&table),
        ]
        .concat();
        let begin = frame(1, 0, b"\0\x0a\0\x3d");
        let comes = [begin.clone(), frame(2, 1, &payload), frame(8, 0, &[])].concat();
        let read = filtered(1, &comes).unwrap();
        let reduced = &read[begin.len()..read.len() - 8];
        assert!(
            matches!(parsed(reduced), Some(AMQPFrame::Header(1, _))),
            "{size}"
        );
        assert!(reduced.len() < 100);
    }
}

#[test]
fn invalid_frames_end_the_connection_and_other_protocols_pass() {
    let method = frame(1, 0, b"\0\x0a\0\x3d");
    let endless = [1, 0, 0, 0x7f, 0xff, 0xff, 0xff];
    let no_end = [&method[..method.len() - 1], b"x"].concat();
    let unknown = [&method[..], &frame(9, 0, &[])].concat();
    let large_body = [&method[..], &[3, 0, 1, 0x7f, 0xff, 0xff, 0xff]].concat();
    for comes in [&endless[..], &no_end, &unknown, &large_body] {
        let error = filtered(1, comes).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        assert!(
            error.to_string().starts_with("the broker sent a frame"),
            "{error}"
        );
    }
    for foreign in [
        &b"AMQP\0\0\x09\x01"[..],
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"\x15\x03\x03\0\x02\x02\x28",
    ] {
        assert_eq!(filtered(1, foreign).unwrap(), foreign);
    }
}

/// What the broker receives of `writes`, written in chunks of random size.
fn sent(seed: u64, frame_max: u32, writes: &[u8]) -> Vec<u8> {
    let mut frames = Frames::new(Choppy::new(seed, &[]), MAX_FRAME);
    frames.outbound.set_frame_max(frame_max);
    let mut rng = Rng::with_seed(seed);
    run(async {
        let mut rest = writes;
        while !rest.is_empty() {
            let count = if rng.bool() {
                rest.len()
            } else {
                rng.usize(1..=rest.len().min(50))
            };
            let written = frames.write(&rest[..count]).await.unwrap();
            rest = &rest[written..];
            if rng.bool() {
                frames.flush().await.unwrap();
            }
        }
        frames.flush().await.unwrap();
    });
    frames.stream.went
}

#[test]
fn sent_frames_are_unchanged_except_for_correlation_bytes() {
    let mut frames = 0;
    for seed in 0.. {
        let mut publisher = Publisher {
            rng: Rng::with_seed(seed),
            is_shallow: true,
        };
        let mut writes = b"AMQP\0\0\x09\x01".to_vec();
        let mut expected = writes.clone();
        for _ in 0..200 {
            let channel = publisher.rng.u16(1..4);
            let publish = frame(1, channel, &publisher.deliver());
            let body = publisher.text();
            let size = (body.len() as u64).to_be_bytes();
            let body = frame(3, channel, &body);
            let id = publisher.text();
            let reply = |flags: u16, properties: &[u8]| {
                let payload =
                    [&[0, 60, 0, 0][..], &size, &flags.to_be_bytes(), properties].concat();
                frame(2, channel, &payload)
            };
            let source = [short(b"x-rpcache-source"), b"S".to_vec(), long(b"cache")].concat();
            let (written, on_the_wire) = if publisher.rng.bool() {
                let bytes = [
                    short(CORRELATION_BYTES.as_bytes()),
                    b"S".to_vec(),
                    long(&id),
                ]
                .concat();
                let both = [bytes, source.clone()].concat();
                (
                    reply(0x2000, &long(&both)),
                    reply(0x2400, &[long(&source), short(&id)].concat()),
                )
            } else {
                let plain = reply(0x2400, &[long(&source), short(&id)].concat());
                (plain.clone(), plain)
            };
            frames += 3;
            writes.extend([&publish[..], &written, &body].concat());
            expected.extend([&publish[..], &on_the_wire, &body].concat());
        }
        assert!(sent(seed, MAX_FRAME, &writes) == expected, "seed {seed}");
        if frames >= GENERATED {
            break;
        }
    }
}

#[test]
fn a_broker_with_smaller_frames_than_lapin_agrees_to_gets_smaller_frames() {
    let tune_ok = |frame_max: u32| {
        frame(
            1,
            0,
            &[
                &[0, 10, 0, 31, 7, 255][..],
                &frame_max.to_be_bytes(),
                &[0, 60],
            ]
            .concat(),
        )
    };
    let body: Vec<u8> = (0..8184_u32).map(|n| n.to_le_bytes()[0]).collect();
    let begin = b"AMQP\0\0\x09\x01".to_vec();
    let writes = [
        begin.clone(),
        tune_ok(8192),
        frame(3, 1, &body),
        frame(8, 0, &[]),
    ]
    .concat();
    for seed in 0..100 {
        for frame_max in [4096, 5000, 8191] {
            let parts = body
                .chunks(frame_max as usize - 8)
                .map(|part| frame(3, 1, part));
            let parts = parts.collect::<Vec<_>>().concat();
            let expected = [begin.clone(), tune_ok(frame_max), parts, frame(8, 0, &[])].concat();
            assert!(
                sent(seed, frame_max, &writes) == expected,
                "seed {seed}, {frame_max}"
            );
        }
        assert!(sent(seed, 8192, &writes) == writes, "seed {seed}");
    }
}
