//! The stream under redis-rs: checks every byte that is read, and notes how the connection ends and what the
//! server refuses.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::connection::Health;
use super::resp::{Checker, Limits};
use crate::transport;

/// A stream that is checked while it is read. Errors and the end are left in [`Health`].
pub(super) struct Guarded<S> {
    stream: S,
    checker: Checker,
    health: Arc<Health>,
}

impl<S> Guarded<S> {
    pub(super) fn new(stream: S, limits: Limits, health: Arc<Health>) -> Self {
        Self {
            stream,
            checker: Checker::new(limits),
            health,
        }
    }

    /// Checks bytes that were just read; how many of them redis-rs may see.
    fn check(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let checked = self.checker.check(bytes);
        if let Some(line) = self.checker.take_refusal() {
            self.health.refused(&line);
        }
        checked.map_err(|violation| {
            self.health.ends(|| violation.to_string());
            // redis-rs takes an error of this kind for the end of the connection.
            io::Error::new(io::ErrorKind::ConnectionAborted, violation.to_string())
        })
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Guarded<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        // Reads again if all of it belongs to a string that is dropped.
        loop {
            let read = ready!(Pin::new(&mut self.stream).poll_read(cx, buffer));
            read.inspect_err(|error| self.health.ends(|| transport::describe(error)))?;
            let came = &mut buffer.filled_mut()[before..];
            if came.is_empty() {
                self.health.ends(|| CLOSED.to_owned());
                return Poll::Ready(Ok(()));
            }
            let kept = self.check(came)?;
            buffer.set_filled(before + kept);
            if kept > 0 {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

/// The usual end of a connection.
pub(super) const CLOSED: &str = "the connection was closed by the other side";

impl<S: AsyncWrite + Unpin> AsyncWrite for Guarded<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
