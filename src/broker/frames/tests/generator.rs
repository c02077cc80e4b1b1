//! The generator of the tests: a stream that reads and writes in random chunks, and messages, valid and
//! hostile, with the frames that lapin must get for them.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use amq_protocol::frame::{AMQPFrame, parse_frame};
use amq_protocol::types::AMQPValue;
use fastrand::Rng;
use futures_util::FutureExt as _;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};

use super::super::properties::CORRELATION_BYTES;
use super::super::{Envelope, Frames, MAX_FRAME};

/// A stream that reads and writes chunks of random size, and is sometimes not ready.
pub(super) struct ChoppyStream {
    pub(super) rng: Rng,
    incoming: VecDeque<u8>,
    pub(super) outgoing: Vec<u8>,
    /// Whether it was not ready the last time.
    waited: bool,
}

impl ChoppyStream {
    pub(super) fn new(seed: u64, incoming: &[u8]) -> Self {
        Self {
            rng: Rng::with_seed(seed),
            incoming: incoming.iter().copied().collect(),
            outgoing: Vec::new(),
            waited: false,
        }
    }

    /// The size of the next chunk.
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

impl AsyncRead for ChoppyStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let piece = ready!(self.piece(cx)).min(buffer.remaining());
        let count = piece.min(self.incoming.len());
        let bytes: Vec<u8> = self.incoming.drain(..count).collect();
        buffer.put_slice(&bytes);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for ChoppyStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let count = ready!(self.piece(cx)).min(bytes.len());
        self.outgoing.extend_from_slice(&bytes[..count]);
        Poll::Ready(Ok(count))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Runs a future that waits for a [`ChoppyStream`] only.
pub(super) fn run<T>(future: impl Future<Output = T>) -> T {
    let mut future = Box::pin(future);
    loop {
        if let Some(output) = future.as_mut().now_or_never() {
            return output;
        }
    }
}

/// Filters `incoming`, read in buffers of random size.
pub(super) fn filtered(seed: u64, incoming: &[u8]) -> io::Result<Vec<u8>> {
    let mut frames = Frames::new(ChoppyStream::new(seed, incoming), MAX_FRAME);
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

pub(super) fn frame(kind: u8, channel: u16, payload: &[u8]) -> Vec<u8> {
    let envelope = Envelope {
        kind,
        channel,
        size: payload.len(),
    };
    envelope.frame(payload)
}

pub(super) fn parsed(bytes: &[u8]) -> Option<AMQPFrame> {
    match parse_frame(bytes) {
        Ok(([], frame)) => Some(frame),
        _ => None,
    }
}

pub(super) fn short(bytes: &[u8]) -> Vec<u8> {
    let mut short = vec![u8::try_from(bytes.len()).unwrap()];
    short.extend_from_slice(bytes);
    short
}

pub(super) fn long(bytes: &[u8]) -> Vec<u8> {
    let mut long = u32::try_from(bytes.len()).unwrap().to_be_bytes().to_vec();
    long.extend_from_slice(bytes);
    long
}

/// Nested arrays or tables.
fn nested(rng: &mut Rng, depth: usize) -> Vec<u8> {
    let tables = rng.bool();
    // From the inside out, each with the length of its content.
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
pub(super) struct Publisher {
    pub(super) rng: Rng,
    /// Whether the nesting is shallow enough for lapin's recursive parser.
    pub(super) is_shallow: bool,
}

impl Publisher {
    pub(super) fn text(&mut self) -> Vec<u8> {
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
    pub(super) fn header(&mut self, body_size: u64) -> (Vec<u8>, Option<Vec<u8>>) {
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

    pub(super) fn deliver(&mut self) -> Vec<u8> {
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

pub(super) fn correlation_id(frame: &AMQPFrame) -> Option<Vec<u8>> {
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
pub(super) struct Message {
    pub(super) incoming: Vec<Vec<u8>>,
    /// `None`: the filter changes it into another frame that lapin can parse.
    pub(super) expected: Vec<Option<Vec<u8>>>,
    pub(super) correlation_id: Option<Vec<u8>>,
}

pub(super) fn message(publisher: &mut Publisher) -> Message {
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
        incoming: vec![deliver, header, body, heartbeat],
        correlation_id,
    }
}
