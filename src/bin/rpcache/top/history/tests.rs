//! Tests of rates from two polls: restarts, vanished workers, counts that became smaller.

use serde_json::{Value, json};

use super::*;

fn refused() -> Error {
    Error::Refused {
        server: "redis://localhost".to_owned(),
        reason: "NOPERM".to_owned(),
    }
}

fn unreachable() -> Error {
    Error::Unreachable {
        server: "redis://localhost".to_owned(),
        reason: "nothing is listening there".to_owned(),
    }
}

/// A worker with this uptime that has answered this many requests.
fn worker(id: &str, uptime_millis: u64, answered: u64) -> Value {
    json!({
        "id": id, "host": "box", "pid": 1, "version": "1", "procedure": "fib",
        "queue": "rpc_queue", "concurrency": 2, "started": 1, "announced": 2 + uptime_millis / 1000,
        "uptime_millis": uptime_millis, "held": 3, "under_way": 1,
        "counts": {
            "answered": answered, "computed": answered / 2, "cache": 0, "shared": 0, "failed": 0,
            "poison": 0, "filled": 0, "compute_millis": 0
        },
        "computing": [{"key": "fib:1000000", "millis": 100}],
        "request_times": [0, answered]
    })
}

fn history() -> History {
    History::new("rpc_queue".to_owned(), None, Duration::from_secs(2))
}

fn announce(history: &mut History, workers: &[Value], now: Instant) {
    let workers = workers.iter().cloned().map(serde_json::from_value);
    history.workers(Ok(workers.collect::<Result<_, _>>().unwrap()), now);
}

fn fleet(snapshot: &Snapshot) -> &Fleet {
    match &snapshot.fleet {
        Seen::Ok(fleet) => fleet,
        other => panic!("{other:?}"),
    }
}

fn answered(history: &History, now: Instant) -> Option<f64> {
    let rates = fleet(&history.snapshot(now)).per_second;
    rates.map(|rates| rates.answered)
}

#[test]
fn rates_are_those_between_two_announcements_whenever_they_are_read() {
    let (mut history, start) = (history(), Instant::now());
    let at = |millis| start + Duration::from_millis(millis);
    announce(&mut history, &[worker("a", 1000, 100)], at(0));
    assert_eq!(answered(&history, at(0)), None, "one says nothing");
    assert!(history.awaits_announcements());
    announce(&mut history, &[worker("a", 3000, 300)], at(1000));
    assert_eq!(answered(&history, at(1000)), Some(100.0));
    // Read again before the next one.
    announce(&mut history, &[worker("a", 3000, 300)], at(2900));
    assert_eq!(answered(&history, at(2900)), Some(100.0));
    announce(&mut history, &[worker("a", 5000, 700)], at(3000));
    assert_eq!(answered(&history, at(3000)), Some(200.0));
    let snapshot = history.snapshot(at(3500));
    assert_eq!(snapshot.computing[0].ms, 600, "it goes on meanwhile");
    let Fleet {
        slots,
        under_way,
        held,
        request_ms,
        ..
    } = fleet(&snapshot);
    assert_eq!((*slots, *under_way, *held), (2, 1, 3));
    let p50 = request_ms.p50.unwrap();
    assert!((0.01..=0.025).contains(&p50), "{p50}");
}

#[test]
fn workers_come_restart_and_vanish() {
    let (mut history, start) = (history(), Instant::now());
    let at = |seconds| start + Duration::from_secs(seconds);
    announce(
        &mut history,
        &[worker("a", 1000, 1000), worker("b", 1000, 1000)],
        at(0),
    );
    announce(
        &mut history,
        &[worker("a", 2000, 1010), worker("b", 2000, 1010)],
        at(1),
    );
    assert_eq!(answered(&history, at(1)), Some(20.0));
    // b has restarted, as c.
    announce(
        &mut history,
        &[worker("a", 3000, 1020), worker("c", 0, 0)],
        at(2),
    );
    assert_eq!(answered(&history, at(2)), Some(10.0));
    // Another worker has a's id, and smaller counts.
    announce(
        &mut history,
        &[worker("a", 4000, 5), worker("c", 1000, 7)],
        at(3),
    );
    assert_eq!(answered(&history, at(3)), Some(7.0));
    // Nor does a clock that goes back give a rate.
    announce(
        &mut history,
        &[worker("a", 10, 5000), worker("c", 2000, 14)],
        at(4),
    );
    assert_eq!(answered(&history, at(4)), Some(7.0));
    announce(&mut history, &[], at(5));
    assert_eq!(answered(&history, at(5)), Some(0.0));
    assert_eq!(history.workers_shown(), 0);
}

#[test]
fn frozen_worker_is_silent_and_has_no_rate() {
    let (mut history, start) = (history(), Instant::now());
    let at = |seconds| start + Duration::from_secs(seconds);
    announce(&mut history, &[worker("a", 1000, 0)], at(0));
    announce(&mut history, &[worker("a", 3000, 10)], at(2));
    assert_eq!(history.snapshot(at(6)).workers[0].silent_s, 0);
    let snapshot = history.snapshot(at(9));
    assert_eq!(snapshot.workers[0].silent_s, 7);
    assert_eq!(snapshot.workers[0].per_second, None);
    assert_eq!(fleet(&snapshot).per_second, None);
}

#[test]
fn rates_of_older_workers_are_by_whole_seconds() {
    let (mut history, now) = (history(), Instant::now());
    let older = |announced, answered| {
        let mut older = worker("old", 0, answered);
        older["announced"] = json!(announced);
        let fields = older.as_object_mut().unwrap();
        for newer in ["uptime_millis", "held", "under_way", "request_times"] {
            fields.remove(newer);
        }
        older
    };
    announce(&mut history, &[older(100, 0)], now);
    announce(&mut history, &[older(102, 50)], now);
    assert_eq!(answered(&history, now), Some(25.0));
    let worker = &history.snapshot(now).workers[0];
    assert_eq!((worker.under_way, worker.uptime_s), (1, 101));
}

/// As after Redis answered too late once.
#[test]
fn worker_under_two_keys_is_one_and_has_rates() {
    let (mut history, start) = (history(), Instant::now());
    announce(&mut history, &[worker("a", 1000, 10)], start);
    let now = start + Duration::from_secs(2);
    for both in [[1000, 3000], [3000, 1000]] {
        let both = both.map(|uptime| worker("a", uptime, uptime / 100));
        announce(&mut history, &both, now);
        let snapshot = history.snapshot(now);
        assert_eq!(
            (snapshot.workers.len(), fleet(&snapshot).other_workers),
            (1, 0)
        );
        assert_eq!(answered(&history, now), Some(10.0));
    }
}

#[test]
fn workers_of_other_queues_are_only_counted() {
    let (mut history, now) = (history(), Instant::now());
    let mut other = worker("other", 0, 0);
    other["queue"] = "rpc_queue.other".into();
    announce(&mut history, &[worker("a", 0, 0), other], now);
    let snapshot = history.snapshot(now);
    assert_eq!(
        (snapshot.workers.len(), fleet(&snapshot).other_workers),
        (1, 1)
    );
}

#[test]
fn a_missing_right_is_not_shown_as_a_server_that_is_down() {
    let (mut history, now) = (history(), Instant::now());
    let look = |server: Server, workers| RedisPoll {
        before: (now, server.clone()),
        workers,
        after: (now, server),
    };
    history.redis(look(Ok(None), Err(refused())));
    let snapshot = history.snapshot(now);
    assert!(matches!(snapshot.redis, Seen::NotPermitted));
    assert!(matches!(snapshot.fleet, Seen::NotPermitted));
    // A refused login counts as down.
    history.redis(look(Err(refused()), Err(refused())));
    assert!(matches!(history.snapshot(now).fleet, Seen::Down { .. }));
    assert!(history.both_down().is_none());
    history.queues(Err(unreachable()));
    assert!(history.both_down().is_some());
    let text = serde_json::to_value(history.snapshot(now)).unwrap();
    assert_eq!(text["broker"]["state"], "down");
    let error = text["broker"]["error"].as_str().unwrap();
    assert!(error.contains("nothing is listening"), "{error}");
}

/// Makes [`ServerStats`] by JSON, because their struct is non-exhaustive.
fn stats(change: impl FnOnce(&mut ServerStats)) -> ServerStats {
    let mut stats = ServerStats::default();
    change(&mut stats);
    stats
}

#[test]
fn our_own_lookups_are_not_in_the_rates_of_redis() {
    let (mut history, start) = (history(), Instant::now());
    let at = |seconds| start + Duration::from_secs(seconds);
    let server = |hits, misses| {
        Ok(Some(stats(|stats| {
            (stats.hits, stats.misses) = (hits, misses);
        })))
    };
    history.redis(RedisPoll {
        before: (at(0), server(0, 0)),
        workers: Ok(Vec::new()),
        after: (at(0), server(0, 64)),
    });
    history.redis(RedisPoll {
        before: (at(2), server(30, 74)),
        workers: Ok(Vec::new()),
        after: (at(2), server(30, 138)),
    });
    let Seen::Ok(redis) = history.snapshot(at(2)).redis else {
        panic!("it is there")
    };
    let rates = redis.per_second.unwrap();
    assert_eq!((rates.hits, rates.misses), (15.0, 5.0));
    assert_eq!(redis.hit_share, Some(0.75));
}

#[test]
fn redis_that_has_restarted_has_no_rate() {
    let of = |uptime, hits| stats(|stats| (stats.uptime, stats.hits) = (uptime, hits));
    let second = Duration::from_secs(1);
    assert!(redis_rates(&of(10, 100), &of(11, 200), second).is_some());
    assert!(redis_rates(&of(10, 100), &of(0, 200), second).is_none());
    assert!(redis_rates(&of(10, 100), &of(11, 200), Duration::ZERO).is_none());
    assert_eq!(share(0.0, 0.0), None);
}
