//! Options of a client and of one call.

use std::time::Duration;

#[cfg(doc)]
use crate::Error;
use crate::cache::CacheOptions;
use crate::cache_use::CacheUse;
use crate::queue::QueueName;
use crate::server_url::AmqpUrl;

use super::LocalOptions;

/// Where a client finds cache and workers: [`new`](Self::new) takes what has no default, the rest is
/// set field by field.
///
/// ```
/// use rpcache::{CacheOptions, ClientOptions, LocalOptions};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let cache = CacheOptions::new("redis://localhost".parse()?);
/// let mut options = ClientOptions::new("amqp://localhost".parse()?, cache);
/// options.queue = Some("rpc_queue.of.mine".parse()?);
/// options.local = Some(LocalOptions::new(64_000_000));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ClientOptions {
    /// The broker; connected to at the first miss.
    pub amqp: AmqpUrl,
    /// The request queue; by default the procedure's, see [`QueueName::of`].
    pub queue: Option<QueueName>,
    /// The cache in front of the workers: the same Redis and namespace as theirs.
    pub cache: CacheOptions,
    /// Copies of answers in this process's memory, in front of Redis: a hit there takes no round trip,
    /// and goes on while Redis is away. None by default.
    pub local: Option<LocalOptions>,
    /// For a process that makes one call and ends: one connection to the broker instead of two, and
    /// direct reply-to instead of a callback queue. Off by default.
    pub one_shot: bool,
}

impl ClientOptions {
    /// The defaults, with this broker and this cache.
    #[must_use]
    pub fn new(amqp: AmqpUrl, cache: CacheOptions) -> Self {
        Self {
            amqp,
            queue: None,
            cache,
            local: None,
            one_shot: false,
        }
    }
}

/// How one call is made: [`within`](Self::within) a time-out, or by [`default`](Self::default).
///
/// ```
/// # use std::time::Duration;
/// use rpcache::{CacheUse, CallOptions};
///
/// let mut options = CallOptions::within(Duration::from_secs(2));
/// options.cache = CacheUse::Refresh;
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct CallOptions {
    /// From the start of the call to its end, whatever happens; then it is [`Error::Deadline`], or
    /// [`Error::Unreachable`] if the broker is known to be away: it was never reached, or not for 15 s. A call
    /// that begins then does not wait. 10 s by default. More than a hundred years mean for ever.
    pub timeout: Duration,
    /// Whether to look in the cache and fill it. [`CacheUse::Normal`] by default.
    pub cache: CacheUse,
    /// Whether to wait for a worker to come, instead of failing at once with
    /// [`Error::NoWorkers`]. Off by default.
    pub wait: bool,
}

impl CallOptions {
    /// The defaults, with this time-out.
    #[must_use]
    pub const fn within(timeout: Duration) -> Self {
        Self {
            timeout,
            cache: CacheUse::Normal,
            wait: false,
        }
    }
}

impl Default for CallOptions {
    fn default() -> Self {
        Self::within(Duration::from_secs(10))
    }
}
