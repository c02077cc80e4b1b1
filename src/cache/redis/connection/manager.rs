//! Makes connections for bb8: dials, logs in, and checks that the server answers in time.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bb8::{ErrorSink, ManageConnection};
use bb8_redis::RedisConnectionManager;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, ErrorKind, RedisError, Value};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::server::{Mode, Server, primaries};
use super::{Link, Slot};
use crate::cache::redis::dial::{DialError, Dialled, dial};
use crate::cache::redis::errors::{describe, unreachable};
use crate::cache::redis::resp::Limits;
use crate::error::Error;
use crate::server_url::RedisUrl;

/// Time to connect, to log in and to be answered once. Longer than a cache budget, since it happens in the
/// background.
pub(super) const CONNECT_DEADLINE: Duration = Duration::from_millis(500);

/// bb8-redis's manager, except that a connection can be known to be broken, and that the deadlines are
/// ours.
pub(super) struct Manager {
    url: RedisUrl,
    config: AsyncConnectionConfig,
    inner: RedisConnectionManager,
    limits: Limits,
    patience: Duration,
    slot: Arc<Slot>,
}

impl Manager {
    pub(super) fn new(
        url: &RedisUrl,
        patience: Duration,
        limits: Limits,
        slot: Arc<Slot>,
    ) -> Result<Self, RedisError> {
        Ok(Self {
            url: url.clone(),
            // Deadlines are set around each command, once: the connection's own would cost a
            // second timer for each.
            config: AsyncConnectionConfig::new().set_response_timeout(None),
            inner: RedisConnectionManager::new(url.info())?,
            limits,
            patience,
            slot,
        })
    }

    /// Makes a connection on which Redis has answered in time. A server that accepts and is too slow to be of
    /// use, or that refuses everything, is noticed here instead of by calls.
    async fn log_in(&self) -> Result<Arc<Link>, DialError> {
        let check = async |dialled: Dialled| {
            let Dialled {
                mut connection,
                health,
                address,
            } = dialled;
            let link = Arc::new(Link::new(connection.clone(), self.patience, health));
            self.slot.may_be_used_unchecked(&link);
            let hello = timeout(self.patience, self.greet(&connection)).await;
            let late = |_elapsed| Err(io::Error::from(io::ErrorKind::TimedOut).into());
            let server = Server::read(address, &hello.unwrap_or_else(late)?);
            if server.mode == Mode::Sentinel {
                return Err(DialError::Unreached(self.sentinel(&mut connection).await));
            }
            let clustered = server.mode == Mode::Cluster;
            link.one_by_one.store(clustered, Ordering::Relaxed);
            // Nothing else sets it.
            let _ = link.server.set(server);
            Ok(link)
        };
        let (config, limits) = (self.config.clone(), self.limits);
        dial(&self.url, config, limits, CONNECT_DEADLINE, check).await
    }

    /// Waits for the answer to PING, and returns that to HELLO, sent together with it. HELLO needs no right,
    /// and is answered by a server that is still loading its data, too.
    async fn greet(&self, connection: &MultiplexedConnection) -> Result<Value, RedisError> {
        let [mut one, mut other] = [connection.clone(), connection.clone()];
        let hello = redis::cmd("HELLO");
        let hello = hello.query_async::<Value>(&mut other);
        match tokio::join!(self.inner.is_valid(&mut one), hello) {
            (Err(error), _) if !is_of_ping_alone(&error) => Err(error),
            (_, Err(error)) if error.is_unrecoverable_error() => Err(error),
            // A server that does not know HELLO may be of use all the same.
            (_, hello) => Ok(hello.unwrap_or(Value::Nil)),
        }
    }

    /// The error for a Sentinel that was given as Redis: it names the primaries to use instead.
    async fn sentinel(&self, connection: &mut MultiplexedConnection) -> Error {
        let mut ask = redis::cmd("SENTINEL");
        ask.arg("MASTERS");
        let asked = timeout(self.patience, ask.query_async::<Value>(connection)).await;
        let primaries = match asked {
            Ok(Ok(answer)) => primaries(&answer),
            _ => Vec::new(),
        };
        let instead = match &primaries[..] {
            [] => "write the address of the primary".to_owned(),
            primaries => format!("write the address of the primary: {}", primaries.join(", ")),
        };
        Error::Refused {
            server: self.url.to_string(),
            reason: format!("it is a Sentinel, which is not supported yet; {instead}"),
        }
    }

    fn translate(&self, error: &RedisError) -> Error {
        // A server whose refusal passes by itself counts as not there.
        let passes = ["LOADING", "BUSY", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN"];
        let is_full = |detail: &str| detail.starts_with("max number of clients");
        let refused = error.kind() == ErrorKind::AuthenticationFailed
            || error.code().is_some_and(|code| !passes.contains(&code));
        if refused && !error.detail().is_some_and(is_full) {
            Error::Refused {
                server: self.url.to_string(),
                reason: describe(error),
            }
        } else {
            unreachable(&self.url, describe(error))
        }
    }
}

impl ManageConnection for Manager {
    type Connection = Arc<Link>;
    type Error = Error;

    async fn connect(&self) -> Result<Arc<Link>, Error> {
        match self.log_in().await {
            Ok(link) => Ok(link),
            Err(DialError::Unreached(error)) => Err(error),
            Err(DialError::Redis(error)) => Err(self.translate(&error)),
        }
    }

    /// Never called: the pool hands out fresh connections only.
    async fn is_valid(&self, _: &mut Arc<Link>) -> Result<(), Error> {
        Ok(())
    }

    fn has_broken(&self, link: &mut Arc<Link>) -> bool {
        link.is_down()
    }
}

/// Passes on why bb8 could not connect.
#[derive(Debug, Clone)]
pub(super) struct Failures(pub(super) mpsc::UnboundedSender<Error>);

impl ErrorSink<Error> for Failures {
    fn sink(&self, error: Error) {
        // The keeper may be gone.
        let _ = self.0.send(error);
    }

    fn boxed_clone(&self) -> Box<dyn ErrorSink<Error>> {
        Box::new(self.clone())
    }
}

/// Whether nothing but PING is refused, to this login or to all. It may have the rights that are needed.
fn is_of_ping_alone(error: &RedisError) -> bool {
    let unknown = |detail: &str| detail.starts_with("unknown command");
    match error.code() {
        Some("NOPERM") => true,
        Some("ERR") => error.detail().is_some_and(unknown),
        _ => false,
    }
}
