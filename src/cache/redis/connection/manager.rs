//! Makes connections for bb8: dials, logs in, and checks that the server answers in time.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bb8::{ErrorSink, ManageConnection};
use bb8_redis::RedisConnectionManager;
use redis::aio::MultiplexedConnection;
use redis::{RedisError, Value};
use tokio::sync::{Notify, mpsc};
use tokio::time::timeout;

use super::sentinel::Sentinels;
use super::server::{Mode, Role, Server, cluster_size, primaries};
use super::{Health, Link, Slot, Terms};
use crate::cache::redis::dial::{DialError, Dialled, dial};
use crate::cache::redis::errors::unreachable;
use crate::error::Error;
use crate::server_url::RedisUrl;

/// Time to connect, to log in and to be answered once. Longer than a cache budget, since it happens in the
/// background.
pub(super) const CONNECT_DEADLINE: Duration = Duration::from_millis(500);

/// bb8-redis's manager, except that a connection can be known to be broken, and that the deadlines are
/// ours.
pub(super) struct Manager {
    url: RedisUrl,
    /// Who names the server; `None`: the address does.
    sentinels: Option<Sentinels>,
    /// Of a node of a cluster: notified when the cluster's map may be outdated.
    outdated: Option<Arc<Notify>>,
    inner: RedisConnectionManager,
    terms: Terms,
    slot: Arc<Slot>,
}

impl Manager {
    pub(super) fn new(
        url: &RedisUrl,
        terms: Terms,
        slot: Arc<Slot>,
        outdated: Option<Arc<Notify>>,
    ) -> Result<Self, RedisError> {
        Ok(Self {
            url: url.clone(),
            sentinels: Sentinels::of(url, terms.limits),
            outdated,
            inner: RedisConnectionManager::new(url.info())?,
            terms,
            slot,
        })
    }

    /// Logs in to the server, or to the primary that the Sentinels name.
    async fn log_in(&self) -> Result<Arc<Link>, Error> {
        let Some(sentinels) = &self.sentinels else {
            return self.log_in_to(&self.url).await;
        };
        let primary = self.url.node(sentinels.primary().await?, None);
        let link = self.log_in_to(&primary).await?;
        if link.server.get().map(|server| server.role) == Some(Role::Replica) {
            let reason = "it is a replica: the Sentinels are about to name another primary";
            return Err(unreachable(&primary, reason.to_owned()));
        }
        Ok(link)
    }

    /// Makes a connection on which Redis has answered in time. A server that accepts and is too slow to be of
    /// use, or that refuses everything, is noticed here instead of by calls.
    async fn log_in_to(&self, url: &RedisUrl) -> Result<Arc<Link>, Error> {
        let patience = self.terms.patience;
        let check = async |dialled: Dialled| {
            let Dialled {
                mut connection,
                health,
                address,
            } = dialled;
            let endpoint = url.endpoint().clone();
            let link = Arc::new(Link::new(connection.clone(), endpoint, patience, health));
            self.slot.may_be_used_unchecked(&link);
            let hello = timeout(patience, self.greet(&connection)).await;
            let late = |_elapsed| Err(io::Error::from(io::ErrorKind::TimedOut).into());
            let server = Server::read(address, &hello.unwrap_or_else(late)?);
            let refused = match server.mode {
                Mode::Sentinel => Some(self.sentinel(url, &mut connection).await),
                // A cluster of one shard is used as any other server.
                Mode::Cluster if self.outdated.is_none() => {
                    self.of_several_shards(url, &mut connection).await
                }
                _ => None,
            };
            if let Some(reason) = refused {
                let server = url.to_string();
                return Err(DialError::Unreached(Error::Refused { server, reason }));
            }
            let clustered = server.mode == Mode::Cluster || self.outdated.is_some();
            link.one_by_one.store(clustered, Ordering::Relaxed);
            // Nothing else sets it.
            let _ = link.server.set(server);
            Ok(link)
        };
        let health = Arc::new(Health::new(self.outdated.clone()));
        let dialled = dial(url, self.terms.limits, health, CONNECT_DEADLINE, check);
        dialled.await.map_err(|error| error.of(url))
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

    /// Why a Sentinel that was given as Redis is refused, with what to write instead.
    async fn sentinel(&self, url: &RedisUrl, connection: &mut MultiplexedConnection) -> String {
        let mut ask = redis::cmd("SENTINEL");
        ask.arg("MASTERS");
        let asked = timeout(self.terms.patience, ask.query_async::<Value>(connection)).await;
        let primaries = match asked {
            Ok(Ok(answer)) => primaries(&answer),
            _ => Vec::new(),
        };
        let scheme = url.scheme();
        let endpoint = url.endpoint();
        let names = match &primaries[..] {
            [] => "NAME".to_owned(),
            primaries => primaries.join(&format!(" or {scheme}+sentinel://{endpoint}/")),
        };
        format!("it is a Sentinel: write {scheme}+sentinel://{endpoint}/{names}")
    }

    /// Why a node of a cluster of several shards is refused where it was given as one server; `None`: its
    /// cluster has one shard, or this login may not ask. MOVED says so later, then.
    async fn of_several_shards(
        &self,
        url: &RedisUrl,
        connection: &mut MultiplexedConnection,
    ) -> Option<String> {
        let mut ask = redis::cmd("CLUSTER");
        ask.arg("INFO");
        let asked = timeout(self.terms.patience, ask.query_async::<String>(connection)).await;
        let shards = cluster_size(&asked.ok()?.ok()?).filter(|&shards| shards > 1)?;
        Some(format!(
            "it is a node of a Redis Cluster of {shards} shards: write {}+cluster://{}",
            url.scheme(),
            url.endpoint()
        ))
    }
}

impl ManageConnection for Manager {
    type Connection = Arc<Link>;
    type Error = Error;

    async fn connect(&self) -> Result<Arc<Link>, Error> {
        self.log_in().await
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
