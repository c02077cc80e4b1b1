//! Streams to the servers: plain where the address says so, else TLS, and nothing in between.
//!
//! Both servers are connected to here, so that a fault of TLS is told in the same words for both, and so
//! that the deadlines cover the handshake. [`crate::broker`] and [`crate::cache`] put their libraries on
//! top of the stream.

mod endpoint;
mod race;
mod stream;
mod tcp;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::{Instant, timeout_at};
use tracing::warn;

pub(crate) use self::endpoint::{Endpoint, open_unix};
pub(crate) use self::race::{CONNECTING, HeadStart, race};
pub(crate) use self::stream::Stream;
pub(crate) use self::tcp::open as open_tcp;

use crate::error::Error;
use crate::text::{human, quote};
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

impl Fault {
    /// The error of an attempt to reach `server` that had `limit`.
    pub(crate) fn into_error(self, server: String, limit: Duration) -> Error {
        let is_late = |error: &io::Error| error.kind() == io::ErrorKind::TimedOut;
        let limit = human(limit);
        let reason = match self {
            Self::Tls(fault) => return Error::Tls { server, fault },
            Self::Connecting(error) if is_late(&error) => format!("no answer within {limit}"),
            Self::Connecting(error) => describe(&error),
            // A server that does not speak TLS may wait for the end of a line.
            Self::Handshake(error) if is_late(&error) => format!(
                "no answer to the TLS handshake within {limit}; perhaps it does not speak TLS"
            ),
            Self::Handshake(error) => format!("during the TLS handshake, {}", describe(&error)),
        };
        Error::Unreachable { server, reason }
    }
}

/// Whether it was said already that what goes to an address can be read on the way: once for all who
/// share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct PlainTextWarning(Arc<AtomicBool>);

/// Connects to one server, by whichever of its addresses answers first, and by TLS if there is any to
/// speak, before the deadline. Cancel safe.
pub(crate) async fn connect(
    endpoint: &Endpoint,
    tls: Option<&Tls>,
    deadline: Instant,
) -> Result<Stream, Fault> {
    let stream = endpoint.open(deadline).await.map_err(Fault::Connecting)?;
    match tls {
        None => Ok(stream),
        Some(tls) => stream.encrypted(endpoint.host(), tls, deadline).await,
    }
}

/// Whether a server that has closed a plain connection without a word speaks TLS there, found out by a
/// greeting that says nothing else. For a better word on what failed; nothing is sent by it.
pub(crate) async fn expects_tls(endpoint: &Endpoint, deadline: Instant) -> bool {
    // A client hello of TLS 1.2 that offers nothing: who speaks TLS answers by an alert, in a record.
    const HELLO: &[u8] = b"\x16\x03\x01\x00\x2d\x01\x00\x00\x29\x03\x03\
        rpcache asks: is TLS spoken here\x00\x00\x02\x00\xff\x01\x00";
    let asked = async {
        let mut stream = endpoint.open(deadline).await?;
        stream.write_all(HELLO).await?;
        let mut record = [0; 2];
        stream.read_exact(&mut record).await?;
        io::Result::Ok(matches!(record, [0x15 | 0x16, 3]))
    };
    matches!(timeout_at(deadline, asked).await, Ok(Ok(true)))
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

/// What happened to a connection, for a log line or a message.
pub(crate) fn describe(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "nothing is listening there".to_owned(),
        io::ErrorKind::ConnectionReset
        | io::ErrorKind::ConnectionAborted
        | io::ErrorKind::UnexpectedEof
        | io::ErrorKind::BrokenPipe => "the connection was closed by the other side".to_owned(),
        io::ErrorKind::TimedOut => "no answer in time".to_owned(),
        // Of a Unix socket.
        io::ErrorKind::NotFound => "there is no such file".to_owned(),
        _ => quote(error.to_string().as_bytes()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use tokio::net::TcpListener;

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
            let endpoint = Endpoint::Tcp {
                host: "127.0.0.1".to_owned(),
                port,
            };
            let deadline = Instant::now() + Duration::from_secs(5);
            assert_eq!(
                expects_tls(&endpoint, deadline).await,
                expected,
                "{words:?}"
            );
        }
    }
}
