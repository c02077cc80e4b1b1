//! The address of a server to connect to, and opening a plain connection to it.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

#[cfg(unix)]
use tokio::net::UnixStream;
use tokio::net::lookup_host;
use tokio::time::{Instant, timeout_at};

use super::stream::Stream;
use super::tcp;

/// Where a server listens: a TCP port, or a Unix socket.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Endpoint {
    /// A host name or IP address, and a port.
    Tcp { host: String, port: u16 },
    /// The path of a Unix socket. Never with TLS.
    Unix(PathBuf),
}

impl Endpoint {
    /// The host that a certificate must name; empty for a Unix socket.
    pub(crate) fn host(&self) -> &str {
        match self {
            Self::Tcp { host, .. } => host,
            Self::Unix(_) => "",
        }
    }

    /// Connects without TLS, before the deadline. Cancel safe.
    pub(super) async fn open(&self, deadline: Instant) -> io::Result<Stream> {
        match self {
            Self::Tcp { host, port } => {
                let resolved = timeout_at(deadline, lookup_host((host.as_str(), *port))).await;
                let addresses = resolved.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))?;
                let stream = tcp::open(addresses.collect(), deadline).await?;
                Ok(Stream::plain(stream))
            }
            Self::Unix(path) => open_unix(path, deadline).await,
        }
    }
}

/// Connects to a Unix socket, before the deadline. Cancel safe.
#[cfg(unix)]
pub(crate) async fn open_unix(path: &Path, deadline: Instant) -> io::Result<Stream> {
    let opened = timeout_at(deadline, UnixStream::connect(path)).await;
    let opened = opened.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
    opened.map(Stream::unix)
}

#[cfg(not(unix))]
#[expect(clippy::unused_async, reason = "same signature as on Unix")]
pub(crate) async fn open_unix(_: &Path, _: Instant) -> io::Result<Stream> {
    Err(io::ErrorKind::Unsupported.into())
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            Self::Unix(path) => path.display().fmt(f),
        }
    }
}
