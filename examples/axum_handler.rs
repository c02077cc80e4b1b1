//! A client inside an HTTP server made with axum: `GET /fib/30` answers `832040`.
//!
//!     cargo run --example axum_handler -- 127.0.0.1:3000
//!     curl -i http://127.0.0.1:3000/fib/30
//!     curl -i -H 'prefer: wait=2' http://127.0.0.1:3000/fib/300000    wait for 2 s at most
//!
//! It needs a worker, such as `rpcache worker`, and the servers that `AMQP_URL` and `REDIS_URL` name.

use std::io;
use std::time::Duration;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderName, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use rpcache::fibonacci::{Fibonacci, N};
use rpcache::{CacheOptions, CallOptions, Client, ClientOptions, Error, ErrorCode};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// Time limit of a request, by default and at most.
const DEFAULT_WAIT: Duration = Duration::from_secs(5);
const MAX_WAIT: Duration = Duration::from_secs(30);

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let url = |name, local: &str| std::env::var(name).unwrap_or(local.into());
    let amqp = url("AMQP_URL", "amqp://localhost").parse()?;
    let cache = CacheOptions::new(url("REDIS_URL", "redis://localhost").parse()?);
    // One client for the whole process. It connects and reconnects by itself, so the server can start before
    // RabbitMQ and Redis.
    let client = Client::new(Fibonacci::default(), ClientOptions::new(amqp, cache));
    // Clones share connections, and calls for the same number.
    let app = Router::new()
        .route("/fib/{n}", get(fib))
        .with_state(client.clone());

    let stop_signal = stop_signal()?;
    let address = std::env::args().nth(1).unwrap_or("127.0.0.1:3000".into());
    let listener = TcpListener::bind(address).await?;
    println!("http://{}/fib/30", listener.local_addr()?);

    // In this order: refuse new requests, finish the open ones, close the client.
    let stop = CancellationToken::new();
    let serving = axum::serve(listener, app).with_graceful_shutdown(stop.clone().cancelled_owned());
    let serving = tokio::spawn(serving.into_future());
    stop_signal.await;
    stop.cancel();
    // No call takes longer than this. A peer that does not read its answer is not waited for.
    if let Ok(ended) = timeout(MAX_WAIT, serving).await {
        ended??;
    }
    client.close().await;
    Ok(())
}

/// Resolves at SIGTERM or Ctrl-C, which no longer end the process by themselves.
fn stop_signal() -> io::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

/// Answers `GET /fib/{n}`. If the peer disconnects, axum drops this future and the call, which is safe at any point.
async fn fib(
    State(client): State<Client<Fibonacci>>,
    Path(n): Path<String>,
    headers: HeaderMap,
) -> Response {
    let n: N = match n.parse() {
        Ok(n) => n,
        Err(error) => return (StatusCode::BAD_REQUEST, format!("{error}\n")).into_response(),
    };
    match client
        .call_with(n, CallOptions::within(wait(&headers)))
        .await
    {
        Ok(found) => {
            let source = HeaderName::from_static("x-rpcache-source");
            let source = [(source, found.source.as_str())];
            (source, format!("{}\n", found.answer)).into_response()
        }
        Err(error) => refusal(&error),
    }
}

/// The time limit that the request sets by `prefer: wait=SECONDS`, as in RFC 7240.
fn wait(headers: &HeaderMap) -> Duration {
    let prefer = headers.get("prefer").and_then(|value| value.to_str().ok());
    let mut preferences = prefer.unwrap_or_default().split([',', ';']);
    let seconds = preferences.find_map(|one| one.trim().strip_prefix("wait=")?.parse().ok());
    seconds
        .map_or(DEFAULT_WAIT, Duration::from_secs)
        .min(MAX_WAIT)
}

/// Maps an error to a status code: of the caller (4xx), of the servers behind us (5xx), or a passing one (503).
#[expect(clippy::match_same_arms, reason = "one line for each decision")]
fn refusal(error: &Error) -> Response {
    let status = match error {
        Error::Failed { code, .. } => match code {
            // A valid number that the worker does not compute.
            ErrorCode::BadArgument | ErrorCode::TooLarge => StatusCode::UNPROCESSABLE_ENTITY,
            ErrorCode::Expired => StatusCode::GATEWAY_TIMEOUT,
            ErrorCode::Overloaded => StatusCode::SERVICE_UNAVAILABLE,
            // Computing failed, or crashed the workers: the same call fails again.
            ErrorCode::Failed | ErrorCode::Poison => StatusCode::BAD_GATEWAY,
            // The enum is non-exhaustive.
            _ => StatusCode::BAD_GATEWAY,
        },
        // Another program may serve the queue.
        Error::WrongAnswer { .. } => StatusCode::BAD_GATEWAY,
        // Too late for this request; the answer may be in the cache for the next one.
        Error::Deadline { .. } => StatusCode::GATEWAY_TIMEOUT,
        // These pass when a worker or a broker is started.
        Error::NoWorkers { .. } | Error::Overloaded { .. } | Error::Unreachable { .. } => {
            StatusCode::SERVICE_UNAVAILABLE
        }
        // The configuration of this server is wrong.
        Error::Refused { .. } => StatusCode::INTERNAL_SERVER_ERROR,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    };
    // The message of a worker is about the argument. Other errors name our servers, and go to the log.
    let text = match error {
        Error::Failed { message, .. } => message,
        error => {
            eprintln!("{error}");
            status.canonical_reason().unwrap_or_default()
        }
    };
    let retry = (status == StatusCode::SERVICE_UNAVAILABLE).then_some([(header::RETRY_AFTER, "1")]);
    (status, retry, format!("{text}\n")).into_response()
}
