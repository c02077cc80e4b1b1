//! The results and errors of a store, in types that hold for every store.

use std::time::Duration;

use serde::Serialize;

/// Why a store gave no result.
#[derive(Debug, Clone)]
pub(crate) enum StoreError {
    /// There is no connection, or it was lost, or the time ran out.
    Unavailable,
    /// The store answered with an error, or with something that cannot be read.
    Refused(Refusal),
}

/// A store's refusal of one command. Other commands may well be carried out.
#[derive(Debug, Clone)]
pub(crate) struct Refusal {
    pub(crate) kind: RefusalKind,
    /// What the store said: peer text, escaped and shortened.
    pub(crate) reason: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RefusalKind {
    /// What stands under the key is no string.
    WrongType,
    /// What stands under the key is larger than what is read.
    TooLarge,
    /// This login has no right to it.
    NotPermitted,
    Other,
}

impl StoreError {
    /// Why what stands under the key is no answer; `None`: the error is not about what stands there.
    pub(crate) fn no_answer(&self) -> Option<&'static str> {
        match self {
            Self::Unavailable => None,
            Self::Refused(refusal) => refusal.no_answer(),
        }
    }
}

impl Refusal {
    /// Why what stands under the key is no answer; `None`: the refusal is not about what stands there.
    pub(crate) fn no_answer(&self) -> Option<&'static str> {
        match self.kind {
            RefusalKind::WrongType => Some("a value that is no string"),
            RefusalKind::TooLarge => Some("a value that is too large to be read"),
            RefusalKind::NotPermitted | RefusalKind::Other => None,
        }
    }
}

/// What stands under one key; `None`: nothing.
pub(crate) type GetResult = Result<Option<Vec<u8>>, StoreError>;

/// The result of a claim.
#[derive(Debug)]
pub(crate) struct Claimed {
    /// What the lease held before; `None`: nothing, and it is taken.
    pub(crate) held: Result<Option<Vec<u8>>, Refusal>,
    /// What stands under the key, if that was looked for.
    pub(crate) found: Option<GetResult>,
}

/// A change of a lease.
#[derive(Debug, Clone, Copy)]
pub(crate) enum LeaseChange<'a> {
    /// Extends it to this long from now, if the token holds it.
    Renew(Duration),
    /// Removes it, if the token holds it.
    Release,
    /// Replaces it by a mark that lasts for `ttl`, if the token holds it.
    Leave { mark: &'a str, ttl: Duration },
    /// Removes it, if another worker's token holds it for the same request.
    TakeOver,
}

/// The store's answer to a fill. Either way the lease has been released.
#[derive(Debug)]
pub(crate) enum Filled {
    Stored,
    Refused(Refusal),
}

/// An entry's properties without its value: see [`Cache::entries`](crate::Cache::entries).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Entry {
    /// Time left until it expires; `None`: it never does.
    pub ttl: Option<Duration>,
    /// Size of the answer in bytes; `None`: it is no string, and no answer.
    pub size: Option<u64>,
}

/// An entry that is removed only if it is still what was read.
#[derive(Debug)]
pub(crate) enum Unchanged<'a> {
    /// Whatever stands there.
    Anything { key: &'a [u8] },
    /// Something that is no string.
    NoString { key: &'a [u8] },
    /// A string of this size with this beginning.
    Text {
        key: &'a [u8],
        size: usize,
        start: &'a [u8],
    },
}

/// What a store knows of a key that is being computed.
#[derive(Debug)]
pub(crate) struct LeaseFacts {
    /// What the lease holds, and its time left (`None`: it never expires); `None`: there is no lease.
    pub(crate) lease: Option<(Vec<u8>, Option<Duration>)>,
    /// How often its computation was attempted, of late, by workers that may have ended over it.
    pub(crate) attempts: u64,
}

/// What a listener hears.
#[derive(Debug)]
pub(crate) enum Event<'a> {
    /// From here on no message is missed; earlier ones may have been.
    Subscribed,
    Message(&'a [u8]),
}

/// What the server reports about itself: all of its keys and commands, anybody's.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ServerStats {
    /// The server's version: peer text, escaped and shortened.
    pub version: String,
    /// Memory in use, in bytes.
    pub memory: u64,
    /// The memory limit in bytes; `None`: there is none.
    pub memory_limit: Option<u64>,
    /// What the server does at the memory limit: peer text, escaped and shortened.
    pub eviction_policy: String,
    /// Lookups that found a key, since the server started.
    pub hits: u64,
    /// Lookups that found none, since the server started.
    pub misses: u64,
    /// Keys removed for lack of memory, since the server started.
    pub evicted: u64,
    /// Keys that expired, since the server started.
    pub expired: u64,
    /// Commands executed since the server started.
    pub commands: u64,
    /// Connections open now.
    pub clients: u64,
    /// Time since the server started, in seconds.
    pub uptime: u64,
}
