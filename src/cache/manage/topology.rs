//! Whether the server is one that answers can be stored in and found on. Nothing is changed.

use redis::{ErrorKind, RedisError, ServerErrorKind, Value};

use super::super::Key;
use super::Cache;
use super::rights::{NO_NUMBER, NOBODY};
use crate::cache::connection::Mode;
use crate::error::Error;
use crate::procedure_name::ProcedureName;

/// Keys that are asked for: in a cluster of two shards, all but one of a million sets have one elsewhere.
const PROBES: u32 = 20;

/// Why answers are not stored by a server that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Misfit {
    /// It is a replica that takes no writes: its address.
    Replica(String),
    /// Its cluster has several shards; how many, if this login is told.
    Shards(Option<u64>),
}

impl Cache {
    /// What is wrong with the server, if anything is. `None` as well where this login has no rights to find
    /// out.
    pub(crate) async fn misfit(&self, procedure: &ProcedureName) -> Result<Option<Misfit>, Error> {
        let key = |name: &str| Key::new(self.options.namespace.as_ref(), procedure, name);
        let mut commands = redis::pipe();
        commands.ignore_errors();
        // Where it may be done, this fails over the number, and does nothing.
        let set = commands.cmd("SET").arg(key(NOBODY).as_str()).arg("");
        set.arg("PX").arg(NO_NUMBER);
        for probe in 0..PROBES {
            commands.get(key(&format!("{NOBODY}-{probe}")).as_str());
        }
        let said: Vec<Result<Value, RedisError>> = self.ask_all(&commands).await?;
        let refused = |kind: ServerErrorKind| {
            let is_it = |error: &RedisError| error.kind() == ErrorKind::Server(kind);
            said.iter().any(|said| said.as_ref().is_err_and(is_it))
        };
        let server = self.connection.server().unwrap_or_default();
        if refused(ServerErrorKind::Moved) || refused(ServerErrorKind::Ask) {
            return Ok(Some(Misfit::Shards(self.shards().await?)));
        }
        if refused(ServerErrorKind::ReadOnly) {
            let url = || self.options.url.to_string();
            let address = server
                .address
                .map_or_else(url, |address| address.to_string());
            return Ok(Some(Misfit::Replica(address)));
        }
        if server.mode == Mode::Cluster {
            // All that was asked for may be here by chance.
            let shards = self.shards().await?;
            let several = shards.filter(|&shards| shards > 1);
            return Ok(several.map(|shards| Misfit::Shards(Some(shards))));
        }
        Ok(None)
    }

    /// How many shards the cluster has; `None`: this login is not told.
    async fn shards(&self) -> Result<Option<u64>, Error> {
        let mut info = redis::cmd("CLUSTER");
        info.arg("INFO");
        match self.ask::<String>(&info).await {
            Ok(info) => {
                let mut lines = info.lines();
                let size = lines.find_map(|line| line.strip_prefix("cluster_size:"));
                Ok(size.and_then(|size| size.parse().ok()))
            }
            Err(Error::Refused { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }
}
