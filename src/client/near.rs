//! The near cache: copies of answers in this process's memory, in front of the store.
//!
//! A copy is made of an answer that has been verified, and is not verified again. It is dropped when
//! its time is up, when others need its room, or when the answer is removed from the store and this
//! client is notified. Answers are pure, so a copy is wrong only if the stored answer was: invalidation is
//! for that. The listener, which belongs to [`cache`](crate::cache), is all that does I/O here.

mod copies;

use std::cell::Cell;
use std::fmt::Display;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_util::task::AbortOnDropHandle;

pub(super) use self::copies::StoreTicket;

use self::copies::Copies;
use super::answered::Resolved;
use crate::cache::{Cache, Key, ShortKey};
use crate::procedure::Answer;
use crate::procedure_name::ProcedureName;

/// Copies of answers in this process's memory, in front of Redis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct LocalOptions {
    /// The most that all copies take, in bytes: keys, answers, and 200 for each entry. The least useful
    /// ones are evicted; an answer that is larger than an eighth of it (or than 32 kB, if that is more)
    /// is not kept.
    pub size: usize,
    /// How long a copy is used; [`CacheOptions::ttl`](crate::CacheOptions::ttl) if that is shorter. A copy
    /// is dropped within a second when its answer is removed through [`Cache`] (`rpcache cache rm`),
    /// while the client is connected to Redis. Other changes in Redis (DEL, FLUSHALL, another client's
    /// refresh) are noticed when this time is up. 1 minute by default.
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

/// A client's near cache, and the listener that invalidates copies. The listener ends with the client.
pub(super) struct NearCache<A> {
    copies: Arc<Copies<A>>,
    _listener: AbortOnDropHandle<()>,
}

impl<A: Answer> NearCache<A> {
    /// Starts the listener; must be called within a Tokio runtime.
    pub(super) fn open(procedure: &ProcedureName, options: LocalOptions, cache: &Cache) -> Self {
        let ttl = cache.ttl().map_or(options.ttl, |ttl| ttl.min(options.ttl));
        let copies = Arc::new(Copies::new(cache.prefix(procedure), options.size, ttl));
        let invalidated = Arc::clone(&copies);
        Self {
            copies,
            _listener: cache.listen(procedure, move |purge| invalidated.purge(&purge)),
        }
    }

    /// The copy of this argument's answer, or the key to look for it elsewhere. A hit of a short key
    /// allocates nothing.
    pub(super) fn look(
        &self,
        argument: &impl Display,
        key: impl FnOnce() -> Key,
        now: Instant,
    ) -> Result<Resolved<A>, Key> {
        let mut short = ShortKey::new();
        if let Some(text) = short.write(&self.copies.prefix, argument) {
            return self.get(text, now).ok_or_else(|| Key::of_short(text));
        }
        let key = key();
        self.get(key.as_bytes(), now).ok_or(key)
    }

    /// Whether a hit is to draw on Tokio's budget. A call that never waits would otherwise starve other
    /// tasks, the listener among them. A yield costs as much as some 50 hits: drawing on the budget of
    /// 128 with every 16th hit makes it one in half a millisecond.
    pub(super) fn should_yield() -> bool {
        thread_local!(static HITS: Cell<u8> = const { Cell::new(0) });
        let hits = HITS.get();
        HITS.set(hits.wrapping_add(1));
        hits.is_multiple_of(16)
    }

    /// The copy of this key's answer.
    pub(super) fn get(&self, key: &[u8], now: Instant) -> Option<Resolved<A>> {
        self.copies.get(key, now)
    }

    /// The permission to keep a copy of an answer that is about to be looked for or computed.
    pub(super) fn ticket(&self, key: &Key) -> StoreTicket {
        self.copies.ticket(key)
    }

    /// Keeps a copy of an answer.
    pub(super) fn keep(&self, ticket: StoreTicket, answer: &Resolved<A>, now: Instant) {
        self.copies.keep(ticket, answer, now);
    }

    /// Keeps a copy of an answer that was computed afresh, in place of an older one.
    pub(super) fn replace(&self, ticket: StoreTicket, answer: &Resolved<A>, now: Instant) {
        self.copies.replace(ticket, answer, now);
    }
}
