//! What a worker tells of itself: a plain string in Redis, short-lived, for whoever looks at the
//! fleet. Not part of any call.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::Desk;
use crate::cache::Key;
use crate::error::ErrorCode;
use crate::message::{Reply, Source};
use crate::procedure::Procedure;

/// How often a worker tells of itself.
const EVERY: Duration = Duration::from_secs(2);

/// Computations that are named; the longest under way.
const NAMED: usize = 8;

/// A worker as it announces itself, every two seconds, for ten.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct WorkerStatus {
    /// Tells it from others, in leases too.
    pub id: String,
    /// Where it runs.
    pub host: String,
    /// Its process there.
    pub pid: u32,
    /// Of rpcache.
    pub version: String,
    /// The procedure's name.
    pub procedure: String,
    /// Where it takes requests from.
    pub queue: String,
    /// Computations at once.
    pub concurrency: u16,
    /// Seconds since 1970, by its own clock.
    pub started: u64,
    /// When it said so; seconds since 1970, by its own clock.
    pub announced: u64,
    /// What it has done so far.
    pub counts: WorkerCounts,
    /// What it computes, the longest under way first, eight at most.
    pub computing: Vec<Computing>,
}

/// What a worker has done since it started.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct WorkerCounts {
    /// Requests that were answered, whatever with.
    pub answered: u64,
    /// Computations that gave an answer.
    pub computed: u64,
    /// Answers that were in the cache.
    pub cache: u64,
    /// Answers that were computed for another request.
    pub shared: u64,
    /// Requests without an answer.
    pub failed: u64,
    /// Those of them that had ended other workers.
    pub poison: u64,
    /// Computed answers that Redis has.
    pub filled: u64,
    /// Milliseconds spent on computing.
    pub compute_millis: u64,
}

/// One computation under way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Computing {
    /// Its key.
    pub key: String,
    /// For how long so far.
    pub millis: u64,
}

/// What is counted, and what is computed at the moment.
#[derive(Debug, Default)]
pub(super) struct Activity {
    answered: AtomicU64,
    computed: AtomicU64,
    cache: AtomicU64,
    shared: AtomicU64,
    failed: AtomicU64,
    poison: AtomicU64,
    filled: AtomicU64,
    compute_micros: AtomicU64,
    computing: Mutex<HashMap<u64, (Key, Instant)>>,
    begun: AtomicU64,
}

/// A computation that is counted when it ends.
pub(super) struct Begun<'a> {
    activity: &'a Activity,
    number: u64,
    at: Instant,
}

impl Activity {
    /// One request has its reply.
    pub(super) fn answered(&self, reply: &Reply) {
        add(&self.answered, 1);
        let Err(failure) = &reply.outcome else {
            match reply.source {
                Some(Source::Computed) => {
                    add(&self.computed, 1);
                    add(&self.filled, u64::from(reply.filled == Some(true)));
                }
                Some(Source::Cache) => add(&self.cache, 1),
                Some(Source::Shared) => add(&self.shared, 1),
                // No worker answers out of a caller's memory.
                Some(Source::Local) | None => {}
            }
            return;
        };
        add(&self.failed, 1);
        add(&self.poison, u64::from(failure.code == ErrorCode::Poison));
    }

    /// Computing begins.
    pub(super) fn begins(&self, key: &Key) -> Begun<'_> {
        let (number, at) = (self.begun.fetch_add(1, Ordering::Relaxed), Instant::now());
        self.computing().insert(number, (key.clone(), at));
        Begun {
            activity: self,
            number,
            at,
        }
    }

    fn counts(&self) -> WorkerCounts {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        WorkerCounts {
            answered: count(&self.answered),
            computed: count(&self.computed),
            cache: count(&self.cache),
            shared: count(&self.shared),
            failed: count(&self.failed),
            poison: count(&self.poison),
            filled: count(&self.filled),
            compute_millis: count(&self.compute_micros) / 1000,
        }
    }

    fn longest(&self) -> Vec<Computing> {
        let now = Instant::now();
        let mut computing: Vec<_> = self.computing().values().cloned().collect();
        computing.sort_unstable_by_key(|&(_, at)| at);
        let named = computing
            .into_iter()
            .take(NAMED)
            .map(|(key, at)| Computing {
                key: key.as_str().to_owned(),
                millis: millis(now - at),
            });
        named.collect()
    }

    fn computing(&self) -> MutexGuard<'_, HashMap<u64, (Key, Instant)>> {
        // Nothing panics while it is held.
        self.computing
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Begun<'_> {
    fn drop(&mut self) {
        let micros = u64::try_from(self.at.elapsed().as_micros()).unwrap_or(u64::MAX);
        add(&self.activity.compute_micros, micros);
        self.activity.computing().remove(&self.number);
    }
}

fn add(counter: &AtomicU64, n: u64) {
    counter.fetch_add(n, Ordering::Relaxed);
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn unix_seconds() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

impl WorkerStatus {
    /// Of a worker that starts now.
    pub(super) fn starting(id: &str, procedure: &str, queue: String, concurrency: u16) -> Self {
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname");
        Self {
            id: id.to_owned(),
            host: host.map_or_else(|_| "unknown".to_owned(), |host| host.trim().to_owned()),
            pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            procedure: procedure.to_owned(),
            queue,
            concurrency,
            started: unix_seconds(),
            announced: 0,
            counts: WorkerCounts::default(),
            computing: Vec::new(),
        }
    }
}

/// Tells of the worker until `end`, and takes it back then.
pub(super) async fn announce<P: Procedure>(
    desk: Arc<Desk<P>>,
    concurrency: u16,
    end: CancellationToken,
) {
    let mut status = WorkerStatus::starting(&desk.id, P::NAME, desk.queue.to_string(), concurrency);
    let mut place = None;
    loop {
        status.announced = unix_seconds();
        status.counts = desk.activity.counts();
        status.computing = desk.activity.longest();
        place = desk.cache.announce(&status, place).await;
        if timeout(EVERY, end.cancelled()).await.is_ok() {
            break;
        }
    }
    if let Some(place) = place {
        desk.cache.retract(place).await;
    }
}
