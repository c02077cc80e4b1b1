//! What a worker tells of itself: a plain string in Redis, short-lived, for whoever looks at the
//! fleet. Not part of any call.

mod durations;
mod keys;

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

pub use self::durations::Durations;
pub use self::keys::{Computing, FailedKey, HotKey, SlowKey};
use super::Service;
use crate::error::quote;
use crate::procedure::Procedure;

/// How often a worker tells of itself.
const EVERY: Duration = Duration::from_secs(2);

/// The longest announcement that is read. Ours stay below a tenth of it.
const LONGEST: usize = 128 * 1024;

/// Entries of a list that are read. Ours have fewer.
const MOST_LISTED: usize = 64;

/// A worker as it announces itself, every two seconds, for ten. Texts that were read from Redis are
/// escaped and shortened; what an older worker does not tell is nothing.
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
    /// For how long it has been running when it said so, by a clock that nobody sets; milliseconds.
    #[serde(default)]
    pub uptime_millis: u64,
    /// How many computations are under way.
    #[serde(default)]
    pub under_way: u64,
    /// Requests that it has taken and not settled.
    #[serde(default)]
    pub held: u64,
    /// From taking a request to having its answer.
    #[serde(default)]
    pub request_times: Durations,
    /// Computing alone, whatever came of it.
    #[serde(default)]
    pub compute_times: Durations,
    /// The keys that it is asked for most often, the hottest first, eight at most.
    #[serde(default)]
    pub hottest: Vec<HotKey>,
    /// What took longest to compute in the last half minute to minute, the slowest first, eight at
    /// most.
    #[serde(default)]
    pub slowest: Vec<SlowKey>,
    /// What failed in the last ten minutes, the latest first, four of each code at most.
    #[serde(default)]
    pub failures: Vec<FailedKey>,
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

fn unix_seconds() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

impl WorkerStatus {
    /// The longest announcement that is read, in bytes.
    pub(crate) const LONGEST: usize = LONGEST;

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

    /// An announcement as it stands in Redis, where anybody may have put anything: bounded, and fit
    /// for a terminal. `None` if it is none.
    pub(crate) fn read(text: &str) -> Option<Self> {
        if text.len() > LONGEST {
            return None;
        }
        let mut status: Self = serde_json::from_str(text).ok()?;
        status.computing.truncate(MOST_LISTED);
        status.hottest.truncate(MOST_LISTED);
        status.slowest.truncate(MOST_LISTED);
        status.failures.truncate(MOST_LISTED);
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

/// Tells of the worker until `end`, and takes it back then.
pub(super) async fn announce<P: Procedure>(
    service: Arc<Service<P>>,
    concurrency: u16,
    end: CancellationToken,
) {
    let mut status = WorkerStatus::starting(
        &service.id,
        service.name().as_str(),
        service.queue.to_string(),
        concurrency,
    );
    let (mut place, start) = (None, Instant::now());
    loop {
        status.announced = unix_seconds();
        status.uptime_millis = u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX);
        service.vitals.tell(&mut status, start);
        place = service.cache.announce(&status, place).await;
        if timeout(EVERY, end.cancelled()).await.is_ok() {
            break;
        }
    }
    if let Some(place) = place {
        service.cache.retract(place).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    /// As workers announced themselves before there was `rpcache top`.
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
    fn older_workers_are_understood() {
        let status = WorkerStatus::read(&older().to_string()).unwrap();
        assert_eq!((status.counts.answered, status.uptime_millis), (15, 0));
        assert_eq!((status.hottest, status.failures), (Vec::new(), Vec::new()));
        assert_eq!(status.request_times.quantile(0.5), None);
    }

    #[test]
    fn announcements_read_back_what_they_tell() {
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
    fn what_somebody_else_wrote_is_bounded_and_fit_for_a_terminal() {
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
        assert_eq!(status.hottest.len(), MOST_LISTED);
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
