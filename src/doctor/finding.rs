//! What was found, as values: what to do about it is for whoever asked to say.

use std::fmt;
use std::time::Duration;

use super::Check;
use crate::broker::Declared;
use crate::cache::MissingRights;
use crate::error::{Error, human};
use crate::server_url::UrlError;

/// What came of one check.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Finding {
    /// What was looked at.
    pub check: Check,
    /// How bad it is.
    pub severity: Severity,
    /// What it is. Its `Display` is one line without the remedy.
    pub found: Found,
}

/// How bad a [`Finding`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Severity {
    /// As it should be.
    Ok,
    /// Calls work; something is lost, or may be some day.
    Warning,
    /// Calls fail, or the cache is of no use.
    Failure,
    /// Not looked at, see [`Found::After`] and [`Found::NotTold`].
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

/// What was found. Peer text in it is escaped and shortened; there is no password in it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Found {
    /// The address.
    Address(String),
    /// There is none.
    NoAddress(UrlError),
    /// Of several nodes, or of one: what is right with some, what is wrong with others.
    Nodes {
        /// One text a node that is well.
        well: Vec<String>,
        /// One text a node that is not, with the reason.
        ill: Vec<String>,
    },
    /// The server is this machine: nothing is sent through a network.
    ThisMachine,
    /// The server is another machine, and what is sent there is not encrypted.
    PlainText,
    /// Let in, as this user.
    LoggedIn(String),
    /// The vhost is there.
    Vhost(String),
    /// It did not work.
    Failed(Error),
    /// The server does not tell this login: what it said instead.
    NotTold(String),
    /// It makes no sense after that failure.
    After(Check),
    /// Requests can be published.
    MayPublish,
    /// They cannot.
    MayNotPublish {
        /// By this user.
        user: String,
        /// In this vhost.
        vhost: String,
        /// What the broker said.
        said: String,
    },
    /// The request queue is there, declared like this.
    Queue(Declared),
    /// A queue is missing.
    NoQueue(String),
    /// A queue is exclusive to another program's connection: no worker can read it.
    ExclusiveQueue(String),
    /// Who reads a queue.
    Audience {
        /// Its name.
        queue: String,
        /// How many read it.
        consumers: u32,
        /// How many messages wait in it.
        waiting: u32,
    },
    /// The server's version.
    Version(String),
    /// All rights that a client and a worker need.
    Rights,
    /// Not all of them.
    MissingRights(MissingRights),
    /// Redis is a replica that takes no writes: its address.
    ReadOnlyReplica(String),
    /// Redis is a node of a cluster of several shards, so many if it tells. That is not supported yet.
    Shards(Option<u64>),
    /// Redis' memory.
    Memory {
        /// In bytes; `None`: unbounded.
        limit: Option<u64>,
        /// What it does at the limit: peer text.
        policy: String,
        /// Whether answers have no TTL.
        for_ever: bool,
    },
    /// A worker computed the answer.
    Answered(Duration),
    /// What was stored a moment ago is found in so short a time.
    Hit(Duration),
    /// There was no key left to store: all hold answers already, which are found.
    AlreadyStored(Duration),
    /// The same as a hit, but the key held what is no answer before: peer text.
    Replaced {
        /// The key.
        key: String,
        /// What it held.
        held: String,
    },
    /// It is stored, but Redis answers after the cache budget.
    TooLate(Duration),
    /// The workers' cache is not ours: what they store is not found here.
    StoredElsewhere(String),
    /// Neither the worker nor this client could store the answer.
    NotStored(String),
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(text) | Self::Vhost(text) | Self::Version(text) => f.write_str(text),
            Self::NoAddress(error) => error.fmt(f),
            Self::Nodes { well, ill } => {
                let all: Vec<_> = ill.iter().chain(well).map(String::as_str).collect();
                f.write_str(&all.join("; "))
            }
            Self::ThisMachine => f.write_str("not needed: it is this machine"),
            Self::PlainText => {
                f.write_str("none: it is another machine, and others on the way can read all")
            }
            Self::LoggedIn(user) => write!(f, "as {user}"),
            Self::Failed(error) => error.fmt(f),
            Self::NotTold(said) => write!(f, "unknown, this login is not told: {said}"),
            Self::After(check) => write!(f, "because of {check}"),
            Self::MayPublish => f.write_str("requests can be published"),
            Self::MayNotPublish { said, .. } => write!(f, "requests cannot be published: {said}"),
            Self::Queue(declared) => declared.fmt(f),
            Self::NoQueue(queue) => write!(f, "there is no queue {queue}"),
            Self::ExclusiveQueue(queue) => {
                write!(f, "{queue} is exclusive to another program's connection")
            }
            Self::Audience {
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
                    "a Redis Cluster of {shards} shards, which is not supported yet: most answers are \
                     neither found nor stored"
                )
            }
            Self::Memory {
                limit: Some(limit),
                policy,
                for_ever,
            } => {
                write!(f, "bounded to {} MB, {policy}", limit / 1_000_000)?;
                let refuses = match policy.as_str() {
                    "noeviction" => true,
                    policy => *for_ever && policy.starts_with("volatile-"),
                };
                f.write_str(if refuses {
                    ": it refuses to store when full"
                } else {
                    ""
                })
            }
            Self::Memory { for_ever: true, .. } => {
                f.write_str("unbounded, and answers are stored for ever")
            }
            Self::Memory { .. } => {
                f.write_str("unbounded: all that is stored within a TTL must fit")
            }
            Self::Answered(took) => write!(f, "a worker answered in {}", millis(*took)),
            Self::Hit(took) => write!(f, "stored by the call, then found in {}", millis(*took)),
            Self::AlreadyStored(took) => {
                write!(
                    f,
                    "found in {}; storing was not tried, all was there",
                    millis(*took)
                )
            }
            Self::Replaced { key, held } => {
                write!(
                    f,
                    "{key} held \"{held}\", no answer; the call has replaced it"
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

/// `0.3 ms`, or `83 µs` below 0.1 ms
fn millis(took: Duration) -> String {
    match took.as_micros() {
        micros @ ..100 => format!("{micros} µs"),
        _ => format!("{:.1} ms", took.as_secs_f64() * 1e3),
    }
}
