//! Connects to a node of an address and logs in: a stream of [`crate::transport`], with lapin on top.
//!
//! lapin's own connecting blocks a thread for ever on a silent server, and has no TLS as it is built here. So
//! lapin gets a connected stream, through the only interface it has for that: a runtime with its own type of
//! stream.

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_rs::traits::Reactor;
use async_rs::util::RuntimeParts;
use async_rs::{Runtime, Tokio};
use futures_util::Stream as Sequence;
use lapin::tcp::AsyncTcpStream;
use lapin::uri::AMQPUri;
use lapin::{Connection, ConnectionProperties, ErrorKind};
use tokio::time::{Instant, timeout_at};
use tokio_util::compat::{Compat, TokioAsyncReadCompatExt as _};

use super::frames::{Frames, MAX_FRAME};
use super::{DEADLINE, translate, unreachable};
use crate::error::Error;
use crate::server_url::{AmqpUrl, endpoint};
use crate::tls::TlsFault;
use crate::transport::{self, Endpoint, HeadStart, Stream, expects_tls, race};

/// Time to test whether a server that closed the connection expects TLS.
const TLS_PROBE_DEADLINE: Duration = Duration::from_millis(500);

/// How long a login runs before the next node is tried in parallel: a node that is silent for so long may be
/// frozen.
const LOGIN_HEAD_START: Duration = Duration::from_secs(1);

/// Why dialling failed.
pub(super) enum DialError {
    /// Before the login.
    Unreached(Error),
    /// During the login.
    Amqp(lapin::Error),
}

impl DialError {
    pub(super) fn into_error(self, url: &AmqpUrl) -> Error {
        match self {
            Self::Unreached(error) => error,
            Self::Amqp(error) => translate(url, &error),
        }
    }

    /// Whether the node answered with a refusal.
    fn is_refusal(&self, url: &AmqpUrl) -> bool {
        match self {
            Self::Unreached(error) => matches!(error, Error::Tls { .. }),
            Self::Amqp(error) => matches!(translate(url, error), Error::Refused { .. }),
        }
    }
}

/// Connects and logs in to the first node that accepts, and drops the other attempts. Returns the node, too. `role` is
/// part of the connection's name in the broker's lists. Cancel safe.
pub(super) async fn dial(url: &AmqpUrl, role: &str) -> Result<(Connection, Endpoint), DialError> {
    let head_start = HeadStart::to_log_in(transport::CONNECTION_ATTEMPT_DELAY, LOGIN_HEAD_START);
    let attempts = url.nodes().into_iter();
    let attempts = attempts.map(|node| async {
        let endpoint = endpoint(&node);
        let silence = Silence::watch(url, &endpoint);
        let dialled = dial_node(url, node, role, &head_start).await;
        silence.ended(&dialled);
        dialled.map(|connection| (connection, endpoint))
    });
    let raced = race(attempts.collect(), &head_start).await;
    raced.map_err(|mut errors| {
        let refusal = errors.iter().position(|error| error.is_refusal(url));
        match refusal.or(errors.len().checked_sub(1)) {
            Some(most_specific) => errors.swap_remove(most_specific),
            None => DialError::Unreached(unreachable(url, "the address has no node")),
        }
    })
}

/// Marks a node as silent if the attempt to log in to it has not ended when this is dropped.
struct Silence<'a> {
    url: &'a AmqpUrl,
    node: &'a Endpoint,
    since: Instant,
}

impl<'a> Silence<'a> {
    fn watch(url: &'a AmqpUrl, node: &'a Endpoint) -> Self {
        Self {
            url,
            node,
            since: Instant::now(),
        }
    }

    /// The attempt has ended: with an answer, or because the node has taken too long.
    fn ended(mut self, dialled: &Result<Connection, DialError>) {
        if dialled.is_ok() || self.since.elapsed() < DEADLINE {
            // Dropped now, it marks nothing.
            self.since = Instant::now();
        }
    }
}

impl Drop for Silence<'_> {
    fn drop(&mut self) {
        // Another node was quicker although this one had its head start.
        if self.since.elapsed() >= LOGIN_HEAD_START {
            self.url.mark_silent(self.node);
        }
    }
}

async fn dial_node(
    url: &AmqpUrl,
    node: AMQPUri,
    role: &str,
    head_start: &HeadStart,
) -> Result<Connection, DialError> {
    let deadline = Instant::now() + DEADLINE;
    let endpoint = endpoint(&node);
    let stream = transport::connect(&endpoint, endpoint.host(), url.tls(), deadline).await;
    let stream = stream
        .map_err(|fault| DialError::Unreached(fault.into_error(url.to_string(), DEADLINE)))?;
    head_start.connected();
    url.warning().check(&stream, url, "amqps://");
    // Nagle's algorithm would delay a frame until the one before it is acknowledged.
    let nodelay = stream.set_nodelay();
    nodelay.map_err(|error| DialError::Amqp(error.into()))?;
    let abandoned = stream.shutdown_on_drop();
    let abandoned = abandoned.map_err(|error| DialError::Amqp(error.into()))?;
    let late_fault = stream.late_fault();
    let name = format!("rpcache {role} (pid {})", std::process::id());
    let properties = ConnectionProperties::default().with_connection_name(name.into());
    let opened = timeout_at(deadline, log_in(node, stream, properties)).await;
    let error = match opened {
        Ok(Ok(connection)) => {
            abandoned.release();
            return Ok(connection);
        }
        Ok(Err(error)) => error,
        Err(_elapsed) => {
            let reason = format!("no answer within {} s", DEADLINE.as_secs());
            return Err(DialError::Unreached(unreachable(url, &reason)));
        }
    };
    let fault = match late_fault.fault() {
        None if url.tls().is_none() && ended_before_amqp(&error) => {
            let probe_until = Instant::now() + TLS_PROBE_DEADLINE;
            let expected = expects_tls(&endpoint, probe_until).await;
            expected.then_some(TlsFault::Expected)
        }
        fault => fault,
    };
    Err(match fault {
        Some(fault) => DialError::Unreached(no_tls(url, fault)),
        // lapin reports a call on a closed connection, and not why it was closed.
        None if matches!(error.kind(), ErrorKind::InvalidConnectionState(_)) => {
            let reason = "the broker closed the connection during the login";
            DialError::Unreached(unreachable(url, reason))
        }
        None => DialError::Amqp(error),
    })
}

/// Whether the connection may have ended before the server sent any AMQP.
fn ended_before_amqp(error: &lapin::Error) -> bool {
    match error.kind() {
        ErrorKind::ParsingError(_) | ErrorKind::InvalidProtocolVersion(_) => true,
        ErrorKind::IOError(error) => matches!(
            error.kind(),
            io::ErrorKind::ConnectionReset
                | io::ErrorKind::ConnectionAborted
                | io::ErrorKind::UnexpectedEof
                | io::ErrorKind::BrokenPipe
        ),
        _ => false,
    }
}

fn no_tls(url: &AmqpUrl, fault: TlsFault) -> Error {
    Error::Tls {
        server: url.to_string(),
        fault,
    }
}

async fn log_in(
    mut node: AMQPUri,
    stream: Stream,
    properties: ConnectionProperties,
) -> lapin::Result<Connection> {
    let frame_max = frame_max(node.query.frame_max);
    node.query.frame_max = Some(frame_max);
    let kit = RuntimeParts::new(Tokio::current(), Connected(Tokio::current()));
    let stream = Mutex::new(Some(Frames::new(stream, frame_max).compat()));
    let hand_over = async move |_, _| {
        let stream = stream.lock().unwrap_or_else(PoisonError::into_inner).take();
        // `None` only if lapin connected again, which it is not configured to do.
        let stream = stream.ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected))?;
        Ok(AsyncTcpStream::Plain(stream))
    };
    Connection::connector(node, Runtime::new(kit), hand_over, properties).await
}

/// The frame size to request: lapin allocates 64 times as much, and 0 would let the broker choose.
fn frame_max(wanted: Option<u32>) -> u32 {
    match wanted {
        None | Some(0) => MAX_FRAME,
        Some(wanted) => wanted.min(MAX_FRAME),
    }
}

/// Tokio's reactor with another type of stream.
#[derive(Debug, Clone)]
struct Connected(Tokio);

impl Reactor for Connected {
    type TcpStream = Compat<Frames<Stream>>;
    type Sleep = <Tokio as Reactor>::Sleep;

    #[expect(
        refining_impl_trait,
        reason = "always fails: no stream is made from a blocking one"
    )]
    fn register<H: Read + Write + Send + 'static>(&self, _: H) -> io::Result<Self::TcpStream> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn sleep(&self, time: Duration) -> Self::Sleep {
        self.0.sleep(time)
    }

    fn interval(
        &self,
        time: Duration,
    ) -> impl Sequence<Item = std::time::Instant> + Send + 'static {
        self.0.interval(time)
    }

    fn tcp_connect_addr(
        &self,
        _: SocketAddr,
    ) -> impl Future<Output = io::Result<Self::TcpStream>> + Send + 'static {
        std::future::ready(Err(io::ErrorKind::Unsupported.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncReadExt as _;
    use tokio::net::TcpListener;
    use tokio::time::timeout;

    #[tokio::test]
    async fn a_cancelled_login_closes_its_connection() {
        let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("amqp://{}", silent.local_addr().unwrap());
        let url: AmqpUrl = url.parse().unwrap();
        let cancelled = timeout(Duration::from_millis(100), dial(&url, "test"));
        let (outcome, accepted) = tokio::join!(cancelled, silent.accept());
        assert!(outcome.is_err());
        let (mut peer, _) = accepted.unwrap();
        let mut received = Vec::new();
        let ended = timeout(Duration::from_secs(5), peer.read_to_end(&mut received)).await;
        assert!(ended.is_ok(), "still connected; received {received:?}");
    }
}
