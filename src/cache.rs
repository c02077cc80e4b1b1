//! The shared result cache: looks up an answer, and fills it in where it was missing.
//!
//! Clients and workers both look up. A miss carries a [`Vacancy`], the permission without which nothing
//! can be filled. All that a process waits for the store in one call comes out of one [`Budget`], which the
//! vacancy carries on. Every fault of the store is a miss here, counted and logged, never an error of the
//! call. What differs from store to store is below [`store`].

mod attempts;
mod claim;
mod fill;
mod inspect;
mod invalidation;
mod key;
mod lease;
mod lookup;
mod options;
mod redis;
mod store;
mod workers;

use std::fmt::Display;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::task::TaskTracker;
use tracing::warn;

pub(crate) use self::attempts::Attempt;
pub(crate) use self::claim::Claim;
pub(crate) use self::fill::Vacancy;
pub use self::inspect::{
    EntryFault, Estimate, Explained, KeyPattern, KeyPatternError, LeaseHeld, LeaseHolder,
    Precision, Scan, Stored, StoredKey, Survey, TtlBuckets, Verified, WrongEntry,
};
pub(crate) use self::invalidation::Purge;
pub(crate) use self::key::{Key, ShortKey};
pub use self::key::{Namespace, NamespaceError};
pub(crate) use self::lease::{Lease, Token};
pub(crate) use self::lookup::{Gave, Look, Lookup};
pub use self::options::CacheOptions;
pub use self::redis::MissingRights;
pub(crate) use self::redis::ServerFault;
#[cfg(test)]
pub(crate) use self::redis::fake;
pub use self::store::{Entry, ServerStats};

use self::store::Store;
use crate::FOR_EVER;
use crate::counts::{CacheCounts, ConnectionState};
use crate::log_throttle::LogThrottle;
use crate::procedure_name::ProcedureName;
use crate::trace;

/// A handle to the shared result cache, for programs that look into it or tidy it up; clients and workers
/// have their own.
///
/// It connects in the background and reconnects by itself. Its methods wait for the first attempt to
/// connect, then up to 5 s for each answer of Redis. All of them may be dropped half-way and called again;
/// clients may then still have copies of what was removed, see [`remove_keys`](Self::remove_keys). Dropping
/// the handle closes the connection.
///
/// What its methods take and return is in [`rpcache::inspect`](crate::inspect), with an example.
#[derive(Debug)]
pub struct Cache {
    options: CacheOptions,
    store: Arc<Store>,
    counts: Arc<CacheCounts>,
    logs: Logs,
    /// Whether reading the slots that workers announce themselves in has failed.
    slots_unreadable: AtomicBool,
    /// Attempts that are neither forgotten nor taken back yet.
    attempts: TaskTracker,
}

/// Log lines that others can cause as often as they like.
#[derive(Debug, Default)]
struct Logs {
    poisoned: LogThrottle,
    refused_lookups: LogThrottle,
    refused_leases: LogThrottle,
    refused_fills: LogThrottle,
    failed_invalidations: LogThrottle,
    foreign_slots: LogThrottle,
}

/// Time left of all that this process may wait for the store in one call.
#[derive(Debug, Clone)]
pub(crate) struct Budget(Duration);

impl Budget {
    /// Subtracts the time since then.
    fn spend(&mut self, since: Instant) {
        self.0 = self.0.saturating_sub(since.elapsed());
    }
}

impl Cache {
    /// Starts connecting in the background.
    ///
    /// # Panics
    ///
    /// Outside of a Tokio runtime.
    #[must_use]
    pub fn open(options: CacheOptions) -> Self {
        Self::open_counting(options, Arc::default())
    }

    /// Opens a cache that counts into counters of its owner's.
    pub(crate) fn open_counting(mut options: CacheOptions, counts: Arc<CacheCounts>) -> Self {
        options.budget = options.budget.min(FOR_EVER);
        options.ttl = options.ttl.map(|ttl| ttl.min(FOR_EVER));
        let store = Store::open(&options, Arc::clone(&counts));
        Self::over(options, store, counts)
    }

    fn over(options: CacheOptions, store: Store, counts: Arc<CacheCounts>) -> Self {
        Self {
            options,
            store: Arc::new(store),
            counts,
            logs: Logs::default(),
            slots_unreadable: AtomicBool::new(false),
            attempts: TaskTracker::new(),
        }
    }

    /// The key of this argument's answer.
    pub(crate) fn key(&self, procedure: &ProcedureName, argument: &impl Display) -> Key {
        Key::new(self.options.namespace.as_ref(), procedure, argument)
    }

    /// What all keys of the procedure start with in this namespace.
    pub(crate) fn prefix(&self, procedure: &ProcedureName) -> String {
        key::prefix(self.options.namespace.as_ref(), procedure)
    }

    #[cfg(feature = "metrics")]
    pub(crate) fn counts(&self) -> &Arc<CacheCounts> {
        &self.counts
    }

    /// How long an answer is kept at most.
    pub(crate) fn ttl(&self) -> Option<Duration> {
        self.options.ttl
    }

    /// All that one call may wait for the store.
    pub(crate) fn budget(&self) -> Budget {
        Budget(self.options.budget)
    }

    /// The budget of a call that ends by then. Waits for the first attempt to connect, where the options
    /// say so.
    async fn budget_until(&self, deadline: Instant) -> Budget {
        if self.options.wait_for_connection {
            let connects = self.counts.redis.state() == ConnectionState::Connecting;
            let _span = connects.then(|| trace::begin(trace::connect_to_redis));
            // Elapsed or not, the time left decides.
            let _ = tokio::time::timeout_at(deadline, self.store.ready()).await;
        }
        let left = deadline.saturating_duration_since(Instant::now());
        Budget(self.options.budget.min(left))
    }

    /// Warns once, when the store is there, if answers without a TTL can fill it without a bound. Ends
    /// then, or not at all.
    pub(crate) async fn warn_if_unbounded(&self) {
        if self.options.ttl.is_some() {
            return;
        }
        self.store.up().await;
        if self.store.is_unbounded(self.options.budget).await == Some(true) {
            warn!(
                "answers are stored for ever, and Redis at {} has no memory bound: set `maxmemory` \
                 and `maxmemory-policy allkeys-lfu` there, or a --ttl here",
                self.options.url
            );
        }
    }
}
