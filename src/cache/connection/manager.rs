//! How a connection is made: what bb8 asks for, and how it tells why there is none.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bb8::{ErrorSink, ManageConnection};
use bb8_redis::RedisConnectionManager;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, ErrorKind, RedisError};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::{Link, Slot, describe, unreachable};
use crate::cache::dial::{Failure, dial};
use crate::error::Error;
use crate::server_url::RedisUrl;

/// To connect, log in and be answered once. Longer than a cache budget, since it happens in the
/// background.
pub(super) const CONNECT_DEADLINE: Duration = Duration::from_millis(500);

/// bb8's view: bb8-redis's manager, except that a connection can be known to be broken, and that
/// the deadlines are ours.
pub(super) struct Manager {
    url: RedisUrl,
    config: AsyncConnectionConfig,
    inner: RedisConnectionManager,
    patience: Duration,
    slot: Arc<Slot>,
}

impl Manager {
    pub(super) fn new(
        url: &RedisUrl,
        patience: Duration,
        slot: Arc<Slot>,
    ) -> Result<Self, RedisError> {
        Ok(Self {
            url: url.clone(),
            // Deadlines are set around each command, once: the connection's own would cost a
            // second timer for each.
            config: AsyncConnectionConfig::new().set_response_timeout(None),
            inner: RedisConnectionManager::new(url.info())?,
            patience,
            slot,
        })
    }

    /// A connection on which Redis has answered in time. A server that accepts and is too slow to
    /// be of use, or that refuses everything, is found out here instead of by calls.
    async fn log_in(&self) -> Result<Arc<Link>, Failure> {
        let check = async |mut connection: MultiplexedConnection| {
            let link = Arc::new(Link::new(connection.clone(), self.patience));
            self.slot.may_be_used_unchecked(&link);
            match timeout(self.patience, self.inner.is_valid(&mut connection)).await {
                Ok(Ok(())) => Ok(link),
                // This login may not PING. It may be allowed what we need.
                Ok(Err(error)) if error.code() == Some("NOPERM") => Ok(link),
                Ok(Err(error)) => Err(error),
                Err(_elapsed) => Err(io::Error::from(io::ErrorKind::TimedOut).into()),
            }
        };
        dial(&self.url, self.config.clone(), CONNECT_DEADLINE, check).await
    }

    fn translate(&self, error: &RedisError) -> Error {
        // What passes by itself is as good as not being there.
        let passes = ["LOADING", "BUSY", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN"];
        let refused = error.kind() == ErrorKind::AuthenticationFailed
            || error.code().is_some_and(|code| !passes.contains(&code));
        if refused {
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
            Err(Failure::Unreached(error)) => Err(error),
            Err(Failure::Redis(error)) => Err(self.translate(&error)),
        }
    }

    /// Never called: the pool hands out fresh connections only.
    async fn is_valid(&self, _: &mut Arc<Link>) -> Result<(), Error> {
        Ok(())
    }

    fn has_broken(&self, link: &mut Arc<Link>) -> bool {
        link.down.is_cancelled()
    }
}

/// Where bb8 tells why it could not connect.
#[derive(Debug, Clone)]
pub(super) struct Failures(pub(super) mpsc::UnboundedSender<Error>);

impl ErrorSink<Error> for Failures {
    fn sink(&self, error: Error) {
        // The keeper is gone: nobody wants to know.
        let _ = self.0.send(error);
    }

    fn boxed_clone(&self) -> Box<dyn ErrorSink<Error>> {
        Box::new(self.clone())
    }
}
