//! The findings of the checks, as values. The command adds the remedies.

use std::fmt;
use std::time::Duration;

use super::{Check, ClusterProblem};
use crate::broker::Declared;
use crate::cache::MissingRights;
use crate::error::{Error, human};
use crate::server_url::UrlError;

/// The result of one check.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Finding {
    /// The check.
    pub check: Check,
    /// How bad it is.
    pub severity: Severity,
    /// What was found. Its `Display` is one line without a remedy.
    pub found: Found,
}

/// How bad a [`Finding`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Severity {
    /// No problem.
    Ok,
    /// Calls work, but a guarantee or performance is lost, or may be.
    Warning,
    /// Calls fail, or the cache is useless.
    Failure,
    /// Not checked, see [`Found::After`] and [`Found::Unknown`].
    Skipped,
}

impl Severity {
    /// `ok`, `warning`, `failure` or `skipped`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Failure => "failure",
            Self::Skipped => "skipped",
        }
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// What a check found. Peer text in it is escaped and shortened; it contains no password.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Found {
    /// The address, without its password.
    Address(String),
    /// The address is invalid.
    NoAddress(UrlError),
    /// The result for each node of a server.
    Nodes {
        /// A text for each node that works.
        working: Vec<String>,
        /// A text for each node that failed, with the reason.
        failed: Vec<String>,
    },
    /// The cluster as RabbitMQ's management API shows it.
    Cluster {
        /// The number of its nodes.
        nodes: usize,
        /// The node that leads the request queue, if it is known.
        leader: Option<String>,
        /// What is wrong.
        problems: Vec<ClusterProblem>,
    },
    /// The server runs on this machine: nothing is sent over a network.
    ThisMachine,
    /// The server is another machine, and the connection is not encrypted.
    PlainText,
    /// The login of this user was accepted.
    LoggedIn(String),
    /// Logged in to servers that the address does not name itself.
    LoggedInTo {
        /// The user.
        user: String,
        /// The servers.
        servers: String,
    },
    /// This vhost exists.
    Vhost(String),
    /// The check failed.
    Failed(Error),
    /// Not known, with the reason: the server's message, where this login lacks a right.
    Unknown(String),
    /// Skipped because this check failed.
    After(Check),
    /// Requests can be published.
    MayPublish,
    /// Requests cannot be published.
    MayNotPublish {
        /// The user.
        user: String,
        /// The vhost.
        vhost: String,
        /// The broker's message.
        message: String,
    },
    /// The request queue exists, declared like this.
    Queue(Declared),
    /// This queue does not exist.
    NoQueue(String),
    /// This queue is exclusive to another program's connection: no worker can consume it.
    ExclusiveQueue(String),
    /// The consumers of a queue.
    Consumers {
        /// The queue's name.
        queue: String,
        /// The number of its consumers.
        consumers: u32,
        /// The number of messages that wait in it.
        waiting: u32,
    },
    /// The server's version.
    Version(String),
    /// This login has all rights that a client and a worker need.
    Rights,
    /// Rights are missing.
    MissingRights(MissingRights),
    /// Redis at this address is a read-only replica.
    ReadOnlyReplica(String),
    /// Redis is a node of a cluster of several shards (their number, if known), and is given as one server.
    Shards(Option<u64>),
    /// Redis' memory limit and eviction policy.
    Memory {
        /// In bytes; `None`: unlimited.
        limit: Option<u64>,
        /// The eviction policy: peer text.
        policy: String,
        /// Whether answers have no TTL.
        for_ever: bool,
    },
    /// A worker computed the answer, in so much time.
    Answered(Duration),
    /// The answer that was stored by a call is found, in so much time.
    Hit(Duration),
    /// All probes' answers were stored before, and are found, in so much time.
    AlreadyStored(Duration),
    /// A [hit](Self::Hit), but the key held another value than the answer before.
    Replaced {
        /// The key.
        key: String,
        /// The value before: peer text.
        held: String,
    },
    /// The answer is stored, but Redis answers later than this cache budget.
    TooLate(Duration),
    /// The workers use another cache: their answer is not found under this key.
    StoredElsewhere(String),
    /// Neither the worker nor this client could store the answer under this key.
    NotStored(String),
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(text) | Self::Vhost(text) | Self::Version(text) => f.write_str(text),
            Self::NoAddress(error) => error.fmt(f),
            Self::Nodes { working, failed } => {
                let all: Vec<_> = failed.iter().chain(working).map(String::as_str).collect();
                f.write_str(&all.join("; "))
            }
            Self::Cluster {
                nodes,
                leader,
                problems,
            } => {
                let mut facts: Vec<_> = problems.iter().map(ToString::to_string).collect();
                facts.push(format!("{nodes} node{}", if *nodes == 1 { "" } else { "s" }));
                facts.extend(leader.as_ref().map(|node| format!("{node} leads the request queue")));
                f.write_str(&facts.join("; "))
            }
            Self::ThisMachine => f.write_str("not needed: the server is this machine"),
            Self::PlainText => {
                f.write_str("none: the server is another machine, and others on the network can read everything")
            }
            Self::LoggedIn(user) => write!(f, "as {user}"),
            Self::LoggedInTo { user, servers } => write!(f, "as {user}, to {servers}"),
            Self::Failed(error) => error.fmt(f),
            Self::Unknown(reason) => write!(f, "unknown: {reason}"),
            Self::After(check) => write!(f, "because of {check}"),
            Self::MayPublish => f.write_str("requests can be published"),
            Self::MayNotPublish { message, .. } => {
                write!(f, "requests cannot be published: {message}")
            },
            Self::Queue(declared) => declared.fmt(f),
            Self::NoQueue(queue) => write!(f, "there is no queue {queue}"),
            Self::ExclusiveQueue(queue) => {
                write!(f, "{queue} is exclusive to another program's connection")
            }
            Self::Consumers {
                queue,
                consumers,
                waiting,
            } => {
                let plural = if *consumers == 1 { "" } else { "s" };
                write!(
                    f,
                    "{queue}: {consumers} consumer{plural}, {waiting} waiting"
                )
            }
            Self::Rights => f.write_str("all that a client and a worker need"),
            Self::MissingRights(missing) => missing.fmt(f),
            Self::ReadOnlyReplica(address) => {
                write!(
                    f,
                    "{address} is a read-only replica: answers are not stored there"
                )
            }
            Self::Shards(shards) => {
                let several = || "several".to_owned();
                let shards = shards.map_or_else(several, |shards| shards.to_string());
                write!(
                    f,
                    "a node of a Redis Cluster of {shards} shards, given as one server: most answers are \
                     neither found nor stored"
                )
            }
            Self::Memory {
                limit,
                policy,
                for_ever,
            } => f.write_str(&memory(*limit, policy, *for_ever)),
            Self::Answered(took) => write!(f, "a worker answered in {}", millis(*took)),
            Self::Hit(took) => write!(f, "stored by the call, then found in {}", millis(*took)),
            Self::AlreadyStored(took) => {
                write!(
                    f,
                    "found in {}; storing was not tried, because all probes were stored already",
                    millis(*took)
                )
            }
            Self::Replaced { key, held } => {
                write!(
                    f,
                    "{key} held \"{held}\", which is not the answer; the call has replaced it"
                )
            }
            Self::TooLate(budget) => {
                write!(
                    f,
                    "stored, but Redis answers later than the cache budget of {}",
                    human(*budget)
                )
            }
            Self::StoredElsewhere(key) => {
                write!(f, "{key} is in the worker's cache, and not in this one")
            }
            Self::NotStored(key) => write!(f, "the answer was not stored under {key}"),
        }
    }
}

/// Describes a memory limit and what happens when it is reached.
fn memory(limit: Option<u64>, policy: &str, for_ever: bool) -> String {
    let Some(limit) = limit else {
        let fills = if for_ever {
            ", and answers are stored for ever"
        } else {
            ": all answers stored within a TTL must fit"
        };
        return format!("unlimited{fills}");
    };
    let refuses = policy == "noeviction" || for_ever && policy.starts_with("volatile-");
    let effect = if refuses {
        ": it refuses to store when full"
    } else {
        ""
    };
    format!("limited to {} MB, {policy}{effect}", limit / 1_000_000)
}

/// Formats a duration as `0.3 ms`, or as `83 µs` below 0.1 ms.
fn millis(took: Duration) -> String {
    match took.as_micros() {
        micros @ ..100 => format!("{micros} µs"),
        _ => format!("{:.1} ms", took.as_secs_f64() * 1e3),
    }
}
