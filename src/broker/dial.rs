//! From an address to a connection that is logged in: a stream of ours, and lapin on top of it.
//!
//! lapin would connect by itself, from a thread that a silent server keeps for ever, and, as it is built
//! here, without TLS whatever the address says. So it is given the stream, through the only opening that
//! it has for that: a runtime whose streams are ours.

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
use crate::transport::{self, HeadStart, Stream, expects_tls, race};

/// For a better word on why a connection was closed.
const ASK_DEADLINE: Duration = Duration::from_millis(500);

/// A node that is connected and silent for so long may be frozen: the next one is tried beside it.
const LOGIN_HEAD_START: Duration = Duration::from_secs(1);

/// Why there is no connection.
pub(super) enum Failure {
    /// It did not come to a login.
    Unreached(Error),
    /// What became of it.
    Amqp(lapin::Error),
}

impl Failure {
    pub(super) fn into_error(self, url: &AmqpUrl) -> Error {
        match self {
            Self::Unreached(error) => error,
            Self::Amqp(error) => translate(url, &error),
        }
    }

    /// Whether the node has said no, rather than nothing.
    fn is_refusal(&self, url: &AmqpUrl) -> bool {
        match self {
            Self::Unreached(error) => matches!(error, Error::Tls { .. }),
            Self::Amqp(error) => matches!(translate(url, error), Error::Refused { .. }),
        }
    }
}

/// Connects and logs in to whichever node lets us first; the attempts at the others are given up.
/// `role` names the connection in the broker's lists. Cancel safe.
pub(super) async fn dial(url: &AmqpUrl, role: &str) -> Result<Connection, Failure> {
    let head_start = HeadStart::to_log_in(transport::CONNECTING, LOGIN_HEAD_START);
    let attempts = url.nodes().into_iter();
    let attempts = attempts.map(|node| dial_node(url, node, role, &head_start));
    let raced = race(attempts.collect(), &head_start).await;
    raced.map_err(|mut failures| {
        let refusal = failures.iter().position(|failure| failure.is_refusal(url));
        match refusal.or(failures.len().checked_sub(1)) {
            Some(most_telling) => failures.swap_remove(most_telling),
            None => Failure::Unreached(unreachable(url, "it names no node")),
        }
    })
}

async fn dial_node(
    url: &AmqpUrl,
    node: AMQPUri,
    role: &str,
    head_start: &HeadStart,
) -> Result<Connection, Failure> {
    let deadline = Instant::now() + DEADLINE;
    let endpoint = endpoint(&node);
    let stream = transport::connect(&endpoint, url.tls(), deadline).await;
    let stream =
        stream.map_err(|fault| Failure::Unreached(fault.into_error(url.to_string(), DEADLINE)))?;
    head_start.connected();
    url.warning().about(&stream, url, "amqps://");
    // A frame that waits for the one after it is late.
    let nodelay = stream.set_nodelay();
    nodelay.map_err(|error| Failure::Amqp(error.into()))?;
    let abandoned = stream.shutdown_on_drop();
    let abandoned = abandoned.map_err(|error| Failure::Amqp(error.into()))?;
    let heard = stream.heard();
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
            return Err(Failure::Unreached(unreachable(url, &reason)));
        }
    };
    let fault = match heard.fault() {
        None if url.tls().is_none() && is_speechless(&error) => {
            let ask_until = Instant::now() + ASK_DEADLINE;
            let expected = expects_tls(&endpoint, ask_until).await;
            expected.then_some(TlsFault::Expected)
        }
        heard => heard,
    };
    Err(match fault {
        Some(fault) => Failure::Unreached(no_tls(url, fault)),
        None => Failure::Amqp(error),
    })
}

/// Whether it ended before a word of AMQP was spoken.
fn is_speechless(error: &lapin::Error) -> bool {
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
        // lapin tries again by itself only where it was told to.
        let stream = stream.ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected))?;
        Ok(AsyncTcpStream::Plain(stream))
    };
    Connection::connector(node, Runtime::new(kit), hand_over, properties).await
}

/// The frame size to ask for. lapin sets aside 64 times as much, and 0 would leave the size to the broker.
fn frame_max(wanted: Option<u32>) -> u32 {
    match wanted {
        None | Some(0) => MAX_FRAME,
        Some(wanted) => wanted.min(MAX_FRAME),
    }
}

/// Tokio's reactor, but that its streams come from elsewhere.
#[derive(Debug, Clone)]
struct Connected(Tokio);

impl Reactor for Connected {
    type TcpStream = Compat<Frames<Stream>>;
    type Sleep = <Tokio as Reactor>::Sleep;

    #[expect(refining_impl_trait, reason = "there is no such stream")]
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
    async fn a_login_that_is_given_up_leaves_no_connection_behind() {
        let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("amqp://{}", silent.local_addr().unwrap());
        let url: AmqpUrl = url.parse().unwrap();
        let giving_up = timeout(Duration::from_millis(100), dial(&url, "test"));
        let (given_up, accepted) = tokio::join!(giving_up, silent.accept());
        assert!(given_up.is_err());
        let (mut peer, _) = accepted.unwrap();
        let mut said = Vec::new();
        let ended = timeout(Duration::from_secs(5), peer.read_to_end(&mut said)).await;
        assert!(ended.is_ok(), "it is still connected, and said {said:?}");
    }
}
