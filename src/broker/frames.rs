//! A filter for AMQP frames, between our stream and lapin.
//!
//! RabbitMQ passes on what any publisher sent: text that is not UTF-8, tables nested thousands deep,
//! content headers that outgrew the agreed frame size when a message was dead-lettered. lapin ends the
//! connection over each of them, or the process. So nothing of that kind reaches it: see [`properties`]
//! for what becomes of a message. The filter also holds frame sizes to what both sides can: lapin would
//! take any size that a broker offers, allocate 64 times as much, and never agree to less than 8,192.

mod inbound;
mod methods;
mod outbound;
pub(crate) mod properties;
mod table;
#[cfg(test)]
mod tests;

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use self::inbound::Inbound;
use self::outbound::Outbound;

/// The largest frame that is asked for and taken, in bytes: RabbitMQ's own default. Content headers
/// alone may be larger.
pub(crate) const MAX_FRAME: u32 = 131_072;

/// The largest body that is taken, in bytes: what RabbitMQ 3 lets through by default. A message with a
/// larger one comes without it, see [`properties::OVERSIZED`].
pub(crate) const MAX_BODY: u64 = 128 * 1024 * 1024;

/// Bytes of a write that are looked at, at most. lapin's buffer may hold megabytes, of which a socket takes a
/// part at a time.
const LOOK_AHEAD: usize = 256 * 1024;

/// A stream with the filter in both directions.
#[derive(Debug)]
pub(crate) struct Frames<S> {
    stream: S,
    inbound: Inbound,
    outbound: Outbound,
}

/// What stands before a frame's payload.
#[derive(Debug, Clone, Copy)]
struct Envelope {
    kind: u8,
    channel: u16,
    size: usize,
}

impl Envelope {
    const METHOD: u8 = 1;
    const HEADER: u8 = 2;
    const BODY: u8 = 3;
    const HEARTBEAT: u8 = 8;
    /// The byte behind the payload.
    const END: u8 = 0xce;
    /// Bytes before the payload, and before and behind it.
    const SIZE: usize = 7;
    const OVERHEAD: usize = Self::SIZE + 1;

    /// `None`: not all of it is there.
    fn read(bytes: &[u8]) -> Option<Self> {
        let &[kind, c0, c1, s0, s1, s2, s3] = bytes.first_chunk::<{ Self::SIZE }>()?;
        Some(Self {
            kind,
            channel: u16::from_be_bytes([c0, c1]),
            size: u32::from_be_bytes([s0, s1, s2, s3]) as usize,
        })
    }

    fn total(self) -> usize {
        self.size.saturating_add(Self::OVERHEAD)
    }

    /// Of the frame that the bytes begin with; `None`: not all of it is there.
    fn payload(self, bytes: &[u8]) -> Option<&[u8]> {
        bytes.get(..self.total())?.get(Self::SIZE..self.total() - 1)
    }

    /// A frame of the same kind and channel with another payload.
    fn frame(self, payload: &[u8]) -> Vec<u8> {
        let mut frame = Vec::with_capacity(payload.len() + Self::OVERHEAD);
        frame.push(self.kind);
        frame.extend_from_slice(&self.channel.to_be_bytes());
        // Not longer than what was read, which had a length of 32 bits.
        frame.extend_from_slice(&u32::try_from(payload.len()).unwrap_or(0).to_be_bytes());
        frame.extend_from_slice(payload);
        frame.push(Self::END);
        frame
    }
}

fn broken(what: &str) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("the broker sent {what}"),
    )
}

impl<S> Frames<S> {
    /// `frame_max` is the frame size that lapin asks for, [`MAX_FRAME`] at most.
    pub(crate) fn new(stream: S, frame_max: u32) -> Self {
        Self {
            stream,
            inbound: Inbound::new(frame_max),
            outbound: Outbound::new(frame_max),
        }
    }
}

impl<S: AsyncRead + Unpin> Frames<S> {
    /// Reads into lapin's own buffer, behind the beginning of a frame that came before.
    fn poll_read_in_place(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<Read>> {
        let start = buffer.filled().len();
        buffer.put_slice(self.inbound.pending());
        let read_from = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buffer);
        let read_to = buffer.filled().len();
        buffer.set_filled(start);
        ready!(polled)?;
        if read_to == read_from {
            return Poll::Ready(Ok(Read::End));
        }
        // All of it is initialised: it was filled a moment ago.
        let bytes = &mut buffer.initialized_mut()[start..read_to];
        let judged = self.inbound.judge_in_place(bytes)?;
        buffer.set_filled(start + judged);
        Poll::Ready(Ok(Read::Some))
    }

    /// Reads apart, since the frame that has begun does not fit lapin's buffer.
    fn poll_read_apart(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Read>> {
        let mut bytes = [0; 4096];
        let mut buffer = ReadBuf::new(&mut bytes);
        ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buffer))?;
        if buffer.filled().is_empty() {
            return Poll::Ready(Ok(Read::End));
        }
        self.inbound.judge_more(buffer.filled())?;
        Poll::Ready(Ok(Read::Some))
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Read {
    Some,
    End,
}

impl<S: AsyncRead + Unpin> AsyncRead for Frames<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let start = buffer.filled().len();
        while buffer.remaining() > 0 {
            let ready = this.inbound.ready();
            if !ready.is_empty() {
                let count = ready.len().min(buffer.remaining());
                buffer.put_slice(&ready[..count]);
                this.inbound.take(count);
                break;
            }
            let read = if this.inbound.pending().len() < buffer.remaining() {
                ready!(this.poll_read_in_place(cx, buffer))?
            } else {
                ready!(this.poll_read_apart(cx))?
            };
            this.outbound.set_frame_max(this.inbound.frame_max());
            if read == Read::End || buffer.filled().len() > start {
                break;
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> Frames<S> {
    fn poll_write_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.outbound.ready().is_empty() {
            let written = ready!(Pin::new(&mut self.stream).poll_write(cx, self.outbound.ready()))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.outbound.wrote_ready(written);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Frames<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        ready!(this.poll_write_ready(cx))?;
        let bytes = &bytes[..bytes.len().min(LOOK_AHEAD)];
        let unchanged = this.outbound.unchanged(bytes);
        if unchanged == 0 {
            // Written by the flush that lapin asks for after each write, at the latest.
            return Poll::Ready(Ok(this.outbound.take(bytes)));
        }
        let written = ready!(Pin::new(&mut this.stream).poll_write(cx, &bytes[..unchanged]))?;
        this.outbound.wrote(bytes, written);
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_write_ready(cx))?;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // A peer that reads no more cannot be told the rest.
        let _ = self.poll_write_ready(cx)?;
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
