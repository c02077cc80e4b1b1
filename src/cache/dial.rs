//! From an address to a connection that is logged in: a stream of ours, and redis-rs on top of it.

use std::io;
use std::time::Duration;

use redis::aio::{MultiplexedConnection, PubSub};
use redis::{AsyncConnectionConfig, ErrorKind, RedisConnectionInfo, RedisError};
use tokio::time::{Instant, timeout_at};

use super::connection::unreachable;
use crate::error::Error;
use crate::server_url::RedisUrl;
use crate::tls::TlsFault;
use crate::transport::{self, Fault, Stream, expects_tls};

/// Why there is no connection.
pub(super) enum Failure {
    /// It did not come to a login.
    Unreached(Error),
    /// What became of it.
    Redis(RedisError),
}

impl From<RedisError> for Failure {
    fn from(error: RedisError) -> Self {
        Self::Redis(error)
    }
}

/// For commands: what `first` makes of a connection that is logged in; all of that within `limit`.
/// Cancel safe.
pub(super) async fn dial<T>(
    url: &RedisUrl,
    config: AsyncConnectionConfig,
    limit: Duration,
    first: impl AsyncFnOnce(MultiplexedConnection) -> Result<T, RedisError>,
) -> Result<T, Failure> {
    let opening = async |login: &RedisConnectionInfo, stream| {
        let opened = MultiplexedConnection::new_with_config(login, stream, config).await;
        let (connection, driver) = opened?;
        // It ends when the last clone of the connection is dropped.
        tokio::spawn(driver);
        first(connection).await
    };
    open(url, limit, opening).await
}

/// For messages. Cancel safe.
pub(super) async fn dial_pubsub(url: &RedisUrl, limit: Duration) -> Result<PubSub, Failure> {
    open(url, limit, async |login, stream| {
        PubSub::new(login, stream).await
    })
    .await
}

async fn open<T>(
    url: &RedisUrl,
    limit: Duration,
    opening: impl AsyncFnOnce(&RedisConnectionInfo, Stream) -> Result<T, RedisError>,
) -> Result<T, Failure> {
    let deadline = Instant::now() + limit;
    let stream = transport::connect(url.endpoint(), url.tls(), deadline).await;
    let stream = stream.map_err(|fault| Failure::Unreached(unreached(url, fault, limit)))?;
    url.warning().about(&stream, url, "rediss://");
    let (heard, info) = (stream.heard(), url.info());
    let opened = timeout_at(deadline, opening(info.redis_settings(), stream)).await;
    let error = match opened {
        Ok(Ok(opened)) => return Ok(opened),
        Ok(Err(error)) => error,
        Err(_elapsed) => return Err(Failure::Unreached(unreachable(url, no_answer(limit)))),
    };
    // What TLS has heard explains an error better than the error.
    let speechless = error.is_connection_dropped() || error.kind() == ErrorKind::Parse;
    let fault = match heard.fault() {
        None if url.tls().is_none() && speechless => {
            let expected = expects_tls(url.endpoint(), deadline).await;
            expected.then_some(TlsFault::Expected)
        }
        heard => heard,
    };
    Err(match fault {
        Some(fault) => Failure::Unreached(no_tls(url, fault)),
        None => Failure::Redis(error),
    })
}

fn unreached(url: &RedisUrl, fault: Fault, limit: Duration) -> Error {
    let reason = match fault {
        Fault::Tls(fault) => return no_tls(url, fault),
        Fault::Connecting(error) if error.kind() == io::ErrorKind::TimedOut => no_answer(limit),
        Fault::Connecting(error) => transport::describe(&error),
        // A plain Redis waits for the end of a line.
        Fault::Handshake(error) if error.kind() == io::ErrorKind::TimedOut => {
            format!(
                "no answer to the TLS handshake within {} ms; perhaps it does not speak TLS",
                limit.as_millis()
            )
        }
        Fault::Handshake(error) => {
            format!("during the TLS handshake, {}", transport::describe(&error))
        }
    };
    unreachable(url, reason)
}

fn no_answer(limit: Duration) -> String {
    format!("no answer within {} ms", limit.as_millis())
}

fn no_tls(url: &RedisUrl, fault: TlsFault) -> Error {
    Error::Tls {
        server: url.to_string(),
        fault,
    }
}
