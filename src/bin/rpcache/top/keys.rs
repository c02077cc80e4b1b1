//! Merges the workers' announcements about keys: hottest, slowest, failed.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::time::Duration;

use rpcache::fleet::WorkerStatus;

use super::snapshot::{Computing, Failed, Hot, Slow, millis, rounded};

/// Limit of the keys in a list.
const MAX_KEYS: usize = 10;

/// Limit of the computations in the list; each worker announces eight.
const MAX_COMPUTING: usize = 20;

/// A worker's last announcement, and its age.
pub(super) type Announced<'a> = (&'a WorkerStatus, Duration);

/// All computations, the longest first.
pub(super) fn computing(workers: &[Announced<'_>]) -> Vec<Computing> {
    let mut all: Vec<_> = workers.iter().flat_map(computing_at).collect();
    all.sort_by(|one, other| other.ms.cmp(&one.ms).then_with(|| one.key.cmp(&other.key)));
    all.truncate(MAX_COMPUTING);
    all
}

/// The computations of one worker, in its own order.
pub(super) fn computing_at((status, age): &Announced<'_>) -> Vec<Computing> {
    let age = u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
    let computing = status.computing.iter().map(|one| Computing {
        key: one.key.clone(),
        ms: one.millis.saturating_add(age),
        worker: status.id.clone(),
    });
    computing.collect()
}

/// The hottest keys by the sum of their rates at all workers, the highest first.
#[expect(clippy::cast_precision_loss, reason = "a rate")]
pub(super) fn hottest(workers: &[Announced<'_>]) -> Vec<Hot> {
    let mut rates: HashMap<&str, (u64, u64)> = HashMap::new();
    for hot in workers.iter().flat_map(|(status, _)| &status.hottest) {
        let (per_minute, at_most) = rates.entry(&hot.key).or_default();
        *per_minute = per_minute.saturating_add(hot.per_minute);
        *at_most = at_most.saturating_add(hot.at_most);
    }
    let mut all: Vec<_> = rates.into_iter().collect();
    all.sort_by_key(|&(key, (per_minute, _))| (Reverse(per_minute), key));
    let hottest = all
        .into_iter()
        .take(MAX_KEYS)
        .map(|(key, (per_minute, at_most))| Hot {
            key: key.to_owned(),
            per_second: rounded(per_minute as f64 / 60.0),
            at_most: rounded(at_most as f64 / 60.0),
        });
    hottest.collect()
}

/// The slowest keys, each once with its longest time.
pub(super) fn slowest(workers: &[Announced<'_>]) -> Vec<Slow> {
    let mut all: Vec<_> = workers
        .iter()
        .flat_map(|worker| worker.0.slowest.iter().map(move |slow| (worker, slow)))
        .collect();
    all.sort_by(|(_, one), (_, other)| {
        let longer = other.micros.cmp(&one.micros);
        longer.then_with(|| one.key.cmp(&other.key))
    });
    let mut slowest: Vec<Slow> = Vec::new();
    for ((status, age), slow) in all {
        if slowest.len() < MAX_KEYS && slowest.iter().all(|known| known.key != slow.key) {
            slowest.push(Slow {
                key: slow.key.clone(),
                ms: millis(Duration::from_micros(slow.micros)),
                ago_s: ago(slow.ago_millis, *age),
                worker: status.id.clone(),
            });
        }
    }
    slowest
}

/// The failed keys: poison first, because it is rare and needs an operator, then the latest.
pub(super) fn failed(workers: &[Announced<'_>]) -> Vec<Failed> {
    let mut all: Vec<Failed> = Vec::new();
    for (status, age) in workers {
        for failed in &status.failures {
            let ago_s = ago(failed.ago_millis, *age);
            let same = |known: &&mut Failed| known.key == failed.key && known.code == failed.code;
            if let Some(known) = all.iter_mut().find(same) {
                known.times = known.times.saturating_add(failed.times);
                if ago_s < known.ago_s {
                    (known.ago_s, known.worker) = (ago_s, status.id.clone());
                }
            } else {
                all.push(Failed {
                    key: failed.key.clone(),
                    code: failed.code.clone(),
                    times: failed.times,
                    ago_s,
                    worker: status.id.clone(),
                });
            }
        }
    }
    all.sort_by(|one, other| {
        let order = |failed: &Failed| (failed.code != "poison", failed.ago_s);
        let by_time = order(one).cmp(&order(other));
        by_time.then_with(|| one.key.cmp(&other.key))
    });
    all.truncate(MAX_KEYS);
    all
}

fn ago(millis: u64, age: Duration) -> u64 {
    millis / 1000 + age.as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn worker(id: &str, more: &serde_json::Value) -> WorkerStatus {
        let mut status = json!({
            "id": id, "host": "box", "pid": 1, "version": "1", "procedure": "fib",
            "queue": "rpc_queue", "concurrency": 2, "started": 1, "announced": 2,
            "counts": {
                "answered": 0, "computed": 0, "cache": 0, "shared": 0, "failed": 0, "poison": 0,
                "filled": 0, "compute_millis": 0
            },
            "computing": []
        });
        for (name, value) in more.as_object().unwrap() {
            status[name] = value.clone();
        }
        serde_json::from_value(status).unwrap()
    }

    #[test]
    fn keys_of_several_workers_are_merged() {
        let one = worker(
            "one",
            &json!({
                "computing": [{"key": "a", "millis": 10}],
                "hottest": [{"key": "a", "per_minute": 60, "at_most": 60}, {"key": "b", "per_minute": 90, "at_most": 120}],
                "slowest": [{"key": "a", "micros": 1500, "ago_millis": 3000}],
                "failures": [
                    {"key": "a", "code": "failed", "times": 1, "ago_millis": 9000},
                    {"key": "k", "code": "poison", "times": 1, "ago_millis": 60_000},
                ],
            }),
        );
        let other = worker(
            "other",
            &json!({
                "computing": [{"key": "b", "millis": 20}],
                "hottest": [{"key": "a", "per_minute": 60, "at_most": 66}],
                "slowest": [{"key": "a", "micros": 2500, "ago_millis": 5000}, {"key": "b", "micros": 1, "ago_millis": 0}],
                "failures": [
                    {"key": "a", "code": "failed", "times": 2, "ago_millis": 4000},
                    {"key": null, "code": "bad-argument", "times": u64::MAX, "ago_millis": 0},
                ],
            }),
        );
        let second = Duration::from_secs(1);
        let workers = [(&one, Duration::ZERO), (&other, second)];
        let keys = computing(&workers).into_iter().map(|one| (one.key, one.ms));
        assert_eq!(
            keys.collect::<Vec<_>>(),
            [("b".to_owned(), 1020), ("a".to_owned(), 10)]
        );
        let rates = hottest(&workers).into_iter();
        let rates: Vec<_> = rates
            .map(|hot| (hot.key, hot.per_second, hot.at_most))
            .collect();
        assert_eq!(
            rates,
            [("a".to_owned(), 2.0, 2.1), ("b".to_owned(), 1.5, 2.0)]
        );
        let slow = slowest(&workers);
        assert_eq!((slow.len(), slow[0].ms, slow[0].ago_s), (2, 2.5, 6));
        assert_eq!(slow[0].worker, "other");
        let failed = failed(&workers);
        let codes: Vec<_> = failed.iter().map(|one| one.code.as_str()).collect();
        assert_eq!(codes, ["poison", "bad-argument", "failed"]);
        assert_eq!((failed[2].times, failed[2].ago_s), (3, 5));
    }
}
