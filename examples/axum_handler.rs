//! A client inside an HTTP server made with axum: `GET /fib/30` answers `832040`.
//!
//!     cargo run --example axum_handler -- 127.0.0.1:3000
//!     curl -i http://127.0.0.1:3000/fib/30
//!     curl -i -H 'prefer: wait=2' http://127.0.0.1:3000/fib/300000    wait 2 s for it, no longer
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

/// What a request may take, unless it says otherwise, and at the most.
const USUAL_WAIT: Duration = Duration::from_secs(5);
const LONGEST_WAIT: Duration = Duration::from_secs(30);

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let url = |name, local: &str| std::env::var(name).unwrap_or(local.into());
    let amqp = url("AMQP_URL", "amqp://localhost").parse()?;
    let cache = CacheOptions::new(url("REDIS_URL", "redis://localhost").parse()?);
    // One client for the whole process. It connects by itself, again and again if need be, so the server
    // can start before RabbitMQ and Redis do.
    let client = Client::new(Fibonacci::default(), ClientOptions::new(amqp, cache));
    // Cloning a client is cloning an `Arc`: handlers share connections, and calls for the same number.
    let app = Router::new()
        .route("/fib/{n}", get(fib))
        .with_state(client.clone());

    let told_to_stop = told_to_stop()?;
    let address = std::env::args().nth(1).unwrap_or("127.0.0.1:3000".into());
    let listener = TcpListener::bind(address).await?;
    println!("http://{}/fib/30", listener.local_addr()?);

    // From the outside in: no new requests, an end of those that are being answered, then the client.
    let stop = CancellationToken::new();
    let serving = axum::serve(listener, app).with_graceful_shutdown(stop.clone().cancelled_owned());
    let serving = tokio::spawn(serving.into_future());
    told_to_stop.await;
    stop.cancel();
    // No call takes longer; a peer that does not read its answer is not waited for.
    if let Ok(ended) = timeout(LONGEST_WAIT, serving).await {
        ended??;
    }
    client.close().await;
    Ok(())
}

/// From here on, SIGTERM and Ctrl-C end nothing by themselves.
fn told_to_stop() -> io::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

/// If whoever asked hangs up, axum drops this future, and the call with it: that is safe at any point.
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

/// How long whoever asks wants to wait: `prefer: wait=SECONDS`, as in RFC 7240.
fn wait(headers: &HeaderMap) -> Duration {
    let prefer = headers.get("prefer").and_then(|value| value.to_str().ok());
    let mut preferences = prefer.unwrap_or_default().split([',', ';']);
    let seconds = preferences.find_map(|one| one.trim().strip_prefix("wait=")?.parse().ok());
    seconds
        .map_or(USUAL_WAIT, Duration::from_secs)
        .min(LONGEST_WAIT)
}

/// Each error is somebody's: the one's who asked, the servers' behind us, or nobody's but the moment's.
#[expect(clippy::match_same_arms, reason = "one line for each decision")]
fn refusal(error: &Error) -> Response {
    let status = match error {
        Error::Failed { code, .. } => match code {
            // The number is one, but has no answer here.
            ErrorCode::BadArgument | ErrorCode::TooLarge => StatusCode::UNPROCESSABLE_ENTITY,
            ErrorCode::Expired => StatusCode::GATEWAY_TIMEOUT,
            ErrorCode::Overloaded => StatusCode::SERVICE_UNAVAILABLE,
            // Computing failed, or ends its workers: asking again does not help.
            ErrorCode::Failed | ErrorCode::Poison => StatusCode::BAD_GATEWAY,
            // A later version of rpcache may know more.
            _ => StatusCode::BAD_GATEWAY,
        },
        // The worker is not what we take it for.
        Error::WrongAnswer { .. } => StatusCode::BAD_GATEWAY,
        // Too late for this request; the answer may be in the cache for the next.
        Error::Deadline { .. } => StatusCode::GATEWAY_TIMEOUT,
        // These pass, by themselves or by somebody who starts a worker or a broker.
        Error::NobodyServing { .. } | Error::Overloaded { .. } | Error::Unreachable { .. } => {
            StatusCode::SERVICE_UNAVAILABLE
        }
        // Our own configuration is wrong, and nobody outside can help it.
        Error::Refused { .. } => StatusCode::INTERNAL_SERVER_ERROR,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    };
    // A worker's words are about the argument. All else names our servers, and is for the log.
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
