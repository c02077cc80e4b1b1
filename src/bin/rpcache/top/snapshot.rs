//! The state of the fleet at one moment. Its JSON is documented in `--help`.

use std::time::Duration;

use rpcache::Error;
use rpcache::fleet::Durations;
use rpcache::inspect::QueueDepths;
use serde::{Serialize, Serializer};

#[derive(Debug, Clone, Serialize)]
pub(super) struct Snapshot {
    pub(super) queue: String,
    pub(super) namespace: Option<String>,
    pub(super) interval_ms: u64,
    pub(super) broker: Seen<QueueDepths>,
    pub(super) redis: Seen<Redis>,
    pub(super) fleet: Seen<Fleet>,
    /// Why nothing is answered, if requests wait.
    pub(super) standstill: Option<String>,
    pub(super) workers: Vec<Worker>,
    pub(super) computing: Vec<Computing>,
    pub(super) hottest: Vec<Hot>,
    pub(super) slowest: Vec<Slow>,
    pub(super) failed: Vec<Failed>,
    /// Time since the last results of broker and Redis. For the screen only: JSON has one snapshot.
    #[serde(skip)]
    pub(super) silence: Silence,
}

/// Time since the last result of each server.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Silence {
    pub(super) broker: Duration,
    pub(super) redis: Duration,
}

/// A value from a server, or why it is unknown.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub(super) enum Seen<T> {
    /// The first poll has not ended.
    Waiting,
    NotPermitted,
    Down {
        #[serde(serialize_with = "as_text")]
        error: Error,
    },
    Ok(T),
}

#[derive(Debug, Clone, Serialize)]
pub(super) struct Redis {
    pub(super) version: String,
    /// In bytes, like the limit.
    pub(super) memory: u64,
    pub(super) memory_limit: Option<u64>,
    pub(super) clients: u64,
    pub(super) per_second: Option<RedisRates>,
    /// `None` without lookups.
    pub(super) hit_share: Option<f64>,
}

#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct RedisRates {
    pub(super) commands: f64,
    pub(super) hits: f64,
    pub(super) misses: f64,
    pub(super) evicted: f64,
    pub(super) expired: f64,
}

/// The sum of all workers of the queue.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Fleet {
    pub(super) workers: usize,
    /// Number of workers in this namespace that serve other queues.
    pub(super) other_workers: usize,
    /// Limit of computations at once.
    pub(super) slots: u64,
    pub(super) under_way: u64,
    pub(super) held: u64,
    pub(super) per_second: Option<Rates>,
    pub(super) request_ms: Latency,
    pub(super) compute_ms: Latency,
}

/// Rates of workers, per second.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub(super) struct Rates {
    pub(super) answered: f64,
    pub(super) computed: f64,
    pub(super) cache: f64,
    pub(super) shared: f64,
    pub(super) failed: f64,
    pub(super) poison: f64,
}

impl Rates {
    pub(super) fn add(&mut self, other: &Self) {
        self.answered += other.answered;
        self.computed += other.computed;
        self.cache += other.cache;
        self.shared += other.shared;
        self.failed += other.failed;
        self.poison += other.poison;
    }
}

/// Percentiles in milliseconds; `None` without values.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub(super) struct Latency {
    pub(super) p50: Option<f64>,
    pub(super) p99: Option<f64>,
}

impl Latency {
    pub(super) fn of(times: &Durations) -> Self {
        let quantile = |share| times.quantile(share).map(millis);
        Self {
            p50: quantile(0.5),
            p99: quantile(0.99),
        }
    }
}

#[derive(Debug, Clone, Serialize)]
pub(super) struct Worker {
    pub(super) id: String,
    pub(super) host: String,
    pub(super) pid: u32,
    pub(super) version: String,
    pub(super) uptime_s: u64,
    pub(super) slots: u16,
    pub(super) under_way: u64,
    pub(super) held: u64,
    /// `None` after its first announcement.
    pub(super) per_second: Option<Rates>,
    pub(super) request_ms: Latency,
    pub(super) computing: Vec<Computing>,
    /// Age of its last announcement if it is silent, otherwise 0.
    pub(super) silent_s: u64,
}

#[derive(Debug, Clone, Serialize)]
pub(super) struct Computing {
    pub(super) key: String,
    /// Duration so far.
    pub(super) ms: u64,
    pub(super) worker: String,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Hot {
    pub(super) key: String,
    /// Lower bound.
    pub(super) per_second: f64,
    pub(super) at_most: f64,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Slow {
    pub(super) key: String,
    pub(super) ms: f64,
    pub(super) ago_s: u64,
    pub(super) worker: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Failed {
    pub(super) key: Option<String>,
    pub(super) code: String,
    pub(super) times: u64,
    pub(super) ago_s: u64,
    pub(super) worker: String,
}

/// Rounded to thousandths.
pub(super) fn rounded(number: f64) -> f64 {
    (number * 1000.0).round() / 1000.0
}

pub(super) fn millis(duration: Duration) -> f64 {
    rounded(duration.as_secs_f64() * 1000.0)
}

fn as_text<S: Serializer>(error: &Error, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(error)
}
