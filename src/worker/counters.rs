//! A worker's counters and its computations under way: read by announcements, health and metrics.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::recent::RecentKeys;
use crate::cache::Key;
use crate::counts::{BrokerCounts, ByCode, BySource, CacheCounts, Counter, Gauge, Histogram};
use crate::error::ErrorCode;
use crate::fleet::{Computing, Durations, WorkerCounts, WorkerStatus};
use crate::message::Reply;
use crate::source::Source;

/// The computations under way that an announcement lists, the longest first.
const MAX_LISTED: usize = 8;

/// All counters of a worker. Clones share them; they exist before the worker runs.
#[derive(Debug, Clone, Default)]
pub(crate) struct Counters {
    pub(crate) activity: Arc<Activity>,
    pub(crate) cache: Arc<CacheCounts>,
    pub(crate) broker: Arc<BrokerCounts>,
}

/// What the worker itself counts, and its computations under way.
#[derive(Debug, Default)]
pub(crate) struct Activity {
    /// Requests taken from the queue.
    pub(crate) taken: Counter,
    /// Requests taken and not settled yet.
    pub(crate) held: Gauge,
    /// The time from taking a request to having its answer.
    pub(crate) answered: BySource<Histogram>,
    pub(crate) failed: ByCode,
    /// The time of computing alone, failed computations included.
    pub(crate) computed: Histogram,
    /// Requests that joined another request's flight, failed ones included.
    pub(crate) shared_flights: Counter,
    /// Flights that waited for another worker's lease.
    pub(crate) lease_waits: Counter,
    /// Requests refused because their `reply_to` is no callback queue.
    pub(crate) refused_reply_to: Counter,
    /// Statistics by key.
    pub(super) recent: RecentKeys,
    stopping: AtomicBool,
    computing: Mutex<HashMap<u64, (Key, Instant)>>,
    started: AtomicU64,
}

/// Marks the worker as stopping when dropped, however its run ends.
#[must_use]
pub(super) struct StopGuard(pub(super) Arc<Activity>);

impl Drop for StopGuard {
    fn drop(&mut self) {
        self.0.mark_stopping();
    }
}

/// A computation under way. Counted when dropped.
pub(super) struct ComputationGuard<'a> {
    activity: &'a Activity,
    key: &'a Key,
    number: u64,
    at: Instant,
}

impl Counters {
    /// Copies everything that is announced. `start` is when the worker started, for the first call.
    pub(super) fn read_into(&self, status: &mut WorkerStatus, start: Instant) {
        let activity = &self.activity;
        status.counts = self.counts();
        status.computing = activity.longest();
        status.under_way = activity.computations() as u64;
        status.held = activity.held.get();
        let sources = [Source::Cache, Source::Shared, Source::Computed];
        status.request_times = Durations::of(sources.map(|source| activity.answered.of(source)));
        status.compute_times = Durations::of([&activity.computed]);
        status.hottest = activity.recent.hottest(start);
        status.slowest = activity.recent.slowest();
        status.failures = activity.recent.failures();
    }

    pub(super) fn counts(&self) -> WorkerCounts {
        let Activity {
            answered,
            failed,
            computed,
            ..
        } = &*self.activity;
        let [cache, shared, computed_here] = [Source::Cache, Source::Shared, Source::Computed]
            .map(|source| answered.of(source).count());
        let failures = failed.total();
        let poison = failed.of(ErrorCode::Poison.as_str());
        WorkerCounts {
            answered: cache + shared + computed_here + failures,
            computed: computed_here,
            cache,
            shared,
            failed: failures,
            poison: poison.map_or(0, Counter::get),
            filled: self.cache.stored.get(),
            compute_millis: millis(computed.sum()),
        }
    }
}

impl Activity {
    /// Counts a request that has its reply, `took` after it was taken.
    pub(super) fn answered(&self, reply: &Reply, took: Duration) {
        match (&reply.outcome, reply.source) {
            (Err(failure), _) => self.failed.count(failure.code.as_str()),
            (Ok(_), Some(source)) => self.answered.of(source).observe(took),
            // Not possible: the worker's own replies have a source.
            (Ok(_), None) => {}
        }
    }

    /// Notes that the worker takes no more requests.
    pub(super) fn mark_stopping(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    /// Counts a computation, failed ones included.
    pub(super) fn computed(&self, key: &Key, took: Duration) {
        self.computed.observe(took);
        self.recent.computed(key.as_str(), took);
    }

    /// Registers a computation until the guard is dropped.
    pub(super) fn start_computation<'a>(&'a self, key: &'a Key) -> ComputationGuard<'a> {
        let (number, at) = (self.started.fetch_add(1, Ordering::Relaxed), Instant::now());
        self.computing().insert(number, (key.clone(), at));
        ComputationGuard {
            activity: self,
            key,
            number,
            at,
        }
    }

    /// The computations that have been under way for the longest time, longest first.
    pub(super) fn longest(&self) -> Vec<Computing> {
        let now = Instant::now();
        let mut computing: Vec<_> = self.computing().values().cloned().collect();
        computing.sort_unstable_by_key(|&(_, at)| at);
        let listed = computing
            .into_iter()
            .take(MAX_LISTED)
            .map(|(key, at)| Computing {
                key: key.as_str().to_owned(),
                millis: millis(now - at),
            });
        listed.collect()
    }

    /// The number of computations under way.
    pub(crate) fn computations(&self) -> usize {
        self.computing().len()
    }

    fn computing(&self) -> MutexGuard<'_, HashMap<u64, (Key, Instant)>> {
        // Nothing panics while it is held.
        self.computing
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for ComputationGuard<'_> {
    fn drop(&mut self) {
        let took = self.at.elapsed();
        self.activity.computed(self.key, took);
        self.activity.computing().remove(&self.number);
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Failure;

    #[test]
    fn announced_counts_add_up() {
        let counters = Counters::default();
        let activity = &counters.activity;
        let reply = |source| Reply {
            outcome: Ok(Arc::default()),
            source: Some(source),
            filled: Some(true),
            steps: None,
        };
        for source in [
            Source::Cache,
            Source::Shared,
            Source::Shared,
            Source::Computed,
        ] {
            activity.answered(&reply(source), Duration::from_millis(1));
        }
        for code in [ErrorCode::Poison, ErrorCode::TooLarge] {
            let failure = Failure {
                code,
                message: String::new(),
            };
            activity.answered(&Reply::failure(failure), Duration::ZERO);
        }
        activity.computed.observe(Duration::from_micros(1500));
        counters.cache.stored.count();
        let expected = WorkerCounts {
            answered: 6,
            computed: 1,
            cache: 1,
            shared: 2,
            failed: 2,
            poison: 1,
            filled: 1,
            compute_millis: 1,
        };
        assert_eq!(counters.counts(), expected);
    }
}
