//! `rpcache cache stats` and `explain`: figures of the whole cache, and the state of one key.

use serde_json::{Value, json};

use crate::support::redis::Redis;
use crate::support::{ONE_AT_A_TIME, Setup, VERY_SLOW, wait};

async fn json_output(redis: &Redis, arguments: &[&str]) -> Value {
    let finished = redis.rpcache(&[arguments, &["--json"]].concat()).await;
    assert_eq!((finished.code, finished.stderr.as_str()), (Some(0), ""));
    assert_eq!(finished.stdout.lines().count(), 1);
    serde_json::from_str(&finished.stdout).expect("JSON")
}

/// A worker's announcement, whose host name has control characters.
fn announcement() -> String {
    json!({
        "id": "0a1b2c3d", "host": "box\u{1b}[2J", "pid": 4711, "version": "1", "procedure": "fib",
        "queue": "rpc_queue", "concurrency": 2, "started": 1, "announced": 2,
        "counts": {
            "answered": 15, "computed": 4, "cache": 5, "shared": 3, "failed": 2, "poison": 1,
            "filled": 4, "compute_millis": 7
        },
        "computing": [{"key": "fib:100000", "millis": 3}]
    })
    .to_string()
}

async fn with_something() -> Redis {
    let redis = Redis::start();
    redis.set("fib:30", "832040").await;
    redis
        .run::<()>(&["SET", "fib:31", "1346269", "EX", "3000"])
        .await;
    redis.set("other", "1").await;
    redis.set("{fib:32}:lease", "00aa@0a1b2c3d").await;
    redis.set("rpcache:worker:0", &announcement()).await;
    redis
}

#[tokio::test]
async fn stats_are_printed_in_rows() {
    let redis = with_something().await;
    let stats = redis.rpcache(&["stats"]).await;
    assert_eq!((stats.code, stats.stderr.as_str()), (Some(0), ""));
    for row in [
        "memory_limit\t0",
        "eviction_policy\tnoeviction",
        "evicted\t0",
        "keys\t5",
        "answers\t2",
        "answers_precision\texact",
        "bytes\t13",
        "leases\t1",
        "ttl_hour\t1",
        "ttl_day\t0",
        "ttl_forever\t1",
        "worker\thost\tpid\tcomputing\tanswered\tcomputed\tcache\tshared\tfailed",
        "0a1b2c3d\tbox\\u{1b}[2J\t4711\t1\t15\t4\t5\t3\t2",
    ] {
        assert!(
            stats.stdout.lines().any(|line| line == row),
            "{row:?}: {stats:#?}"
        );
    }
}

#[tokio::test]
async fn stats_are_printed_as_json() {
    let redis = with_something().await;
    redis
        .run::<()>(&["CONFIG", "SET", "maxmemory", "100mb"])
        .await;
    redis.run::<()>(&["CONFIG", "RESETSTAT"]).await;
    for key in ["fib:30", "fib:30", "fib:30", "nothing"] {
        redis.get(key).await;
    }
    let stats = json_output(&redis, &["stats"]).await;
    let server = &stats["server"];
    assert_eq!((&server["hits"], &server["misses"]), (&json!(3), &json!(1)));
    assert_eq!(server["memory_limit"], 100 << 20);
    assert!(server["memory"].as_u64().unwrap() > 100_000);
    assert_eq!(
        stats["survey"]["answers"],
        json!({"count": 2, "precision": "exact"})
    );
    assert_eq!(stats["survey"]["ttl"]["hour"], 1);
    assert_eq!(stats["workers"][0]["counts"]["shared"], 3);
    assert_eq!(stats["workers"][0]["host"], "box\\u{1b}[2J");
}

/// Above a hundred thousand keys, counts are estimates.
#[tokio::test]
async fn many_answers_are_estimated() {
    let redis = Redis::start();
    for start in (0..120_000).step_by(10_000) {
        let fill = format!(
            "for n = {start}, {start} + 9999 do redis.call('SET', 'fib:' .. n, '1') \
             redis.call('SET', 'other:' .. n, '1') end"
        );
        redis.run::<()>(&["EVAL", &fill, "0"]).await;
    }
    let survey = json_output(&redis, &["stats"]).await["survey"].take();
    assert_eq!(survey["keys"], 240_000);
    assert_eq!(survey["answers"]["precision"], "about");
    let count = survey["answers"]["count"].as_u64().unwrap();
    assert!((110_000..130_000).contains(&count), "{survey}");
}

/// A login with the right to read keys only.
#[tokio::test]
async fn stats_show_what_the_login_may_read() {
    let redis = with_something().await;
    let rules = [
        "on", ">pw", "~fib:*", "+ping", "+scan", "+pttl", "+strlen", "+mget",
    ];
    let looker = [&["ACL", "SETUSER", "looker"], &rules[..]].concat();
    redis.run::<()>(&looker).await;
    let stats = redis
        .program(&["stats"])
        .env("REDIS_URL", &redis.url_with("looker:pw@"))
        .run()
        .await;
    assert_eq!(stats.code, Some(0), "{stats:#?}");
    assert!(stats.stdout.starts_with("answers\t2\n"), "{stats:#?}");
    let notes: Vec<&str> = stats.stderr.lines().collect();
    assert_eq!(notes.len(), 2, "{stats:#?}");
    assert!(
        notes[0].contains("INFO") && notes[1].contains("workers"),
        "{stats:#?}"
    );

    let unknown = redis
        .program(&["stats"])
        .env("REDIS_URL", &redis.url_with("unknown:pw@"));
    unknown.run().await.refuses(3, "refuses");
}

#[tokio::test]
async fn key_is_explained() {
    let redis = with_something().await;
    redis.set("fib:33", "1\u{1b}").await;
    redis.rpcache(&["explain", "30"]).await.answers(
        "key\tfib:30\nstored\tyes\nttl\tnone\nsize\t6\nverifies\tyes\n\
         lease\tnone: no worker computes it, or it is cheap\n",
    );
    redis.rpcache(&["explain", "32"]).await.answers(
        "key\tfib:32\nstored\tno\n\
         lease\theld by worker 0a1b2c3d on box\\u{1b}[2J, process 4711; for ever\n",
    );
    let wrong = json_output(&redis, &["explain", "33"]).await;
    assert_eq!(
        (&wrong["stored"], &wrong["verifies"]),
        (&json!(true), &json!(false))
    );
    assert_eq!(wrong["wrong"], "unreadable");
    assert_eq!(wrong["message"], "not readable as an answer: \"1\\u{1b}\"");
    let nothing = json_output(&redis, &["explain", "34"]).await;
    assert_eq!(
        (&nothing["stored"], &nothing["verifies"]),
        (&json!(false), &Value::Null)
    );
}

#[tokio::test]
async fn invalid_lease_is_explained() {
    let redis = Redis::start();
    let state = async || json_output(&redis, &["explain", "30"]).await["lease"]["state"].take();
    assert_eq!(state().await, Value::Null);
    for (token, expected) in [
        ("uncached", "uncached"),
        ("\u{1b}", "unknown"),
        ("a@b", "held"),
    ] {
        redis.set("{fib:30}:lease", token).await;
        assert_eq!(state().await, expected);
    }
    redis.run::<()>(&["DEL", "{fib:30}:lease"]).await;
    redis.run::<()>(&["LPUSH", "{fib:30}:lease", "x"]).await;
    assert_eq!(state().await, "unknown");
    redis.set("{fib:30}:starts", "2").await;
    assert_eq!(json_output(&redis, &["explain", "30"]).await["begun"], 2);
}

/// A real worker computes.
#[tokio::test]
async fn lease_holder_is_found_among_the_workers() {
    let setup = Setup::new().await;
    let worker = setup.worker(&ONE_AT_A_TIME).await;
    wait::wait_until("the worker has announced itself", async || {
        setup.redis.get("rpcache:worker:0").await.is_some()
    })
    .await;
    let slow = VERY_SLOW.to_string();
    let call = setup.start_call(&[&slow, "--timeout", "25s"]);
    let mut held = Value::Null;
    wait::wait_until("the worker holds the lease and says so", async || {
        held = json_output(&setup.redis, &["explain", &slow]).await;
        held["lease"]["pid"].is_u64()
    })
    .await;
    assert_eq!(held["lease"]["state"], "held");
    let stats = json_output(&setup.redis, &["stats"]).await;
    assert_eq!(held["lease"]["worker"], stats["workers"][0]["id"]);
    assert_eq!(held["lease"]["pid"], stats["workers"][0]["pid"]);
    assert_eq!(stats["survey"]["leases"]["count"], 1);
    assert_eq!(call.finish().await.code, Some(0));
    assert_eq!(worker.terminate().await.code, Some(0));
}
