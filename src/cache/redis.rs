//! The store in Redis: plain strings, in one server or in the nodes of a cluster; commands to a server are
//! multiplexed over one connection.
//!
//! Here are the commands of a call: looking up an answer, claiming, filling. [`batcher`] combines lookups,
//! [`connection`] sends; [`cluster`] finds the node that has the key, where there are several. The rest is
//! what no hit passes.
//!
//! Nothing outside of this folder knows redis-rs or bb8. What comes out of it is described in the words of
//! [`super::store`].

mod announcements;
mod attempts;
mod batcher;
mod breaker;
mod cluster;
mod connection;
mod dial;
mod entries;
mod errors;
mod guard;
mod info;
mod lease;
mod listener;
mod nodes;
mod resp;
mod rights;
mod topology;

#[cfg(test)]
pub(crate) mod fake;

use std::sync::Arc;
use std::time::Duration;

use futures_util::{FutureExt as _, TryFutureExt as _};
use redis::{Cmd, Pipeline, RedisError, Value};

pub use self::rights::MissingRights;
pub(crate) use self::topology::ServerFault;

use self::batcher::get_many;
use self::cluster::Cluster;
use self::connection::{Connection, Terms, readable};
use self::errors::{CommandError, refused};
use self::lease::{bound, release, take};
use self::nodes::{Node, Nodes};
use self::resp::Limits;
use super::store::{Claimed, Filled, GetResult, StoreError};
use super::{CacheOptions, Key, Token};
use crate::counts::{CacheCounts, ConnectionState};
use crate::server_url::RedisUrl;

/// Largest value that is read, in bytes, unless larger answers may be stored.
const MAX_READ: u64 = 64 << 20;

/// Redis as a store. Dropping it closes the connections.
#[derive(Debug)]
pub(crate) struct RedisStore {
    url: RedisUrl,
    limits: Limits,
    counts: Arc<CacheCounts>,
    nodes: Nodes,
}

impl RedisStore {
    pub(super) fn open(options: &CacheOptions, counts: Arc<CacheCounts>) -> Self {
        let terms = terms(options);
        let url = options.url.clone();
        if url.is_cluster() {
            let cluster = Cluster::open(url, terms, Arc::clone(&counts));
            return Self::over(options, Nodes::Cluster(cluster), counts);
        }
        let ahead = options.wait_for_connection;
        let endpoint = url.endpoint().clone();
        let connection = Connection::open(url, terms, ahead, Arc::clone(&counts));
        let node = Node::new(endpoint, connection, Arc::default(), options.budget);
        Self::over(options, Nodes::One(Arc::new(node)), counts)
    }

    fn over(options: &CacheOptions, nodes: Nodes, counts: Arc<CacheCounts>) -> Self {
        Self {
            url: options.url.clone(),
            limits: terms(options).limits,
            counts,
            nodes,
        }
    }

    pub(super) fn is_up(&self, key: &Key) -> bool {
        self.nodes.is_up(key.as_bytes())
    }

    pub(super) async fn ready(&self) {
        match &self.nodes {
            Nodes::One(node) => node.connection.ready().await,
            Nodes::Cluster(cluster) => cluster.ready(self.settled()).await,
        }
    }

    pub(super) async fn settled(&self) {
        let mut state = self.counts.redis.subscribe();
        // The sender cannot be gone: it is ours.
        let _ = state
            .wait_for(|state| *state != ConnectionState::Connecting)
            .await;
    }

    pub(super) async fn up(&self) {
        let mut state = self.counts.redis.subscribe();
        // The sender cannot be gone: it is ours.
        let _ = state.wait_for(|state| *state == ConnectionState::Up).await;
    }
}

impl RedisStore {
    pub(in crate::cache) fn get(
        &self,
        key: &str,
        limit: Duration,
    ) -> impl Future<Output = GetResult> + Send {
        let found = match &self.nodes {
            Nodes::One(node) => node.batcher.get(key, limit).left_future(),
            Nodes::Cluster(cluster) => cluster.get(key, limit).right_future(),
        };
        found.err_into()
    }

    pub(in crate::cache) async fn get_many(
        &self,
        keys: &[&[u8]],
        limit: Duration,
    ) -> Result<Vec<GetResult>, StoreError> {
        let found = match &self.nodes {
            Nodes::One(node) => get_many(&node.connection, &Cmd::mget(keys), limit).await?,
            Nodes::Cluster(cluster) => {
                let get = |commands: &mut Pipeline, at: usize| {
                    commands.get(keys[at]);
                };
                let found = cluster.send_each(keys, get, true, limit).await;
                found.into_iter().map(readable).collect()
            }
        };
        let of_key = |found: Result<_, CommandError>| found.map_err(StoreError::from);
        Ok(found.into_iter().map(of_key).collect())
    }

    pub(in crate::cache) async fn read(&self, key: &Key, limit: Duration) -> GetResult {
        let get = Cmd::get(key.as_str());
        Ok(self.nodes.run(key.as_str(), &get, limit).await?)
    }

    pub(in crate::cache) async fn claim(
        &self,
        lease: &str,
        token: &Token,
        ttl: Duration,
        key: Option<&Key>,
        limit: Duration,
    ) -> Result<Claimed, StoreError> {
        let mut commands = redis::pipe();
        commands
            .ignore_errors()
            .add_command(take(lease, token, ttl));
        if let Some(key) = key {
            commands.get(key.as_str());
        }
        commands.add_command(bound(lease, ttl));
        let replies: Vec<Result<Value, RedisError>> =
            self.nodes.run_twice(lease, &commands, limit).await?;
        let mut replies = replies.into_iter().map(bytes);
        let held = replies.next().ok_or(StoreError::Unavailable)?;
        let found = key.and_then(|_| replies.next());
        Ok(Claimed {
            held: held.map_err(Into::into),
            found: found.map(|found| found.map_err(refused)),
        })
    }

    pub(in crate::cache) async fn fill(
        &self,
        key: &Key,
        answer: &[u8],
        ttl: Option<Duration>,
        lease: Option<(&str, &Token)>,
        limit: Duration,
    ) -> Result<Filled, StoreError> {
        let mut commands = redis::pipe();
        commands
            .ignore_errors()
            .add_command(set(key.as_str(), answer, ttl));
        if let Some((lease, token)) = lease {
            commands.add_command(release(lease, token));
        }
        let replies: Vec<Result<Value, RedisError>> =
            self.nodes.run_twice(key.as_str(), &commands, limit).await?;
        match replies.into_iter().next() {
            Some(Ok(_)) => Ok(Filled::Stored),
            Some(Err(error)) => Ok(Filled::Refused(error.into())),
            None => Err(StoreError::Unavailable),
        }
    }
}

/// A reply to one command of several: a string, or nothing.
fn bytes(reply: Result<Value, RedisError>) -> Result<Option<Vec<u8>>, RedisError> {
    Ok(redis::from_redis_value(reply?)?)
}

/// SET, for ever without a TTL.
fn set(key: &str, value: &[u8], ttl: Option<Duration>) -> Cmd {
    let mut command = redis::cmd("SET");
    command.arg(key).arg(value);
    if let Some(ttl) = ttl {
        // Redis refuses 0.
        let millis = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
        command.arg("PX").arg(millis.max(1));
    }
    command
}

/// How long commands may take, what is read of one value, and of one reply with several.
fn terms(options: &CacheOptions) -> Terms {
    let size = options.max_answer_size.map_or(0, |size| size as u64);
    let string = size.max(MAX_READ);
    Terms {
        patience: options.budget,
        limits: Limits {
            string,
            reply: string.saturating_mul(4),
        },
    }
}
