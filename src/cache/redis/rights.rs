//! Finds out which rights a login is missing of those that clients and workers need. Changes nothing.

use std::fmt;
use std::time::Duration;

use redis::Value;

use super::RedisStore;
use super::connection::Connection;
use super::errors::CommandError;
use super::nodes::Nodes;
use crate::cache::store::StoreError;
use crate::cache::{Key, Namespace};
use crate::error::quote;
use crate::procedure_name::ProcedureName;

/// Neither an argument nor a worker's number: nothing stands under these keys.
pub(super) const NOBODY: &str = "rpcache-doctor";

/// In place of a number: a command that is permitted fails over it, and does nothing.
pub(super) const NO_NUMBER: &str = "none";

/// Rights that a login is missing, as `ACL SETUSER` gives them: `+get`, `~fib:*`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct MissingRights {
    /// The user.
    pub user: String,
    /// Rights that clients need.
    pub client: Vec<String>,
    /// Rights that workers need beyond those.
    pub worker: Vec<String>,
}

impl MissingRights {
    pub(crate) fn is_empty(&self) -> bool {
        self.client.is_empty() && self.worker.is_empty()
    }

    /// Whether nothing can be looked up without them.
    pub(crate) fn forbids_lookups(&self) -> bool {
        let forbids = |right: &String| right == "+get" || right.starts_with('~');
        self.client.iter().any(forbids)
    }
}

impl fmt::Display for MissingRights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whom, rights) = if self.client.is_empty() {
            f.write_str("enough for clients; ")?;
            ("workers lack", &self.worker)
        } else {
            ("clients lack", &self.client)
        };
        write!(f, "{whom} {}", rights.join(" "))
    }
}

/// A command that clients or workers need on a key.
struct Needed {
    by_client: bool,
    /// The command and its arguments.
    command: Vec<String>,
    keys: String,
}

/// Redis' word on a command.
enum Permission {
    Granted,
    CommandMissing,
    KeyMissing,
}

impl RedisStore {
    pub(in crate::cache) async fn missing_rights(
        &self,
        namespace: Option<&Namespace>,
        procedure: &ProcedureName,
        limit: Duration,
    ) -> Result<MissingRights, StoreError> {
        let mut missing = MissingRights::default();
        // Each server has users of its own.
        for node in self.nodes.all() {
            self.missing_at(&node.connection, namespace, procedure, &mut missing, limit)
                .await?;
        }
        Ok(missing)
    }

    async fn missing_at(
        &self,
        connection: &Connection,
        namespace: Option<&Namespace>,
        procedure: &ProcedureName,
        missing: &mut MissingRights,
        limit: Duration,
    ) -> Result<(), CommandError> {
        let whoami = redis::cmd("ACL").arg("WHOAMI").clone();
        let user: Option<String> = match connection.run(&whoami, limit).await {
            Ok(user) => Some(user),
            Err(CommandError::Refused(_)) => None,
            Err(error) => return Err(error),
        };
        let of_cluster = matches!(self.nodes, Nodes::Cluster(_));
        for needed in needed(namespace, procedure, of_cluster) {
            let permission = permission(connection, user.as_deref(), &needed.command, limit);
            let right = match permission.await? {
                Permission::Granted => continue,
                Permission::CommandMissing if needed.command[0] == "cluster" => {
                    format!("+{}", needed.command.join("|"))
                }
                Permission::CommandMissing => format!("+{}", needed.command[0]),
                Permission::KeyMissing => format!("~{}", needed.keys),
            };
            let known = missing.client.contains(&right) || missing.worker.contains(&right);
            if !known && needed.by_client {
                missing.client.push(right);
            } else if !known {
                missing.worker.push(right);
            }
        }
        let configured = self.url.user();
        missing.user = quote(user.as_deref().unwrap_or(configured).as_bytes());
        Ok(())
    }
}

/// Asks by DRYRUN, where that is permitted; else by the attempt itself.
async fn permission(
    connection: &Connection,
    user: Option<&str>,
    command: &[String],
    limit: Duration,
) -> Result<Permission, CommandError> {
    if let Some(user) = user {
        let mut dryrun = redis::cmd("ACL");
        dryrun.arg("DRYRUN").arg(user).arg(command);
        match connection.run::<String>(&dryrun, limit).await {
            Ok(said) if said == "OK" => return Ok(Permission::Granted),
            Ok(said) => return Ok(missing(&said)),
            Err(CommandError::Refused(_)) => {}
            Err(error) => return Err(error),
        }
    }
    let attempt = redis::cmd(&command[0]).arg(&command[1..]).clone();
    match connection.run::<Value>(&attempt, limit).await {
        Err(CommandError::Refused(error)) if error.code() == Some("NOPERM") => {
            Ok(missing(error.detail().unwrap_or_default()))
        }
        Ok(_) | Err(CommandError::Refused(_)) => Ok(Permission::Granted),
        Err(error) => Err(error),
    }
}

fn needed(
    namespace: Option<&Namespace>,
    procedure: &ProcedureName,
    of_cluster: bool,
) -> Vec<Needed> {
    let key = Key::new(namespace, procedure, NOBODY);
    let prefix = key.as_str().strip_suffix(NOBODY).unwrap_or_default();
    let (answers, beside) = (format!("{prefix}*"), format!("{{{prefix}*"));
    let front = namespace.map_or(String::new(), |namespace| format!("{namespace}:"));
    let (slot, slots) = (
        format!("{front}rpcache:worker:{NOBODY}"),
        format!("{front}rpcache:worker:*"),
    );
    let (answer, lease, attempts) = (key.as_str(), key.lease(), key.attempts());
    let need = |by_client, command: &[&str], keys: &str| Needed {
        by_client,
        command: command.iter().map(|&arg| arg.to_owned()).collect(),
        keys: keys.to_owned(),
    };
    let set = |key| ["set", key, "", "PX", NO_NUMBER];
    let mut all = vec![
        need(true, &["get", answer], &answers),
        need(true, &["mget", answer], &answers),
        need(true, &set(answer), &answers),
        need(false, &["get", &lease], &beside),
        need(false, &set(&lease), &beside),
        need(false, &["eval", "return 0", "1", &lease], &beside),
        need(false, &["unlink", &lease], &beside),
        need(false, &["incrby", &attempts, NO_NUMBER], &beside),
        need(false, &["pexpire", &attempts, NO_NUMBER], &beside),
        need(false, &["mget", &slot], &slots),
        need(false, &set(&slot), &slots),
    ];
    if of_cluster {
        all.push(need(true, &["cluster", "slots"], ""));
        all.push(need(true, &["asking"], ""));
    }
    all
}

/// Versions of Redis word it differently; all mention keys, or the command.
fn missing(said: &str) -> Permission {
    if said.contains(" key") {
        Permission::KeyMissing
    } else {
        Permission::CommandMissing
    }
}
