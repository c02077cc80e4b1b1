//! Dials an address and logs in: a stream of this crate, with redis-rs on top of it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use redis::aio::{MultiplexedConnection, PubSub};
use redis::{AsyncConnectionConfig, ErrorKind, RedisConnectionInfo, RedisError};
use tokio::time::{Instant, timeout_at};

use super::connection::Health;
use super::errors::{describe, unreachable};
use super::guard::Guarded;
use super::resp::Limits;
use crate::error::Error;
use crate::server_url::RedisUrl;
use crate::text::human;
use crate::tls::TlsFault;
use crate::transport::{self, Fault, Stream, expects_tls};

/// Why there is no connection.
pub(super) enum DialError {
    /// No login was possible.
    Unreached(Error),
    /// The login, or what followed it, failed.
    Redis(RedisError),
}

impl DialError {
    /// The error of this server, in the words of this library.
    pub(super) fn of(self, url: &RedisUrl) -> Error {
        let error = match self {
            Self::Unreached(error) => return error,
            Self::Redis(error) => error,
        };
        // A server whose refusal passes by itself counts as not there.
        let passes = ["LOADING", "BUSY", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN"];
        let is_full = |detail: &str| detail.starts_with("max number of clients");
        let refused = error.kind() == ErrorKind::AuthenticationFailed
            || error.code().is_some_and(|code| !passes.contains(&code));
        if refused && !error.detail().is_some_and(is_full) {
            Error::Refused {
                server: url.to_string(),
                reason: describe(&error),
            }
        } else {
            unreachable(url, describe(&error))
        }
    }
}

impl From<RedisError> for DialError {
    fn from(error: RedisError) -> Self {
        Self::Redis(error)
    }
}

/// A connection that is logged in.
pub(super) struct Dialled {
    pub(super) connection: MultiplexedConnection,
    pub(super) health: Arc<Health>,
    /// The server's address; `None`: it has none.
    pub(super) address: Option<SocketAddr>,
}

/// Dials one server for commands, and runs `first` on the connection that is logged in; all of that within
/// `limit`. Cancel safe.
pub(super) async fn dial<T>(
    url: &RedisUrl,
    limits: Limits,
    health: Arc<Health>,
    limit: Duration,
    first: impl AsyncFnOnce(Dialled) -> Result<T, DialError>,
) -> Result<T, DialError> {
    let opening = async |login: &RedisConnectionInfo, stream: Stream, health: Arc<Health>| {
        let address = stream.peer();
        let stream = Guarded::new(stream, limits, Arc::clone(&health));
        // Deadlines are set around each command, once: the connection's own would cost a second timer for
        // each.
        let config = AsyncConnectionConfig::new().set_response_timeout(None);
        let opened = MultiplexedConnection::new_with_config(login, stream, config).await;
        let (connection, driver) = opened?;
        let watched = Arc::clone(&health);
        // It ends with the connection, or when the last clone of it is dropped.
        tokio::spawn(async move {
            driver.await;
            watched.closed();
        });
        first(Dialled {
            connection,
            health,
            address,
        })
        .await
    };
    open(url, limit, health, opening).await
}

/// Dials one server for a subscription. Cancel safe.
pub(super) async fn dial_pubsub(
    url: &RedisUrl,
    limits: Limits,
    limit: Duration,
) -> Result<PubSub, DialError> {
    let opening = async |login: &RedisConnectionInfo, stream, health| {
        let stream = Guarded::new(stream, limits, health);
        Ok(PubSub::new(login, stream).await?)
    };
    open(url, limit, Arc::default(), opening).await
}

async fn open<T>(
    url: &RedisUrl,
    limit: Duration,
    health: Arc<Health>,
    opening: impl AsyncFnOnce(&RedisConnectionInfo, Stream, Arc<Health>) -> Result<T, DialError>,
) -> Result<T, DialError> {
    let deadline = Instant::now() + limit;
    let host = url.endpoint().host();
    let mut stream = transport::connect(url.endpoint(), host, url.tls(), deadline).await;
    if let (Err(Fault::Tls(TlsFault::WrongName { .. })), Some(name)) = (&stream, url.other_name()) {
        stream = transport::connect(url.endpoint(), name, url.tls(), deadline).await;
    }
    let stream =
        stream.map_err(|fault| DialError::Unreached(fault.into_error(url.to_string(), limit)))?;
    url.warning().check(&stream, url, "rediss://");
    let (late_fault, info) = (stream.late_fault(), url.info());
    let opening = opening(info.redis_settings(), stream, Arc::clone(&health));
    let error = match timeout_at(deadline, opening).await {
        Ok(Err(DialError::Redis(error))) => error,
        Ok(opened) => return opened,
        Err(_elapsed) => return Err(DialError::Unreached(unreachable(url, no_answer(limit)))),
    };
    // An alert that TLS has received explains an error better than the error.
    let speechless = error.is_connection_dropped() || error.kind() == ErrorKind::Parse;
    let fault = match late_fault.fault() {
        None if url.tls().is_none() && speechless => {
            let expected = expects_tls(url.endpoint(), deadline).await;
            expected.then_some(TlsFault::Expected)
        }
        fault => fault,
    };
    Err(match (fault, health.how_lost()) {
        (Some(fault), _) => DialError::Unreached(no_tls(url, fault)),
        // So does the end of the stream, unless Redis itself has answered.
        (None, Some(how)) if error.code().is_none() => {
            DialError::Unreached(unreachable(url, how.to_owned()))
        }
        (None, _) => DialError::Redis(error),
    })
}

fn no_answer(limit: Duration) -> String {
    format!("no answer within {}", human(limit))
}

fn no_tls(url: &RedisUrl, fault: TlsFault) -> Error {
    Error::Tls {
        server: url.to_string(),
        fault,
    }
}
