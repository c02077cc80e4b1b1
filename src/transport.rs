//! Streams to the servers: plain where the address says so, else TLS, and nothing in between.
//!
//! Both servers are connected to here, so that a fault of TLS is told in the same words for both, and so
//! that the deadlines cover the handshake. [`crate::broker`] and [`crate::cache`] put their libraries on
//! top of the stream.

use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
#[cfg(feature = "tls")]
use tokio_rustls::client::TlsStream;
use tracing::warn;

use crate::error::quote;
use crate::tls::{Tls, TlsFault};

/// Why there is no stream.
#[derive(Debug)]
#[cfg_attr(not(feature = "tls"), expect(dead_code, reason = "nobody speaks TLS"))]
pub(crate) enum Fault {
    /// The host is not there, or does not listen.
    Connecting(io::Error),
    /// It was there, and was lost or silent while TLS began.
    Handshake(io::Error),
    /// Somebody has to correct something.
    Tls(TlsFault),
}

/// A connected stream.
#[derive(Debug)]
pub(crate) struct Stream {
    inner: Inner,
    heard: Heard,
}

#[derive(Debug)]
enum Inner {
    Plain(TcpStream),
    #[cfg(feature = "tls")]
    Tls(Box<TlsStream<TcpStream>>, Tls),
}

/// What TLS has said on a stream since the handshake. Kept apart, since the libraries on top of it lose
/// the reasons of errors: a server that wants a certificate says so after its side of the handshake.
#[derive(Debug, Clone, Default)]
pub(crate) struct Heard(Arc<OnceLock<TlsFault>>);

/// Whether it was said already that what goes to an address can be read on the way: once for all who
/// share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct PlainTextWarning(Arc<AtomicBool>);

/// Connects to one host, by TLS if there is any to speak, before the deadline. Cancel safe.
pub(crate) async fn connect(
    host: &str,
    port: u16,
    tls: Option<&Tls>,
    deadline: Instant,
) -> Result<Stream, Fault> {
    let connected = timeout_at(deadline, TcpStream::connect((host, port))).await;
    let stream = connected
        .unwrap_or_else(|_elapsed| Err(io::ErrorKind::TimedOut.into()))
        .map_err(Fault::Connecting)?;
    let stream = Stream::plain(stream);
    match tls {
        None => Ok(stream),
        Some(tls) => stream.encrypted(host, tls, deadline).await,
    }
}

/// Whether a server that has closed a plain connection without a word speaks TLS there, found out by a
/// greeting that says nothing else. For a better word on what failed; nothing is sent by it.
pub(crate) async fn expects_tls(host: &str, port: u16, deadline: Instant) -> bool {
    // A client hello of TLS 1.2 that offers nothing: who speaks TLS answers by an alert, in a record.
    const HELLO: &[u8] = b"\x16\x03\x01\x00\x2d\x01\x00\x00\x29\x03\x03\
        rpcache asks: is TLS spoken here\x00\x00\x02\x00\xff\x01\x00";
    let asked = async {
        let mut stream = TcpStream::connect((host, port)).await?;
        stream.write_all(HELLO).await?;
        let mut record = [0; 2];
        stream.read_exact(&mut record).await?;
        io::Result::Ok(matches!(record, [0x15 | 0x16, 3]))
    };
    matches!(timeout_at(deadline, asked).await, Ok(Ok(true)))
}

impl Stream {
    pub(crate) fn plain(stream: TcpStream) -> Self {
        Self {
            inner: Inner::Plain(stream),
            heard: Heard::default(),
        }
    }

    /// Goes on by TLS on a plain stream on which nothing was said yet.
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
        let shaken = timeout_at(deadline, tls.handshake(host, stream)).await;
        let late = |_elapsed| Err(Fault::Handshake(io::ErrorKind::TimedOut.into()));
        Ok(Self {
            inner: Inner::Tls(Box::new(shaken.unwrap_or_else(late)?), tls.clone()),
            heard: self.heard,
        })
    }

    #[cfg(not(feature = "tls"))]
    #[expect(clippy::unused_async, reason = "as with the feature")]
    pub(crate) async fn encrypted(self, _: &str, tls: &Tls, _: Instant) -> Result<Self, Fault> {
        match *tls {}
    }

    pub(crate) fn heard(&self) -> Heard {
        self.heard.clone()
    }

    /// Sends small writes at once.
    pub(crate) fn set_nodelay(&self) -> io::Result<()> {
        self.tcp().set_nodelay(true)
    }

    fn tcp(&self) -> &TcpStream {
        match &self.inner {
            Inner::Plain(stream) => stream,
            #[cfg(feature = "tls")]
            Inner::Tls(stream, _) => stream.get_ref().0,
        }
    }

    /// `TLS 1.3`; `None`: nothing is encrypted.
    pub(crate) fn protocol(&self) -> Option<&'static str> {
        match &self.inner {
            Inner::Plain(_) => None,
            #[cfg(feature = "tls")]
            Inner::Tls(stream, _) => Some(match stream.get_ref().1.protocol_version() {
                Some(rustls::ProtocolVersion::TLSv1_2) => "TLS 1.2",
                Some(rustls::ProtocolVersion::TLSv1_3) => "TLS 1.3",
                _ => "TLS",
            }),
        }
    }

    /// Whether the server is this machine: then both ends of a connection have one address.
    pub(crate) fn stays_here(&self) -> bool {
        match (self.tcp().local_addr(), self.tcp().peer_addr()) {
            (Ok(here), Ok(there)) => is_one_machine(here.ip(), there.ip()),
            _ => false,
        }
    }

    /// Keeps what an error has to say of TLS.
    fn note(&self, error: &io::Error) {
        #[cfg(feature = "tls")]
        if let Inner::Tls(_, tls) = &self.inner
            && let Some(fault) = TlsFault::of(error, tls.side())
        {
            self.heard.0.get_or_init(|| fault);
        }
        #[cfg(not(feature = "tls"))]
        let _ = (self, error);
    }

    /// Who cannot write any more may not have heard yet why: an error of writing is held back until what
    /// came last is read. That the stream is at its end is noticed by reading, too, so this ends.
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

impl Heard {
    pub(crate) fn fault(&self) -> Option<TlsFault> {
        self.0.get().cloned()
    }
}

impl PlainTextWarning {
    /// Says it, before anything is sent, if others can read what will be.
    pub(crate) fn about(&self, stream: &Stream, server: &impl std::fmt::Display, with_tls: &str) {
        let is_open = stream.protocol().is_none() && !stream.stays_here();
        if is_open && !self.0.swap(true, Ordering::Relaxed) {
            warn!(
                "what goes to {server} can be read and changed on the way, passwords included: it is \
                 another machine, and nothing is encrypted; {with_tls} is"
            );
        }
    }
}

fn is_one_machine(here: IpAddr, there: IpAddr) -> bool {
    let (here, there) = (here.to_canonical(), there.to_canonical());
    there.is_loopback() || here == there
}

/// What happened to a connection, for a log line or a message.
pub(crate) fn describe(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "nothing is listening there".to_owned(),
        io::ErrorKind::ConnectionReset
        | io::ErrorKind::ConnectionAborted
        | io::ErrorKind::UnexpectedEof
        | io::ErrorKind::BrokenPipe => "the connection was closed by the other side".to_owned(),
        io::ErrorKind::TimedOut => "no answer in time".to_owned(),
        _ => quote(error.to_string().as_bytes()),
    }
}

macro_rules! on_inner {
    ($self:ident, |$stream:ident| $polled:expr) => {
        match &mut $self.inner {
            Inner::Plain($stream) => {
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
            self.note(error);
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
    use std::time::Duration;
    use tokio::net::TcpListener;

    #[test]
    fn own_addresses_are_this_machine() {
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

    /// A peer that answers whatever comes by `words`, and closes.
    async fn saying(words: &'static [u8]) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            while let Ok((mut peer, _)) = listener.accept().await {
                let mut hello = [0; 64];
                let _ = peer.read(&mut hello).await;
                let _ = peer.write_all(words).await;
            }
        });
        port
    }

    #[tokio::test]
    async fn tls_is_known_by_its_records() {
        for (words, expected) in [
            (&b"\x15\x03\x03\x00\x02\x02\x28"[..], true),
            (b"\x16\x03\x03\x00\x7a", true),
            (b"AMQP\x00\x00\x09\x01", false),
            (b"-ERR unknown command\r\n", false),
            (b"\x15", false),
            (b"", false),
        ] {
            let port = saying(words).await;
            let deadline = Instant::now() + Duration::from_secs(5);
            assert_eq!(
                expects_tls("127.0.0.1", port, deadline).await,
                expected,
                "{words:?}"
            );
        }
    }
}
