//! The workers of a deployment as they announce themselves: see [`Cache::workers`](crate::Cache::workers).

mod durations;
mod keys;

use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

pub use self::durations::Durations;
pub use self::keys::{Computing, FailedKey, HotKey, SlowKey};
use crate::error::quote;

/// The entries read of each list. Announcements of this version have fewer.
const MAX_LISTED: usize = 64;

/// A worker's status as it announces it every two seconds, valid for ten. Texts read from Redis are escaped and
/// shortened; fields that an older worker does not announce have their default.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct WorkerStatus {
    /// Identifies the worker, in leases too.
    pub id: String,
    /// The name of its host.
    pub host: String,
    /// The id of its process on that host.
    pub pid: u32,
    /// The version of rpcache.
    pub version: String,
    /// The name of the procedure that it serves.
    pub procedure: String,
    /// The queue that it consumes.
    pub queue: String,
    /// The number of computations that it runs at once.
    pub concurrency: u16,
    /// When it started; seconds since 1970, by its own clock.
    pub started: u64,
    /// When it announced this status; seconds since 1970, by its own clock.
    pub announced: u64,
    /// Its counts since it started.
    pub counts: WorkerCounts,
    /// Computations under way, the longest first, eight at most.
    pub computing: Vec<Computing>,
    /// How long it has been running, by a monotonic clock; milliseconds.
    #[serde(default)]
    pub uptime_millis: u64,
    /// The number of computations under way.
    #[serde(default)]
    pub under_way: u64,
    /// Requests taken and not settled yet.
    #[serde(default)]
    pub held: u64,
    /// The times from taking a request to having its answer.
    #[serde(default)]
    pub request_times: Durations,
    /// The times of computing alone, failed computations included.
    #[serde(default)]
    pub compute_times: Durations,
    /// The keys requested most often, the hottest first, eight at most.
    #[serde(default)]
    pub hottest: Vec<HotKey>,
    /// The slowest computations of the last half minute to minute, the slowest first, eight at most.
    #[serde(default)]
    pub slowest: Vec<SlowKey>,
    /// The failed requests of the last ten minutes, the latest first, four of each code at most.
    #[serde(default)]
    pub failures: Vec<FailedKey>,
}

/// The counts of a worker since it started.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct WorkerCounts {
    /// Requests answered, with an answer or a failure.
    pub answered: u64,
    /// Requests answered by computing here.
    pub computed: u64,
    /// Requests answered from the cache.
    pub cache: u64,
    /// Requests answered by another request's computation.
    pub shared: u64,
    /// Requests that failed.
    pub failed: u64,
    /// Requests that failed as `poison`.
    pub poison: u64,
    /// Computed answers stored in Redis.
    pub filled: u64,
    /// Milliseconds spent on computing.
    pub compute_millis: u64,
}

/// Now, in seconds since 1970, by this host's clock.
pub(crate) fn unix_seconds() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

impl WorkerStatus {
    /// The largest announcement that is read, in bytes. Those of this version stay below a tenth of it.
    pub(crate) const MAX_BYTES: usize = 128 * 1024;

    /// The status of a worker that starts now.
    pub(crate) fn starting(id: &str, procedure: &str, queue: String, concurrency: u16) -> Self {
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
            uptime_millis: 0,
            under_way: 0,
            held: 0,
            request_times: Durations::default(),
            compute_times: Durations::default(),
            hottest: Vec::new(),
            slowest: Vec::new(),
            failures: Vec::new(),
        }
    }

    /// Reads an announcement from Redis, where any peer may have written anything: bounded, texts escaped for a
    /// terminal. `None` if it is no announcement.
    pub(crate) fn read(text: &str) -> Option<Self> {
        if text.len() > Self::MAX_BYTES {
            return None;
        }
        let mut status: Self = serde_json::from_str(text).ok()?;
        status.computing.truncate(MAX_LISTED);
        status.hottest.truncate(MAX_LISTED);
        status.slowest.truncate(MAX_LISTED);
        status.failures.truncate(MAX_LISTED);
        status.request_times.bounded();
        status.compute_times.bounded();
        let texts = [
            &mut status.id,
            &mut status.host,
            &mut status.version,
            &mut status.procedure,
            &mut status.queue,
        ];
        let computing = status.computing.iter_mut().map(|one| &mut one.key);
        let hottest = status.hottest.iter_mut().map(|one| &mut one.key);
        let slowest = status.slowest.iter_mut().map(|one| &mut one.key);
        let failures = status.failures.iter_mut();
        let failures = failures.flat_map(|one| one.key.iter_mut().chain([&mut one.code]));
        let keys = computing.chain(hottest).chain(slowest).chain(failures);
        for text in texts.into_iter().chain(keys) {
            *text = quote(text.as_bytes());
        }
        Some(status)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    /// An announcement of a version before `rpcache top`.
    fn older() -> Value {
        json!({
            "id": "0a1b2c3d", "host": "box", "pid": 4711, "version": "0.1.0", "procedure": "fib",
            "queue": "rpc_queue", "concurrency": 2, "started": 1, "announced": 2,
            "counts": {
                "answered": 15, "computed": 4, "cache": 5, "shared": 3, "failed": 2, "poison": 1,
                "filled": 4, "compute_millis": 7
            },
            "computing": [{"key": "fib:100000", "millis": 3}]
        })
    }

    #[test]
    fn announcement_of_an_older_version_is_read() {
        let status = WorkerStatus::read(&older().to_string()).unwrap();
        assert_eq!((status.counts.answered, status.uptime_millis), (15, 0));
        assert_eq!((status.hottest, status.failures), (Vec::new(), Vec::new()));
        assert_eq!(status.request_times.quantile(0.5), None);
    }

    #[test]
    fn announcement_reads_back_equal() {
        let mut status = WorkerStatus::starting("id", "fib", "rpc_queue".to_owned(), 2);
        let key = "fib:30".to_owned();
        status.hottest = vec![HotKey {
            key: key.clone(),
            per_minute: 60,
            at_most: 61,
        }];
        status.failures = vec![FailedKey {
            key: Some(key),
            code: "poison".to_owned(),
            times: 1,
            ago_millis: 2,
        }];
        let text = serde_json::to_string(&status).unwrap();
        assert_eq!(WorkerStatus::read(&text), Some(status));
    }

    #[test]
    fn hostile_announcement_is_bounded_and_escaped() {
        let mut hostile = older();
        let text = "\u{1b}]0;owned\u{7}\u{202e}".to_owned() + &"x".repeat(1000);
        hostile["host"] = text.clone().into();
        let key = json!({"key": text, "per_minute": u64::MAX, "at_most": 0});
        hostile["hottest"] = vec![key; 500].into();
        hostile["failures"] = json!([{
            "key": text, "code": text, "times": u64::MAX, "ago_millis": u64::MAX
        }]);
        hostile["request_times"] = vec![u64::MAX; 500].into();
        assert_eq!(WorkerStatus::read(&hostile.to_string()), None, "too long");
        hostile["hottest"] = vec![hostile["hottest"][0].take(); 70].into();
        let status = WorkerStatus::read(&hostile.to_string()).unwrap();
        assert_eq!(status.hottest.len(), MAX_LISTED);
        let failed = &status.failures[0];
        for text in [&status.host, failed.key.as_ref().unwrap(), &failed.code] {
            assert!(text.starts_with("\\u{1b}]0;owned\\u{7}\\u{202e}"), "{text}");
            assert!(text.len() < 700, "{}", text.len());
        }
        for none in ["", "null", "[]", "{}", "{\"id\": 7}"] {
            assert_eq!(WorkerStatus::read(none), None);
        }
    }
}
