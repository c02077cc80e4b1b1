//! Finds out whether the server is one on which answers can be stored and found. Changes nothing.

use std::time::Duration;

use redis::{ErrorKind, RedisError, ServerErrorKind, Value};

use super::RedisStore;
use super::connection::{Connection, Mode, cluster_size};
use super::errors::CommandError;
use super::nodes::Nodes;
use super::rights::{NO_NUMBER, NOBODY};
use crate::cache::store::StoreError;
use crate::cache::{Key, Namespace};
use crate::procedure_name::ProcedureName;

/// The number of keys that are looked up. In a cluster of two shards, the chance that all are on this one is about
/// one in a million.
const PROBES: u32 = 20;

/// Why a server that is there does not store answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ServerFault {
    /// It is a replica that takes no writes: its address.
    Replica(String),
    /// Its cluster has several shards; how many, if this login may ask.
    Shards(Option<u64>),
}

impl RedisStore {
    pub(in crate::cache) fn servers(&self) -> Option<String> {
        let nodes = self.nodes.all();
        match &self.nodes {
            Nodes::Cluster(_) => {
                let endpoints: Vec<_> =
                    nodes.iter().map(|node| node.endpoint.to_string()).collect();
                let (count, endpoints) = (endpoints.len(), endpoints.join(", "));
                Some(format!("a Redis Cluster of {count} primaries, {endpoints}"))
            }
            Nodes::One(node) => {
                self.url.sentinels()?;
                let primary = node.connection.endpoint()?;
                Some(format!("{primary}, the primary by the Sentinels"))
            }
        }
    }

    pub(in crate::cache) async fn server_fault(
        &self,
        namespace: Option<&Namespace>,
        procedure: &ProcedureName,
        limit: Duration,
    ) -> Result<Option<ServerFault>, StoreError> {
        let Nodes::One(node) = &self.nodes else {
            return Ok(None);
        };
        let connection = &node.connection;
        let key = |name: &str| Key::new(namespace, procedure, name);
        let mut commands = redis::pipe();
        commands.ignore_errors();
        // Where it is permitted, this fails over the number, and does nothing.
        let set = commands.cmd("SET").arg(key(NOBODY).as_str()).arg("");
        set.arg("PX").arg(NO_NUMBER);
        for probe in 0..PROBES {
            commands.get(key(&format!("{NOBODY}-{probe}")).as_str());
        }
        let replies: Vec<Result<Value, RedisError>> = connection.run(&commands, limit).await?;
        let refused = |kind: ServerErrorKind| {
            let is_it = |error: &RedisError| error.kind() == ErrorKind::Server(kind);
            replies.iter().any(|reply| reply.as_ref().is_err_and(is_it))
        };
        let server = connection.server().unwrap_or_default();
        if refused(ServerErrorKind::Moved) || refused(ServerErrorKind::Ask) {
            return Ok(Some(ServerFault::Shards(shards(connection, limit).await?)));
        }
        if refused(ServerErrorKind::ReadOnly) {
            let address = server
                .address
                .map_or_else(|| self.url.to_string(), |address| address.to_string());
            return Ok(Some(ServerFault::Replica(address)));
        }
        if server.mode == Mode::Cluster {
            // All probes may be on this shard by chance.
            let shards = shards(connection, limit).await?;
            let several = shards.filter(|&shards| shards > 1);
            return Ok(several.map(|shards| ServerFault::Shards(Some(shards))));
        }
        Ok(None)
    }
}

/// How many shards the cluster has; `None`: this login may not ask.
async fn shards(connection: &Connection, limit: Duration) -> Result<Option<u64>, StoreError> {
    let mut info = redis::cmd("CLUSTER");
    info.arg("INFO");
    match connection.run::<String>(&info, limit).await {
        Ok(info) => Ok(cluster_size(&info)),
        Err(CommandError::Refused(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}
