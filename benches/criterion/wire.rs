//! The cost of the filter for AMQP frames for an ordinary message, in each direction: with and without it.

use std::hint::black_box;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use criterion::{Criterion, Throughput};
use futures_util::task::noop_waker_ref;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::broker::frames::{Frames, MAX_FRAME};

/// The number of messages of one measurement.
const MESSAGES: usize = 1000;

/// The maximum of one read or write of the socket, as with a busy connection.
const PIECE: usize = 64 * 1024;

/// A socket that always has data to read, and accepts every write.
struct Socket {
    bytes: Vec<u8>,
    at: usize,
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let end = self
            .bytes
            .len()
            .min(self.at + PIECE.min(buffer.remaining()));
        buffer.put_slice(&self.bytes[self.at..end]);
        self.at = end;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let count = bytes.len().min(PIECE);
        let at = self.at;
        self.bytes[at..at + count].copy_from_slice(&bytes[..count]);
        self.at += count;
        Poll::Ready(Ok(count))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&[kind, 0, 1], &length[..], payload, b"\xce"].concat()
}

/// The bytes of a delivery to a client, with our headers; those of a publish are similar.
fn message(body: &[u8]) -> Vec<u8> {
    let short = |text: &str| [&[u8::try_from(text.len()).unwrap()], text.as_bytes()].concat();
    let header = |name: &str, value: &str| {
        let length = u32::try_from(value.len()).unwrap().to_be_bytes();
        [&short(name)[..], b"S", &length, value.as_bytes()].concat()
    };
    let queue = short("amq.gen-0123456789abcdefghijkl");
    let tag = short("amq.ctag-0123456789abcdefghijkl");
    let deliver = [b"\0\x3c\0\x3c", &tag[..], &[0; 9], b"\0", &queue].concat();
    let headers = [
        header("x-rpcache-source", "computed"),
        header("x-rpcache-filled", "true"),
    ]
    .concat();
    let length = u32::try_from(headers.len()).unwrap().to_be_bytes();
    let id = short("01234567-89ab-cdef-0123-456789abcdef");
    let size = (body.len() as u64).to_be_bytes();
    let properties = [&[0x24, 0][..], &length, &headers, &id].concat();
    let content = [b"\0\x3c\0\0", &size[..], &properties].concat();
    [frame(1, &deliver), frame(2, &content), frame(3, body)].concat()
}

fn read_all<S: AsyncRead + Unpin>(mut stream: S, buffer: &mut [u8]) -> usize {
    let mut cx = Context::from_waker(noop_waker_ref());
    let mut total = 0;
    loop {
        let mut buffer = ReadBuf::new(buffer);
        let polled = Pin::new(&mut stream).poll_read(&mut cx, &mut buffer);
        assert!(matches!(polled, Poll::Ready(Ok(()))));
        match buffer.filled().len() {
            0 => return total,
            count => total += count,
        }
    }
}

fn write_all<S: AsyncWrite + Unpin>(mut stream: S, mut bytes: &[u8]) {
    let mut cx = Context::from_waker(noop_waker_ref());
    while !bytes.is_empty() {
        match Pin::new(&mut stream).poll_write(&mut cx, bytes) {
            Poll::Ready(Ok(count)) => bytes = &bytes[count..],
            other => panic!("{other:?}"),
        }
    }
}

pub(crate) fn measure(criterion: &mut Criterion) {
    for (name, body) in [
        ("of 6 bytes", vec![b'8'; 6]),
        ("of 20 kB", vec![b'8'; 20_000]),
    ] {
        let mut group = criterion.benchmark_group(format!("{MESSAGES} messages {name}"));
        let bytes = message(&body).repeat(MESSAGES);
        group.throughput(Throughput::Elements(MESSAGES as u64));
        let mut buffer = vec![0; 32 * 131_072];
        let socket = || Socket {
            bytes: bytes.clone(),
            at: 0,
        };
        group.bench_function("read", |bencher| {
            bencher.iter_batched(
                socket,
                |s| read_all(s, black_box(&mut buffer)),
                criterion::BatchSize::LargeInput,
            );
        });
        group.bench_function("read through the filter", |bencher| {
            bencher.iter_batched(
                socket,
                |s| read_all(Frames::new(s, MAX_FRAME), black_box(&mut buffer)),
                criterion::BatchSize::LargeInput,
            );
        });
        // A connection begins with a protocol header, which is not a frame.
        let writes = [b"AMQP\0\0\x09\x01", &bytes[..]].concat();
        let taking = || Socket {
            bytes: vec![0; writes.len()],
            at: 0,
        };
        group.bench_function("write", |bencher| {
            bencher.iter_batched(
                taking,
                |s| write_all(s, black_box(&writes)),
                criterion::BatchSize::LargeInput,
            );
        });
        group.bench_function("write through the filter", |bencher| {
            bencher.iter_batched(
                taking,
                |s| write_all(Frames::new(s, MAX_FRAME), black_box(&writes)),
                criterion::BatchSize::LargeInput,
            );
        });
        group.finish();
    }
}
