//! The entries of an announcement that name a key.

use serde::{Deserialize, Serialize};

/// A computation under way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Computing {
    /// Its key.
    pub key: String,
    /// How long it has been under way, in milliseconds.
    pub millis: u64,
}

/// A key that is requested often. Calls that the client answers from the cache never reach a worker and are not
/// counted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct HotKey {
    /// The key.
    pub key: String,
    /// Requests per minute at least, in the last seconds: a request five seconds ago counts half.
    pub per_minute: u64,
    /// Requests per minute at most: the worker counts a bounded number of keys, so it may have missed some.
    pub at_most: u64,
}

/// A slow computation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct SlowKey {
    /// The key.
    pub key: String,
    /// How long it took, in microseconds.
    pub micros: u64,
    /// How long ago it ended, in milliseconds.
    pub ago_millis: u64,
}

/// Failed requests with the same key and code.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct FailedKey {
    /// The key; `None` if the body is no argument.
    pub key: Option<String>,
    /// The failure's code, as in the reply's header: [`crate::ErrorCode::as_str`].
    pub code: String,
    /// How many of them the worker remembers.
    pub times: u64,
    /// How long ago the last one failed, in milliseconds.
    pub ago_millis: u64,
}
