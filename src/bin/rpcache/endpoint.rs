//! `--metrics-addr`: what a worker tells over HTTP, see [`Pages`].
//!
//! Everything is bounded: connections, the request on each of them, which is one, the size of its
//! head, the time for it, and the time for all of it. A new connection always has room: where there is none,
//! the oldest that is idle is closed. A probe's is not kept waiting by peers that connect and say nothing.

mod pages;

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, header};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, yield_now};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

pub(crate) use self::pages::Pages;
use crate::output::Failure;

/// Open at once. A scraper has one; the rest is for peers that come together, of which none is to be closed
/// before it has asked.
const CONNECTIONS: usize = 64;

/// From accepting a connection to the end of its request's head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(2);

/// From accepting a connection to the end of its answer.
const EXCHANGE: Duration = Duration::from_secs(10);

/// The largest head of a request, in bytes; a larger one is answered 431.
const HEAD: usize = 8192;

/// What answers under way may take when the worker has ended.
const GOODBYE: Duration = Duration::from_secs(1);

/// When the system has no sockets left.
const PAUSE: Duration = Duration::from_millis(100);

/// A port that is listened on.
pub(crate) struct Endpoint {
    listener: TcpListener,
    pages: Arc<Pages>,
}

impl Endpoint {
    /// Listens from now on; what comes before it is [served](Self::serve) waits.
    pub(crate) async fn bind(address: SocketAddr, pages: Pages) -> Result<Self, Failure> {
        let no_endpoint = |error: io::Error| {
            Failure::new(
                3,
                format!("cannot serve metrics at {address}: {}", reason(&error)),
            )
        };
        let listener = TcpListener::bind(address).await.map_err(no_endpoint)?;
        let address = listener.local_addr().map_err(no_endpoint)?;
        info!("metrics at http://{address}/metrics, beside /healthz and /readyz");
        let pages = Arc::new(pages);
        Ok(Self { listener, pages })
    }

    /// Answers until `end`, and what is being answered then.
    pub(crate) async fn serve(self, end: CancellationToken) {
        let Self { listener, pages } = self;
        let (mut open, exchanges) = (Open::default(), TaskTracker::new());
        let accept_all = async {
            loop {
                match listener.accept().await {
                    Ok((stream, _)) => {
                        open.make_room();
                        let has_asked = Arc::<AtomicBool>::default();
                        let exchange = exchange(stream, Arc::clone(&pages), Arc::clone(&has_asked));
                        let task = exchanges.spawn(async move {
                            // Whatever comes of it is the scraper's concern, who sees it.
                            let _ = timeout(EXCHANGE, exchange).await;
                        });
                        let task = task.abort_handle();
                        open.0.push_back(Connection { has_asked, task });
                        // A request that is here already is read before the next connection may
                        // close this one.
                        yield_now().await;
                    }
                    Err(error) => {
                        warn!(%error, "cannot take a connection for metrics");
                        sleep(PAUSE).await;
                    }
                }
            }
        };
        end.run_until_cancelled(accept_all).await;
        drop(listener);
        exchanges.close();
        // Elapsed or not, the process ends.
        let _ = timeout(GOODBYE, exchanges.wait()).await;
    }
}

/// Connections, the oldest first.
#[derive(Default)]
struct Open(VecDeque<Connection>);

struct Connection {
    /// The head of its request is complete.
    has_asked: Arc<AtomicBool>,
    task: AbortHandle,
}

impl Open {
    /// For one more: closes the oldest that has not asked yet. Where all have, their peers are slow to read
    /// what they asked for, and the oldest is closed.
    fn make_room(&mut self) {
        self.0.retain(|connection| !connection.task.is_finished());
        while self.0.len() >= CONNECTIONS {
            let is_idle = |connection: &Connection| !connection.has_asked.load(Ordering::Relaxed);
            let oldest = self.0.iter().position(is_idle).unwrap_or(0);
            if let Some(connection) = self.0.remove(oldest) {
                connection.task.abort();
            }
        }
    }
}

/// One request and its answer.
async fn exchange(
    stream: TcpStream,
    pages: Arc<Pages>,
    has_asked: Arc<AtomicBool>,
) -> hyper::Result<()> {
    let answer = |request: Request<Incoming>| {
        has_asked.store(true, Ordering::Relaxed);
        let accept = request.headers().get(header::ACCEPT);
        let accept = accept.and_then(|accept| accept.to_str().ok());
        let page = pages.answer(
            request.method(),
            request.uri().path(),
            accept.unwrap_or_default(),
        );
        std::future::ready(Ok::<_, Infallible>(page))
    };
    http1::Builder::new()
        .keep_alive(false)
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(HEAD)
        .serve_connection(TokioIo::new(stream), service_fn(answer))
        .await
}

/// Why it cannot listen, and what to do about it.
fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            "another program listens there; end it, or give --metrics-addr another port".to_owned()
        }
        io::ErrorKind::AddrNotAvailable => {
            "this machine has no such address; 127.0.0.1 is for itself alone, 0.0.0.0 for everybody"
                .to_owned()
        }
        io::ErrorKind::PermissionDenied => {
            "it is not permitted; give --metrics-addr a port above 1023".to_owned()
        }
        _ => error.to_string(),
    }
}
