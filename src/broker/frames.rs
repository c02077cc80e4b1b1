//! Filters AMQP frames between the stream and lapin.
//!
//! RabbitMQ forwards what any publisher sent: text that is not UTF-8, tables nested thousands deep, content
//! headers that exceed the agreed frame size after dead-lettering. Each of them makes lapin close the connection,
//! or overflow the stack. The filter rewrites such frames, see [`properties`]. It also limits frame sizes: lapin
//! accepts any size that a broker offers, allocates 64 times as much, and never agrees to less than 8,192 bytes.

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

/// The largest frame that is requested and accepted, in bytes: RabbitMQ's default. Only content headers may be
/// larger.
pub(crate) const MAX_FRAME: u32 = 131_072;

/// The largest body that is accepted, in bytes: RabbitMQ 3's default limit. A larger body is dropped from its
/// message, see [`properties::OVERSIZED`].
pub(crate) const MAX_BODY: u64 = 128 * 1024 * 1024;

/// Bytes of a write that are scanned at once. lapin's buffer may hold megabytes, of which a socket accepts only a
/// part.
const LOOK_AHEAD: usize = 256 * 1024;

/// A stream with the filter in both directions.
#[derive(Debug)]
pub(crate) struct Frames<S> {
    stream: S,
    inbound: Inbound,
    outbound: Outbound,
}

/// The header of a frame: type, channel and size of the payload.
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
    /// The byte after the payload.
    const END: u8 = 0xce;
    /// Bytes before the payload; and with the byte after it.
    const SIZE: usize = 7;
    const OVERHEAD: usize = Self::SIZE + 1;

    /// Parses the header; `None` if it is incomplete.
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

    /// The payload of the frame at the start of `bytes`; `None` if it is incomplete.
    fn payload(self, bytes: &[u8]) -> Option<&[u8]> {
        bytes.get(..self.total())?.get(Self::SIZE..self.total() - 1)
    }

    /// A frame of the same kind and channel with another payload.
    fn frame(self, payload: &[u8]) -> Vec<u8> {
        let mut frame = Vec::with_capacity(payload.len() + Self::OVERHEAD);
        frame.push(self.kind);
        frame.extend_from_slice(&self.channel.to_be_bytes());
        // Never longer than a frame that was read, whose length has 32 bits.
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
    /// Reads into lapin's buffer, after the start of a frame that was read before.
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
        // Initialised: it was just filled.
        let bytes = &mut buffer.initialized_mut()[start..read_to];
        let judged = self.inbound.judge_in_place(bytes)?;
        buffer.set_filled(start + judged);
        Poll::Ready(Ok(Read::Some))
    }

    /// Reads into a buffer of its own, because the incomplete frame does not fit lapin's buffer.
    fn poll_read_separately(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Read>> {
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
                ready!(this.poll_read_separately(cx))?
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
            // Written at the latest by the flush that lapin requests after each write.
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
        // A peer that does not read cannot receive the rest: not waited for.
        let _ = self.poll_write_ready(cx)?;
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
