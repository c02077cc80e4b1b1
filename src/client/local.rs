//! The local tier: answers that this process has had lately, in front of Redis.
//!
//! An answer gets here when it has passed the check, and is not checked again. It leaves when its
//! time is up, when others need its room, or when somebody removes it from Redis and says so. Answers
//! are pure, so a copy is wrong only if what Redis had was: that is what purging is for. Nothing here
//! does I/O but the listener, which belongs to [`cache`](crate::cache).

mod tier;

use std::cell::Cell;
use std::fmt::Display;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_util::task::AbortOnDropHandle;

pub(super) use self::tier::Keeping;

use self::tier::Tier;
use super::Found;
use crate::cache::{Cache, Key, ShortKey};
use crate::procedure::{Answer, ProcedureName};

/// Copies of answers in this process's memory, in front of Redis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct LocalOptions {
    /// What all copies may take, in bytes: the text of keys and answers, and 200 for each entry. The
    /// least useful ones make room for others; one that is larger than an eighth of it (or than 32 kB,
    /// if that is more) is not kept.
    pub size: usize,
    /// How long a copy is used, from when it came; [`CacheOptions::ttl`](crate::CacheOptions::ttl) if
    /// that is shorter. What is removed from Redis by [`Cache`] (`rpcache cache rm`) is gone from here
    /// within a second while the client is connected to Redis; all else that happens in Redis (DEL,
    /// FLUSHALL, another client's refresh) is seen when this has passed. 1 minute by default.
    pub ttl: Duration,
}

impl LocalOptions {
    /// The defaults, with this much memory in bytes.
    #[must_use]
    pub fn new(size: usize) -> Self {
        Self {
            size,
            ttl: Duration::from_secs(60),
        }
    }
}

/// A client's local tier, and the ear that hears what is to be purged.
pub(super) struct Local<A> {
    tier: Arc<Tier<A>>,
    /// Ends with the client.
    _listener: AbortOnDropHandle<()>,
}

impl<A: Answer> Local<A> {
    /// Starts listening; must be called within a Tokio runtime.
    pub(super) fn open(procedure: &ProcedureName, options: LocalOptions, cache: &Cache) -> Self {
        let ttl = cache.ttl().map_or(options.ttl, |ttl| ttl.min(options.ttl));
        let tier = Arc::new(Tier::new(cache.prefix(procedure), options.size, ttl));
        let told = Arc::clone(&tier);
        Self {
            tier,
            _listener: cache.listen(procedure, move |purge| told.purge(&purge)),
        }
    }

    /// The copy of this argument's answer, or its key. Allocates nothing for a hit of a short key.
    pub(super) fn look(
        &self,
        argument: &impl Display,
        key: impl FnOnce() -> Key,
        now: Instant,
    ) -> Result<Found<A>, Key> {
        let mut short = ShortKey::new();
        if let Some(text) = short.write(&self.tier.prefix, argument) {
            return self.get(text, now).ok_or_else(|| Key::of_short(text));
        }
        let key = key();
        self.get(key.as_bytes(), now).ok_or(key)
    }

    /// Whether a hit is to draw on Tokio's budget. A call that never waits for anything would keep
    /// others, the listener among them, from having their turn, were it not for this. A turn costs as
    /// much as some 50 hits: the budget of 128 is drawn on by every 16th, which is a turn for others in
    /// half a millisecond.
    pub(super) fn is_others_turn() -> bool {
        thread_local!(static HITS: Cell<u8> = const { Cell::new(0) });
        let hits = HITS.get();
        HITS.set(hits.wrapping_add(1));
        hits.is_multiple_of(16)
    }

    /// The copy of this key's answer.
    pub(super) fn get(&self, key: &[u8], now: Instant) -> Option<Found<A>> {
        self.tier.get(key, now)
    }

    /// Before a look elsewhere.
    pub(super) fn keeping(&self, key: &Key) -> Keeping {
        self.tier.keeping(key)
    }

    /// Keeps what was found there.
    pub(super) fn keep(&self, keeping: Keeping, found: &Found<A>, now: Instant) {
        self.tier.keep(keeping, found, now);
    }

    /// Keeps what was computed afresh, instead of what there is.
    pub(super) fn replace(&self, keeping: Keeping, found: &Found<A>, now: Instant) {
        self.tier.replace(keeping, found, now);
    }
}
