//! `--metrics-addr`: the HTTP server of a worker, with the [`Pages`].
//!
//! Everything is limited: the number of connections, one request on each, the size of its head, the time for the
//! head, and the time for the exchange. At the limit of connections, a new one replaces the oldest that is idle, so
//! peers that connect and send nothing do not keep a probe waiting.

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

/// Limit of open connections. A scraper uses one; with 64, peers that connect at the same moment can all send their
/// requests.
const CONNECTIONS: usize = 64;

/// Time limit from accepting a connection to the end of the request's head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(2);

/// Time limit from accepting a connection to the end of the response.
const EXCHANGE_TIMEOUT: Duration = Duration::from_secs(10);

/// Limit of a request's head, in bytes; a larger one is answered 431.
const MAX_HEAD: usize = 8192;

/// Time limit for open exchanges when the worker has stopped.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(1);

/// Pause after a failed accept, as when no file descriptor is left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A listening server.
pub(crate) struct Endpoint {
    listener: TcpListener,
    pages: Arc<Pages>,
}

impl Endpoint {
    /// Starts to listen. Connections wait until [`serve`](Self::serve) is called.
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

    /// Answers requests until `end`, and finishes those that are open then.
    pub(crate) async fn serve(self, end: CancellationToken) {
        let Self { listener, pages } = self;
        let (mut open, exchanges) = (Open::default(), TaskTracker::new());
        let accept_all = async {
            loop {
                match listener.accept().await {
                    Ok((stream, _)) => {
                        open.make_room();
                        let has_request = Arc::<AtomicBool>::default();
                        let exchange =
                            exchange(stream, Arc::clone(&pages), Arc::clone(&has_request));
                        let task = exchanges.spawn(async move {
                            // A failed exchange concerns its peer alone, which sees it.
                            let _ = timeout(EXCHANGE_TIMEOUT, exchange).await;
                        });
                        let task = task.abort_handle();
                        open.0.push_back(Connection { has_request, task });
                        // Lets the task read a request that has arrived, before the next connection may
                        // replace this one.
                        yield_now().await;
                    }
                    Err(error) => {
                        warn!(%error, "cannot accept a connection for metrics");
                        sleep(ACCEPT_PAUSE).await;
                    }
                }
            }
        };
        end.run_until_cancelled(accept_all).await;
        drop(listener);
        exchanges.close();
        // After the time limit, the process ends anyway.
        let _ = timeout(DRAIN_TIMEOUT, exchanges.wait()).await;
    }
}

/// The open connections, the oldest first.
#[derive(Default)]
struct Open(VecDeque<Connection>);

struct Connection {
    /// Set when the head of its request is complete.
    has_request: Arc<AtomicBool>,
    task: AbortHandle,
}

impl Open {
    /// Makes room for one more: closes the oldest connection without a request, or the oldest of all if every one
    /// has sent its request.
    fn make_room(&mut self) {
        self.0.retain(|connection| !connection.task.is_finished());
        while self.0.len() >= CONNECTIONS {
            let is_idle = |connection: &Connection| !connection.has_request.load(Ordering::Relaxed);
            let oldest = self.0.iter().position(is_idle).unwrap_or(0);
            if let Some(connection) = self.0.remove(oldest) {
                connection.task.abort();
            }
        }
    }
}

/// Serves one request.
async fn exchange(
    stream: TcpStream,
    pages: Arc<Pages>,
    has_request: Arc<AtomicBool>,
) -> hyper::Result<()> {
    let answer = |request: Request<Incoming>| {
        has_request.store(true, Ordering::Relaxed);
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
        .max_buf_size(MAX_HEAD)
        .serve_connection(TokioIo::new(stream), service_fn(answer))
        .await
}

/// The reason why it cannot listen, with a remedy.
fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            "another program listens there; end it, or give --metrics-addr another port".to_owned()
        }
        io::ErrorKind::AddrNotAvailable => {
            "this machine has no such address; 127.0.0.1 is for this machine alone, 0.0.0.0 for all interfaces"
                .to_owned()
        }
        io::ErrorKind::PermissionDenied => {
            "not permitted; give --metrics-addr a port above 1023".to_owned()
        }
        _ => error.to_string(),
    }
}
