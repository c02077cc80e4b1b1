//! The servers behind an address: one, or the nodes of a cluster. Commands go to the one that has the key.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use redis::{Cmd, FromRedisValue, Pipeline, Value};

use super::batcher::{Batcher, InFlight};
use super::cluster::{Cluster, slot};
use super::connection::{Connection, Request, readable};
use super::errors::CommandError;
use crate::transport::Endpoint;

/// One server: its connection, and the lookups that share it.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) endpoint: Endpoint,
    pub(super) connection: Arc<Connection>,
    pub(super) batcher: Batcher,
}

/// What an address leads to.
#[derive(Debug)]
pub(super) enum Nodes {
    One(Arc<Node>),
    Cluster(Cluster),
}

impl Node {
    /// `in_flight`: shared by the nodes of a cluster.
    pub(super) fn new(
        endpoint: Endpoint,
        connection: Connection,
        in_flight: Arc<InFlight>,
        budget: Duration,
    ) -> Self {
        let connection = Arc::new(connection);
        Self {
            endpoint,
            batcher: Batcher::new(Arc::clone(&connection), in_flight, budget),
            connection,
        }
    }

    /// Sends commands, `twice` if they may be carried out twice.
    pub(super) async fn send(
        &self,
        request: Request<'_>,
        twice: bool,
        limit: Duration,
    ) -> Result<Value, CommandError> {
        if twice {
            self.connection.send_twice(request, limit).await
        } else {
            self.connection.send(request, limit).await
        }
    }
}

impl Nodes {
    /// All servers that hold keys; none while a cluster's map is not known.
    pub(super) fn all(&self) -> Vec<Arc<Node>> {
        match self {
            Self::One(node) => vec![Arc::clone(node)],
            Self::Cluster(cluster) => cluster.owners(),
        }
    }

    /// Whether commands on this key would be sent now, or in a moment.
    pub(super) fn is_up(&self, key: &[u8]) -> bool {
        match self {
            Self::One(node) => node.connection.is_up(),
            Self::Cluster(cluster) => cluster
                .owner(slot(key))
                .is_some_and(|node| node.connection.is_up()),
        }
    }

    /// Runs commands on one key, or on keys that share its slot. Several have no command that is ignored: in a
    /// cluster, those that are redirected are sent again.
    pub(super) async fn run<T: FromRedisValue>(
        &self,
        key: impl AsRef<[u8]>,
        request: impl Into<Request<'_>>,
        limit: Duration,
    ) -> Result<T, CommandError> {
        readable(self.send(key.as_ref(), request.into(), false, limit).await)
    }

    /// Runs commands that may be carried out twice, as [`run`](Self::run) does.
    pub(super) async fn run_twice<T: FromRedisValue>(
        &self,
        key: impl AsRef<[u8]>,
        request: impl Into<Request<'_>>,
        limit: Duration,
    ) -> Result<T, CommandError> {
        readable(self.send(key.as_ref(), request.into(), true, limit).await)
    }

    async fn send(
        &self,
        key: &[u8],
        request: Request<'_>,
        twice: bool,
        limit: Duration,
    ) -> Result<Value, CommandError> {
        match self {
            Self::One(node) => node.send(request, twice, limit).await,
            // In a box: the future of a call to one server stays small.
            Self::Cluster(cluster) => {
                Box::pin(cluster.send(slot(key), request, twice, limit)).await
            }
        }
    }

    /// Runs for each key the commands that `add` adds, the same number for each: the replies in the order of
    /// the keys, each an error of its own. One round trip to each server.
    pub(super) async fn run_each(
        &self,
        keys: &[&[u8]],
        add: impl Fn(&mut Pipeline, usize),
        limit: Duration,
    ) -> Vec<Result<Value, CommandError>> {
        match self {
            Self::One(node) => {
                let mut commands = redis::pipe();
                commands.ignore_errors();
                (0..keys.len()).for_each(|at| add(&mut commands, at));
                let sent = node.connection.send((&commands).into(), limit).await;
                each_reply(sent, commands.len())
            }
            Self::Cluster(cluster) => cluster.send_each(keys, add, false, limit).await,
        }
    }

    /// Runs a command on every server that holds keys.
    pub(super) async fn run_everywhere<T: FromRedisValue>(
        &self,
        command: &Cmd,
        limit: Duration,
    ) -> Result<Vec<T>, CommandError> {
        let nodes = self.all();
        let run = nodes.iter().map(|node| node.connection.run(command, limit));
        let replies: Vec<_> = join_all(run).await;
        if replies.is_empty() {
            return Err(CommandError::Unavailable);
        }
        replies.into_iter().collect()
    }

    /// Runs commands that any server carries out for all.
    pub(super) async fn run_anywhere<T: FromRedisValue>(
        &self,
        request: impl Into<Request<'_>>,
        limit: Duration,
    ) -> Result<T, CommandError> {
        let request = request.into();
        let mut nodes = self.all();
        nodes.sort_by_key(|node| !node.connection.is_up());
        let mut result = Err(CommandError::Unavailable);
        for node in nodes {
            result = node.connection.run(request, limit).await;
            if !matches!(result, Err(CommandError::Unavailable)) {
                break;
            }
        }
        result
    }
}

/// The replies to so many commands of one pipeline.
pub(super) fn each_reply(
    sent: Result<Value, CommandError>,
    count: usize,
) -> Vec<Result<Value, CommandError>> {
    match sent {
        Ok(Value::Array(replies)) if replies.len() == count => {
            let reply = |reply| match reply {
                Value::ServerError(error) => Err(CommandError::Refused(error.into())),
                reply => Ok(reply),
            };
            replies.into_iter().map(reply).collect()
        }
        // redis-rs counts the replies.
        Ok(_) => vec![Err(CommandError::Unavailable); count],
        Err(error) => vec![Err(error); count],
    }
}
