//! Counts the outcomes of calls while they run.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use hdrhistogram::Histogram;
use rpcache::{Answered, Error, Source};

use crate::procedure::CalledAnswer;

/// Number of locks, so that tasks that count at the same time seldom wait for each other.
const SHARDS: usize = 16;

pub(super) struct Tally {
    shards: Vec<Mutex<Counts>>,
    /// Calls that ended, by task.
    tasks: Vec<AtomicU64>,
    first_failure: OnceLock<Error>,
    answered: AtomicU64,
}

/// Latencies, sources and errors of calls.
pub(super) struct Counts {
    /// Latencies of answered calls, in nanoseconds.
    pub(super) latency: Histogram<u64>,
    pub(super) sources: BTreeMap<&'static str, u64>,
    pub(super) errors: BTreeMap<&'static str, u64>,
}

impl Counts {
    fn new() -> Option<Self> {
        let sources = [
            Source::Local,
            Source::Cache,
            Source::Shared,
            Source::Computed,
        ];
        Some(Self {
            // Three significant digits, any duration.
            latency: Histogram::new(3).ok()?,
            sources: sources.map(|source| (source.as_str(), 0)).into(),
            errors: BTreeMap::new(),
        })
    }

    fn add(&mut self, other: &Self) {
        // A histogram that grows as needed takes any value.
        let _ = self.latency.add(&other.latency);
        for (all, these) in [
            (&mut self.sources, &other.sources),
            (&mut self.errors, &other.errors),
        ] {
            for (name, count) in these {
                *all.entry(name).or_default() += count;
            }
        }
    }

    pub(super) fn failed(&self) -> u64 {
        self.errors.values().sum()
    }
}

impl Tally {
    pub(super) fn new(tasks: u16) -> Self {
        Self {
            shards: (0..SHARDS)
                .filter_map(|_| Counts::new())
                .map(Mutex::new)
                .collect(),
            tasks: (0..tasks).map(|_| AtomicU64::new(0)).collect(),
            first_failure: OnceLock::new(),
            answered: AtomicU64::new(0),
        }
    }

    pub(super) fn tasks(&self) -> usize {
        self.tasks.len()
    }

    /// Counts a call of this task that has ended.
    pub(super) fn count(
        &self,
        task: usize,
        took: Duration,
        ended: Result<Answered<CalledAnswer>, Error>,
    ) {
        self.tasks[task].fetch_add(1, Ordering::Relaxed);
        let mut counts = lock(&self.shards[task % SHARDS]);
        match ended {
            Ok(answered) => {
                let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
                // A histogram that grows as needed takes any value.
                let _ = counts.latency.record(nanos);
                *counts.sources.entry(answered.source.as_str()).or_default() += 1;
                self.answered.fetch_add(1, Ordering::Relaxed);
            }
            Err(error) => {
                *counts.errors.entry(error.code()).or_default() += 1;
                // Later failures are only counted.
                let _ = self.first_failure.set(error);
            }
        }
    }

    /// Whether calls have failed and none has been answered.
    pub(super) fn is_hopeless(&self) -> bool {
        self.first_failure.get().is_some() && self.answered() == 0
    }

    pub(super) fn answered(&self) -> u64 {
        self.answered.load(Ordering::Relaxed)
    }

    pub(super) fn first_failure(&self) -> Option<Error> {
        self.first_failure.get().cloned()
    }

    /// Calls that have ended, by task.
    pub(super) fn by_task(&self) -> Vec<u64> {
        let load = |calls: &AtomicU64| calls.load(Ordering::Relaxed);
        self.tasks.iter().map(load).collect()
    }

    /// The sum of all counts so far.
    pub(super) fn total(&self) -> Option<Counts> {
        let mut total = Counts::new()?;
        for shard in &self.shards {
            total.add(&lock(shard));
        }
        Some(total)
    }
}

fn lock(counts: &Mutex<Counts>) -> MutexGuard<'_, Counts> {
    // Nothing panics while it is held.
    counts.lock().unwrap_or_else(PoisonError::into_inner)
}
