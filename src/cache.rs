//! The shared result cache: looks up an answer, and fills it in where it was missing.
//!
//! In the order in which a call meets the files: [`lookup`] looks up the [`key`] of an argument, in clients and in
//! workers; a worker that found nothing claims it ([`claim`]), computes, and fills it ([`fill`]); below
//! them is the [`store`]. A miss carries a [`Vacancy`], the permission without which nothing can be filled. All that a
//! process waits for the store in one call comes out of one [`Budget`], which the vacancy carries on. Every fault of
//! the store is a miss here, counted and logged, never an error of the call.
//!
//! Beside that path: [`lookup_many`] for many keys at once, [`attempts`] at redelivered requests, [`inspect`] behind
//! `rpcache cache`, [`workers`] announced, [`invalidation`] of near copies.

mod attempts;
mod claim;
mod fill;
mod inspect;
mod invalidation;
mod key;
mod lookup;
mod lookup_many;
mod options;
mod redis;
mod store;
mod token;
mod workers;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use tokio_util::task::TaskTracker;
use tracing::warn;

pub(crate) use self::attempts::Attempt;
pub(crate) use self::claim::{Claim, Lease};
pub(crate) use self::fill::Vacancy;
pub use self::inspect::{
    EntryFault, Estimate, Explained, KeyPattern, KeyPatternError, LeaseHeld, LeaseHolder,
    Precision, Scan, Stored, StoredKey, Survey, TtlBuckets, Verified, WrongEntry,
};
pub(crate) use self::invalidation::Purge;
pub(crate) use self::key::{Key, ShortKey};
pub use self::key::{Namespace, NamespaceError};
pub(crate) use self::lookup::{Budget, Look, Lookup};
pub(crate) use self::lookup_many::Gave;
pub use self::options::CacheOptions;
pub use self::redis::MissingRights;
pub(crate) use self::redis::ServerFault;
#[cfg(test)]
pub(crate) use self::redis::fake;
pub use self::store::{Entry, ServerStats};
pub(crate) use self::token::Token;

use self::store::Store;
use crate::FOR_EVER;
use crate::counts::CacheCounts;
use crate::log_throttle::LogThrottle;
use crate::procedure_name::ProcedureName;

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
