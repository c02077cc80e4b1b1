//! What a worker tells of single keys.

use serde::{Deserialize, Serialize};

/// One computation under way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Computing {
    /// Its key.
    pub key: String,
    /// For how long so far.
    pub millis: u64,
}

/// A key that a worker is asked for often. What is found in the cache by those who ask does not
/// come to a worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct HotKey {
    /// The key.
    pub key: String,
    /// How often a minute at the least, in the last seconds: what came five seconds ago weighs half.
    pub per_minute: u64,
    /// The same at the most: few keys are counted, so what came before it was may have been more.
    pub at_most: u64,
}

/// A key that took long to compute.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct SlowKey {
    /// The key.
    pub key: String,
    /// How long it took, in microseconds.
    pub micros: u64,
    /// How long ago it was done.
    pub ago_millis: u64,
}

/// Requests that a worker had no answer for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct FailedKey {
    /// The key; `None` where what was asked for is no argument.
    pub key: Option<String>,
    /// Why, as in the reply's header: [`crate::ErrorCode::as_str`].
    pub code: String,
    /// How often, as far as the worker remembers.
    pub times: u64,
    /// How long ago the last time was.
    pub ago_millis: u64,
}
