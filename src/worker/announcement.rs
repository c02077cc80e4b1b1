//! What a worker tells of itself: a plain string in Redis, short-lived, for whoever looks at the
//! fleet. Not part of any call.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::Desk;
use crate::procedure::Procedure;

/// How often a worker tells of itself.
const EVERY: Duration = Duration::from_secs(2);

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
        status.counts = desk.vitals.counts();
        status.computing = desk.vitals.activity.longest();
        place = desk.cache.announce(&status, place).await;
        if timeout(EVERY, end.cancelled()).await.is_ok() {
            break;
        }
    }
    if let Some(place) = place {
        desk.cache.retract(place).await;
    }
}
