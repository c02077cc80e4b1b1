//! A connected stream: TCP, a Unix socket, or TLS over TCP.

use std::io;
use std::net::{IpAddr, Shutdown, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};

use socket2::{SockRef, Socket};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
#[cfg(unix)]
use tokio::net::UnixStream;
use tokio::time::Instant;
#[cfg(feature = "tls")]
use tokio::time::timeout_at;
#[cfg(feature = "tls")]
use tokio_rustls::client::TlsStream;

use super::Fault;
#[cfg(feature = "tls")]
use crate::tls::HandshakeError;
use crate::tls::{Tls, TlsFault};

/// A connected stream that remembers the first fault of TLS.
#[derive(Debug)]
pub(crate) struct Stream {
    inner: Inner,
    late_fault: LateFault,
}

#[derive(Debug)]
enum Inner {
    Plain(TcpStream),
    #[cfg(unix)]
    Unix(UnixStream),
    #[cfg(feature = "tls")]
    Tls(Box<TlsStream<TcpStream>>, Tls),
}

/// Holds the first fault of TLS after the handshake. Clones share it.
///
/// lapin and redis-rs discard the cause of I/O errors, and a server that requires a client certificate reports
/// that only after the client has finished its side of the handshake.
#[derive(Debug, Clone, Default)]
pub(crate) struct LateFault(Arc<OnceLock<TlsFault>>);

/// Shuts a stream down when dropped, unless released.
///
/// For a library that keeps a stream: lapin's I/O thread waits for a silent server even after the login was
/// cancelled.
#[derive(Debug)]
pub(crate) struct ShutdownOnDrop(Option<Socket>);

impl Stream {
    pub(crate) fn plain(stream: TcpStream) -> Self {
        Self {
            inner: Inner::Plain(stream),
            late_fault: LateFault::default(),
        }
    }

    #[cfg(unix)]
    pub(super) fn unix(stream: UnixStream) -> Self {
        Self {
            inner: Inner::Unix(stream),
            late_fault: LateFault::default(),
        }
    }

    /// Starts TLS on a plain TCP stream that is still unused. Leaves other streams as they are.
    #[cfg(feature = "tls")]
    pub(crate) async fn encrypted(
        self,
        host: &str,
        tls: &Tls,
        deadline: Instant,
    ) -> Result<Self, Fault> {
        let Inner::Plain(stream) = self.inner else {
            return Ok(self);
        };
        let encrypted = timeout_at(deadline, tls.handshake(host, stream)).await;
        let encrypted = match encrypted {
            Ok(Ok(encrypted)) => encrypted,
            Ok(Err(HandshakeError::Lost(error))) => return Err(Fault::Handshake(error)),
            Ok(Err(HandshakeError::Fault(fault))) => return Err(Fault::Tls(fault)),
            Err(_elapsed) => return Err(Fault::Handshake(io::ErrorKind::TimedOut.into())),
        };
        Ok(Self {
            inner: Inner::Tls(Box::new(encrypted), tls.clone()),
            late_fault: self.late_fault,
        })
    }

    #[cfg(not(feature = "tls"))]
    #[expect(clippy::unused_async, reason = "same signature as with the feature")]
    pub(crate) async fn encrypted(self, _: &str, tls: &Tls, _: Instant) -> Result<Self, Fault> {
        match *tls {}
    }

    pub(crate) fn late_fault(&self) -> LateFault {
        self.late_fault.clone()
    }

    /// Disables Nagle's algorithm: small writes are sent at once.
    pub(crate) fn set_nodelay(&self) -> io::Result<()> {
        match self.tcp() {
            Some(stream) => stream.set_nodelay(true),
            None => Ok(()),
        }
    }

    /// A guard that shuts this stream down when the attempt that uses it is dropped.
    pub(crate) fn shutdown_on_drop(&self) -> io::Result<ShutdownOnDrop> {
        let socket = self.socket().try_clone()?;
        Ok(ShutdownOnDrop(Some(socket)))
    }

    /// The peer's address; `None` for a Unix socket.
    pub(crate) fn peer(&self) -> Option<SocketAddr> {
        self.tcp()?.peer_addr().ok()
    }

    fn tcp(&self) -> Option<&TcpStream> {
        match &self.inner {
            Inner::Plain(stream) => Some(stream),
            #[cfg(unix)]
            Inner::Unix(_) => None,
            #[cfg(feature = "tls")]
            Inner::Tls(stream, _) => Some(stream.get_ref().0),
        }
    }

    fn socket(&self) -> SockRef<'_> {
        match &self.inner {
            Inner::Plain(stream) => stream.into(),
            #[cfg(unix)]
            Inner::Unix(stream) => stream.into(),
            #[cfg(feature = "tls")]
            Inner::Tls(stream, _) => stream.get_ref().0.into(),
        }
    }

    /// The protocol, such as `TLS 1.3`; `None`: plain text.
    pub(crate) fn protocol(&self) -> Option<&'static str> {
        match &self.inner {
            Inner::Plain(_) => None,
            #[cfg(unix)]
            Inner::Unix(_) => None,
            #[cfg(feature = "tls")]
            Inner::Tls(stream, _) => Some(match stream.get_ref().1.protocol_version() {
                Some(rustls::ProtocolVersion::TLSv1_2) => "TLS 1.2",
                Some(rustls::ProtocolVersion::TLSv1_3) => "TLS 1.3",
                _ => "TLS",
            }),
        }
    }

    /// Whether the server runs on this machine: then both ends of the connection have the same address.
    pub(crate) fn is_local(&self) -> bool {
        let Some(stream) = self.tcp() else {
            return true;
        };
        match (stream.local_addr(), stream.peer_addr()) {
            (Ok(here), Ok(there)) => is_one_machine(here.ip(), there.ip()),
            _ => false,
        }
    }

    /// Remembers the fault of TLS that caused an error, if one did.
    fn record_fault(&self, error: &io::Error) {
        #[cfg(feature = "tls")]
        if let Inner::Tls(_, tls) = &self.inner
            && let Some(fault) = TlsFault::of(error, tls.side())
        {
            self.late_fault.0.get_or_init(|| fault);
        }
        #[cfg(not(feature = "tls"))]
        let _ = (self, error);
    }

    /// Delays an error of writing until the stream is read to its end: the peer's last bytes may hold the TLS
    /// alert that explains the error. Ends, because a stream that cannot be written is at its end when read.
    fn after_write<T>(
        &mut self,
        cx: &mut Context<'_>,
        polled: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if matches!(polled, Poll::Ready(Err(_))) && self.protocol().is_some() {
            ready!(self.read_to_end(cx));
        }
        polled
    }

    fn read_to_end(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut bytes = [0; 64];
        loop {
            let mut buffer = ReadBuf::new(&mut bytes);
            let read = ready!(Pin::new(&mut *self).poll_read(cx, &mut buffer));
            if read.is_err() || buffer.filled().is_empty() {
                return Poll::Ready(());
            }
        }
    }
}

impl LateFault {
    pub(crate) fn fault(&self) -> Option<TlsFault> {
        self.0.get().cloned()
    }
}

impl ShutdownOnDrop {
    /// Disarms the guard.
    pub(crate) fn release(mut self) {
        self.0 = None;
    }
}

impl Drop for ShutdownOnDrop {
    fn drop(&mut self) {
        if let Some(socket) = &self.0 {
            // Fails if the connection is closed already.
            let _ = socket.shutdown(Shutdown::Both);
        }
    }
}

fn is_one_machine(here: IpAddr, there: IpAddr) -> bool {
    let (here, there) = (here.to_canonical(), there.to_canonical());
    there.is_loopback() || here == there
}

macro_rules! on_inner {
    ($self:ident, |$stream:ident| $polled:expr) => {
        match &mut $self.inner {
            Inner::Plain($stream) => {
                let $stream = Pin::new($stream);
                $polled
            }
            #[cfg(unix)]
            Inner::Unix($stream) => {
                let $stream = Pin::new($stream);
                $polled
            }
            #[cfg(feature = "tls")]
            Inner::Tls($stream, _) => {
                let $stream = Pin::new(&mut **$stream);
                $polled
            }
        }
    };
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let polled = on_inner!(self, |stream| stream.poll_read(cx, buffer));
        if let Poll::Ready(Err(error)) = &polled {
            self.record_fault(error);
        }
        polled
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = on_inner!(self, |stream| stream.poll_write(cx, bytes));
        self.after_write(cx, polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = on_inner!(self, |stream| stream.poll_write_vectored(cx, parts));
        self.after_write(cx, polled)
    }

    fn is_write_vectored(&self) -> bool {
        match &self.inner {
            Inner::Plain(stream) => stream.is_write_vectored(),
            #[cfg(unix)]
            Inner::Unix(stream) => stream.is_write_vectored(),
            #[cfg(feature = "tls")]
            Inner::Tls(stream, _) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = on_inner!(self, |stream| stream.poll_flush(cx));
        self.after_write(cx, polled)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        on_inner!(self, |stream| stream.poll_shutdown(cx))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_between_own_addresses_is_local() {
        for (here, there, same) in [
            ("127.0.0.1", "127.0.0.1", true),
            ("127.0.0.1", "127.0.1.1", true),
            ("::1", "::1", true),
            ("::ffff:127.0.0.1", "::ffff:127.0.0.1", true),
            ("10.0.0.1", "10.0.0.1", true),
            ("10.0.0.1", "10.0.0.2", false),
            ("fe80::1", "fe80::2", false),
        ] {
            let address = |text: &str| text.parse().unwrap();
            assert_eq!(
                is_one_machine(address(here), address(there)),
                same,
                "{there}"
            );
        }
    }
}
