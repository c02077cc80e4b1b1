//! Options of the cache: the store's address, the namespace, limits.

use std::time::Duration;

use super::Namespace;
use crate::server_url::RedisUrl;

/// Options of the cache: [`new`](Self::new) takes what has no default, the rest is set field by field.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct CacheOptions {
    /// The Redis that clients and workers share.
    pub url: RedisUrl,
    /// Prefix of all keys; none by default. Clients and workers of one deployment use the same.
    pub namespace: Option<Namespace>,
    /// Limit of the time that one process waits for Redis in one call, lookup, lease and fill together; then
    /// the call goes on without it. 50 ms by default.
    pub budget: Duration,
    /// How long an answer is kept, less up to 10 % at random so that what was filled together does
    /// not expire together. `None`: for ever. 1 day by default.
    pub ttl: Option<Duration>,
    /// A larger answer is not stored, in bytes; `None`, the default: none is too large.
    ///
    /// Reads are limited as well, so that no value in Redis can fill this process's memory: a value of more than
    /// 64 MiB, or of more than this where this is more, is no answer.
    pub max_answer_size: Option<usize>,
    /// Whether lookups wait for the first attempt to connect, up to 500 ms, for a process that makes
    /// a call and ends: it asks right behind the check of that connection, which takes no round trip more.
    /// `false` by default: a long-lived process misses until it is connected, and asks on connections that
    /// have been checked.
    pub wait_for_connection: bool,
}

impl CacheOptions {
    /// The defaults, with this Redis.
    #[must_use]
    pub fn new(url: RedisUrl) -> Self {
        Self {
            url,
            namespace: None,
            budget: Duration::from_millis(50),
            ttl: Some(Duration::from_secs(24 * 60 * 60)),
            max_answer_size: None,
            wait_for_connection: false,
        }
    }
}
