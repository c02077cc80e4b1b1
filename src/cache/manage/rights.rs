//! What a login may do in Redis, of all that clients and workers do there. Nothing is changed.

use std::collections::HashMap;
use std::fmt;

use redis::Value;

use super::super::Key;
use super::{Cache, State, Unanswered};
use crate::error::{Error, quote};
use crate::procedure_name::ProcedureName;

/// No argument is written like this, and no worker sits there: nothing stands under these keys.
pub(super) const NOBODY: &str = "rpcache-doctor";

/// Where a number is expected: if the right is there, the command fails over this, and does nothing.
pub(super) const NO_NUMBER: &str = "none";

/// The rights that a login lacks, as `ACL SETUSER` gives them: `+get`, `~fib:*`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Lacking {
    /// The user.
    pub user: String,
    /// What clients need.
    pub client: Vec<String>,
    /// What workers need beyond that.
    pub worker: Vec<String>,
}

impl Lacking {
    pub(crate) fn is_nothing(&self) -> bool {
        self.client.is_empty() && self.worker.is_empty()
    }

    /// Whether there is no hit without them.
    pub(crate) fn forbids_lookups(&self) -> bool {
        let forbids = |right: &String| right == "+get" || right.starts_with('~');
        self.client.iter().any(forbids)
    }
}

impl fmt::Display for Lacking {
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

/// A command that somebody needs on a key.
struct Needed {
    by_client: bool,
    /// The command and its arguments.
    command: Vec<String>,
    keys: String,
}

/// What Redis says to an attempt.
enum Said {
    Yes,
    NotThisCommand,
    NotThisKey,
}

impl Cache {
    /// Waits for the first attempt to connect, and tells how it ended.
    pub(crate) async fn connected(&self) -> Result<(), Error> {
        self.connection.settled().await;
        match self.connection.state() {
            State::Up => Ok(()),
            _ => Err(self.error(Unanswered::Unavailable)),
        }
    }

    /// Redis' version; `None`: it does not tell. HELLO needs no right.
    pub(crate) async fn version(&self) -> Result<Option<String>, Error> {
        match self.manage(&redis::cmd("HELLO")).await {
            Ok(said) => {
                let said: HashMap<String, Value> = said;
                Ok(match said.get("version") {
                    Some(Value::BulkString(text)) => Some(quote(text)),
                    _ => None,
                })
            }
            Err(Unanswered::Refused(_)) => {
                Ok(self.server_stats().await?.map(|stats| stats.version))
            }
            Err(unanswered) => Err(self.error(unanswered)),
        }
    }

    /// What this login lacks of the rights that the procedure's clients and workers need.
    pub(crate) async fn lacking(&self, procedure: &ProcedureName) -> Result<Lacking, Error> {
        let whoami = redis::cmd("ACL").arg("WHOAMI").clone();
        let user: Option<String> = match self.manage(&whoami).await {
            Ok(user) => Some(user),
            Err(Unanswered::Refused(_)) => None,
            Err(unanswered) => return Err(self.error(unanswered)),
        };
        let mut lacking = Lacking::default();
        for needed in self.needed(procedure) {
            let right = match self.may(user.as_deref(), &needed.command).await? {
                Said::Yes => continue,
                Said::NotThisCommand => format!("+{}", needed.command[0]),
                Said::NotThisKey => format!("~{}", needed.keys),
            };
            let known = lacking.client.contains(&right) || lacking.worker.contains(&right);
            if !known && needed.by_client {
                lacking.client.push(right);
            } else if !known {
                lacking.worker.push(right);
            }
        }
        let configured = self.options.url.user();
        lacking.user = quote(user.as_deref().unwrap_or(configured).as_bytes());
        Ok(lacking)
    }

    /// Asks by DRYRUN, where that is allowed; else by the attempt itself.
    async fn may(&self, user: Option<&str>, command: &[String]) -> Result<Said, Error> {
        if let Some(user) = user {
            let mut dryrun = redis::cmd("ACL");
            dryrun.arg("DRYRUN").arg(user).arg(command);
            match self.manage::<String>(&dryrun).await {
                Ok(said) if said == "OK" => return Ok(Said::Yes),
                Ok(said) => return Ok(refused(&said)),
                Err(Unanswered::Refused(_)) => {}
                Err(unanswered) => return Err(self.error(unanswered)),
            }
        }
        let attempt = redis::cmd(&command[0]).arg(&command[1..]).clone();
        match self.manage::<Value>(&attempt).await {
            Err(Unanswered::Refused(error)) if error.code() == Some("NOPERM") => {
                Ok(refused(error.detail().unwrap_or_default()))
            }
            Ok(_) | Err(Unanswered::Refused(_)) => Ok(Said::Yes),
            Err(unanswered) => Err(self.error(unanswered)),
        }
    }

    fn needed(&self, procedure: &ProcedureName) -> Vec<Needed> {
        let namespace = self.options.namespace.as_ref();
        let key = Key::new(namespace, procedure, NOBODY);
        let prefix = key.as_str().strip_suffix(NOBODY).unwrap_or_default();
        let (answers, beside) = (format!("{prefix}*"), format!("{{{prefix}*"));
        let front = namespace.map_or(String::new(), |namespace| format!("{namespace}:"));
        let (place, places) = (
            format!("{front}rpcache:worker:{NOBODY}"),
            format!("{front}rpcache:worker:*"),
        );
        let (answer, lease, starts) = (key.as_str(), key.lease(), key.starts());
        let need = |by_client, command: &[&str], keys: &str| Needed {
            by_client,
            command: command.iter().map(|&arg| arg.to_owned()).collect(),
            keys: keys.to_owned(),
        };
        let set = |key| ["set", key, "", "PX", NO_NUMBER];
        vec![
            need(true, &["get", answer], &answers),
            need(true, &["mget", answer], &answers),
            need(true, &set(answer), &answers),
            need(false, &["get", &lease], &beside),
            need(false, &set(&lease), &beside),
            need(false, &["eval", "return 0", "1", &lease], &beside),
            need(false, &["unlink", &lease], &beside),
            need(false, &["incrby", &starts, NO_NUMBER], &beside),
            need(false, &["pexpire", &starts, NO_NUMBER], &beside),
            need(false, &["mget", &place], &places),
            need(false, &set(&place), &places),
        ]
    }
}

/// Versions word it otherwise; all speak of keys, or of the command.
fn refused(said: &str) -> Said {
    if said.contains(" key") {
        Said::NotThisKey
    } else {
        Said::NotThisCommand
    }
}
