//! Connects to both servers: plain TCP or a Unix socket, or TLS, as the address says.
//!
//! Deadlines cover the TLS handshake, and faults of TLS have the same messages for both servers.
//! [`crate::broker`] and [`crate::cache`] run their libraries on top of the stream.

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
pub(crate) use self::race::{CONNECTION_ATTEMPT_DELAY, HeadStart, race};
pub(crate) use self::stream::Stream;
pub(crate) use self::tcp::open as open_tcp;

use crate::error::Error;
use crate::text::{human, quote};
use crate::tls::{Tls, TlsFault};

/// Why connecting failed.
#[derive(Debug)]
#[cfg_attr(
    not(feature = "tls"),
    expect(dead_code, reason = "without the feature, no stream uses TLS")
)]
pub(crate) enum Fault {
    /// No connection: the host is unreachable, or nothing listens there.
    Connecting(io::Error),
    /// The connection was lost, or timed out, during the TLS handshake.
    Handshake(io::Error),
    /// TLS is not possible as it is configured.
    Tls(TlsFault),
}

impl Fault {
    /// Converts to the error of an attempt to reach `server` within `limit`.
    pub(crate) fn into_error(self, server: String, limit: Duration) -> Error {
        let is_late = |error: &io::Error| error.kind() == io::ErrorKind::TimedOut;
        let limit = human(limit);
        let reason = match self {
            Self::Tls(fault) => return Error::Tls { server, fault },
            Self::Connecting(error) if is_late(&error) => format!("no answer within {limit}"),
            Self::Connecting(error) => describe(&error),
            // A server without TLS may wait for the end of a line.
            Self::Handshake(error) if is_late(&error) => format!(
                "no answer to the TLS handshake within {limit}; perhaps the server does not use TLS"
            ),
            Self::Handshake(error) => format!("during the TLS handshake, {}", describe(&error)),
        };
        Error::Unreachable { server, reason }
    }
}

/// Logs once per address that its traffic is not encrypted. Clones share the state.
#[derive(Debug, Clone, Default)]
pub(crate) struct PlainTextWarning(Arc<AtomicBool>);

/// Connects to one server before the deadline, to the first of its addresses that answers, with TLS if given:
/// its certificate must name `host`. Cancel safe.
pub(crate) async fn connect(
    endpoint: &Endpoint,
    host: &str,
    tls: Option<&Tls>,
    deadline: Instant,
) -> Result<Stream, Fault> {
    let stream = endpoint.open(deadline).await.map_err(Fault::Connecting)?;
    match tls {
        None => Ok(stream),
        Some(tls) => stream.encrypted(host, tls, deadline).await,
    }
}

/// Whether a server that closed a plain connection without an answer uses TLS, tested with a client hello.
/// For a better error message only.
pub(crate) async fn expects_tls(endpoint: &Endpoint, deadline: Instant) -> bool {
    // A client hello of TLS 1.2 that offers nothing: a TLS server answers with an alert, in a record.
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
    /// Logs the warning if the stream is not encrypted and leaves this machine. To be called before anything is
    /// sent.
    pub(crate) fn check(&self, stream: &Stream, server: &impl std::fmt::Display, with_tls: &str) {
        let is_open = stream.protocol().is_none() && !stream.is_local();
        if is_open && !self.0.swap(true, Ordering::Relaxed) {
            warn!(
                "the connection to {server}, another machine, is not encrypted: others on the network can \
                 read and change what is sent, passwords included; {with_tls} encrypts it"
            );
        }
    }
}

/// Describes an error of a connection, for a log line or a message.
pub(crate) fn describe(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "nothing is listening there".to_owned(),
        io::ErrorKind::ConnectionReset
        | io::ErrorKind::ConnectionAborted
        | io::ErrorKind::UnexpectedEof
        | io::ErrorKind::BrokenPipe => "the connection was closed by the other side".to_owned(),
        io::ErrorKind::TimedOut => "no answer in time".to_owned(),
        // A Unix socket's path.
        io::ErrorKind::NotFound => "there is no such file".to_owned(),
        _ => quote(error.to_string().as_bytes()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use tokio::net::TcpListener;

    /// Starts a server that answers anything with `words` and closes. Returns its port.
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
    async fn tls_is_recognized_by_its_records() {
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
