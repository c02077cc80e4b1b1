//! What a worker has done, what it does at the moment, and whether it is fit to: for announcements,
//! health and metrics alike.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::announcement::{Computing, Durations, WorkerCounts, WorkerStatus};
use super::lately::Lately;
use crate::cache::Key;
use crate::counts::{BrokerCounts, ByCode, BySource, CacheCounts, Counter, Gauge, Histogram};
use crate::error::ErrorCode;
use crate::message::Reply;
use crate::source::Source;

/// Computations that are named; the longest under way.
const NAMED: usize = 8;

/// Everything that is known of a worker from outside. Clones share it; there is one before the
/// worker runs.
#[derive(Debug, Clone, Default)]
pub(crate) struct Vitals {
    pub(crate) activity: Arc<Activity>,
    pub(crate) cache: Arc<CacheCounts>,
    pub(crate) broker: Arc<BrokerCounts>,
}

/// What is counted, and what is computed at the moment.
#[derive(Debug, Default)]
pub(crate) struct Activity {
    /// Requests that were taken.
    pub(crate) taken: Counter,
    /// Those of them that are not settled yet.
    pub(crate) held: Gauge,
    /// From taking a request to having its answer.
    pub(crate) answered: BySource<Histogram>,
    pub(crate) failed: ByCode,
    /// Computing alone, whatever came of it.
    pub(crate) computed: Histogram,
    /// Requests that joined another one's flight, whatever came of it.
    pub(crate) shared_flights: Counter,
    /// Flights that waited for another worker's computation.
    pub(crate) lease_waits: Counter,
    /// Requests that named no callback queue to reply to.
    pub(crate) refused_reply_to: Counter,
    /// By key.
    pub(super) lately: Lately,
    stopping: AtomicBool,
    computing: Mutex<HashMap<u64, (Key, Instant)>>,
    begun: AtomicU64,
}

/// The worker runs. When it does no longer, however that comes about, it takes no more requests.
#[must_use]
pub(super) struct Running(pub(super) Arc<Activity>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.stops();
    }
}

/// A computation that is counted when it ends.
pub(super) struct Begun<'a> {
    activity: &'a Activity,
    key: &'a Key,
    number: u64,
    at: Instant,
}

impl Vitals {
    /// All that is announced of it, of what was seen since `start` or the last time.
    pub(super) fn tell(&self, status: &mut WorkerStatus, start: Instant) {
        let activity = &self.activity;
        status.counts = self.counts();
        status.computing = activity.longest();
        status.under_way = activity.computations() as u64;
        status.held = activity.held.get();
        let sources = [Source::Cache, Source::Shared, Source::Computed];
        status.request_times = Durations::of(sources.map(|source| activity.answered.of(source)));
        status.compute_times = Durations::of([&activity.computed]);
        status.hottest = activity.lately.hottest(start);
        status.slowest = activity.lately.slowest();
        status.failures = activity.lately.failures();
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
    /// One request has its reply, so long after it was taken.
    pub(super) fn answered(&self, reply: &Reply, took: Duration) {
        match (&reply.outcome, reply.source) {
            (Err(failure), _) => self.failed.count(failure.code.as_str()),
            (Ok(_), Some(source)) => self.answered.of(source).observe(took),
            // Replies of ours say where they come from.
            (Ok(_), None) => {}
        }
    }

    /// It takes no more requests from now on.
    pub(super) fn stops(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    /// A computation took so long, whatever came of it.
    pub(super) fn computed(&self, key: &Key, took: Duration) {
        self.computed.observe(took);
        self.lately.computed(key.as_str(), took);
    }

    /// Computing begins.
    pub(super) fn begins<'a>(&'a self, key: &'a Key) -> Begun<'a> {
        let (number, at) = (self.begun.fetch_add(1, Ordering::Relaxed), Instant::now());
        self.computing().insert(number, (key.clone(), at));
        Begun {
            activity: self,
            key,
            number,
            at,
        }
    }

    pub(super) fn longest(&self) -> Vec<Computing> {
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

    /// How many computations are under way.
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

impl Drop for Begun<'_> {
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
    fn announcements_are_made_of_what_is_counted() {
        let vitals = Vitals::default();
        let activity = &vitals.activity;
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
        vitals.cache.stored.count();
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
        assert_eq!(vitals.counts(), expected);
    }
}
