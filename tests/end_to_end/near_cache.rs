//! The near cache of a long-lived client: answers from its own memory, and invalidation of removed ones.

use crate::support::process::{Process, Program};
use crate::support::redis::Redis;
use crate::support::wait::wait_until;
use crate::support::{EXPENSIVE, Setup, fibonacci};
use serde_json::Value;
use std::time::{Duration, Instant};

/// Limit for an invalidation to arrive.
const INVALIDATED_WITHIN: Duration = Duration::from_secs(1);

/// `rpcache call -`, fed one number at a time.
struct Client {
    process: Process,
    calls: usize,
}

impl Client {
    /// A client without a broker: only Redis and copies can answer.
    fn of(redis_url: &str) -> Self {
        Self::start(
            Program::rpcache(&["call", "-", "--json", "--local-cache", "1MB"])
                .env("AMQP_URL", "amqp://127.0.0.1:1")
                .env("REDIS_URL", redis_url),
        )
    }

    fn start(program: Program) -> Self {
        Self {
            process: program.fed().start(),
            calls: 0,
        }
    }

    /// Calls, checks the answer, and returns its source.
    async fn source(&mut self, n: u64) -> String {
        self.process.feed(&format!("{n}\n")).await;
        self.calls += 1;
        wait_until("it is answered", async || {
            self.process.stdout().matches('\n').count() == self.calls
        })
        .await;
        let stdout = self.process.stdout();
        let line: Value = serde_json::from_str(stdout.lines().last().unwrap()).unwrap();
        assert_eq!(line["argument"], n.to_string());
        assert_eq!(line["answer"], fibonacci(n), "{line}");
        line["source"].as_str().unwrap().to_owned()
    }

    /// Calls until the answer is a copy; while the client starts, a copy may be dropped once.
    async fn has_copy(&mut self, n: u64) {
        wait_until("the answer is local", async || {
            self.source(n).await == "local"
        })
        .await;
    }

    /// Calls until the answer is not a copy; fails if that takes too long.
    async fn has_none(&mut self, n: u64, why: &str) {
        let removed = Instant::now();
        while self.source(n).await == "local" {
            assert!(removed.elapsed() < INVALIDATED_WITHIN, "{why}");
        }
    }
}

async fn subscribers(redis: &Redis, channel: &str) -> i64 {
    let counted: (String, i64) = redis.run(&["PUBSUB", "NUMSUB", channel]).await;
    counted.1
}

/// A client that is subscribed to invalidations and has a copy of F(30).
async fn client_with_copy(redis: &Redis) -> Client {
    redis.set("fib:30", "832040").await;
    let mut client = Client::of(&redis.url());
    wait_until("it listens", async || {
        subscribers(redis, "rpcache:removed").await == 1
    })
    .await;
    client.has_copy(30).await;
    client
}

#[tokio::test]
async fn second_call_is_answered_locally_and_removal_invalidates() {
    let setup = Setup::new().await;
    let _worker = setup.worker(&[]).await;
    let call = ["call", "-", "--json", "--local-cache", "1MB"];
    let mut client = Client::start(setup.rpcache(&call));
    for n in [30, EXPENSIVE] {
        assert_eq!(client.source(n).await, "computed");
        client.has_copy(n).await;
    }
    for removal in [
        &["rm", "30", "100000"][..],
        &["rm", "--pattern", "*", "--yes"],
        &["rm", "--all", "--yes"],
    ] {
        let removed = setup.redis.rpcache(removal).await;
        removed.answers("removed 2\n");
        for n in [30, EXPENSIVE] {
            client.has_none(n, &format!("{removal:?}")).await;
            client.has_copy(n).await;
        }
    }
    setup.redis.set("fib:30", "832041").await;
    let repaired = setup.redis.rpcache(&["verify", "--repair"]).await;
    assert_eq!(repaired.code, Some(0), "{repaired:#?}");
    client.has_none(30, "verify --repair").await;
    assert_eq!(
        client.source(EXPENSIVE).await,
        "local",
        "one key was repaired"
    );
}

#[tokio::test]
async fn removal_invalidates_copies_of_keys_that_redis_has_lost() {
    let redis = Redis::start();
    for removal in [&["rm", "30"][..], &["rm", "--all", "--yes"]] {
        let mut client = client_with_copy(&redis).await;
        redis.run::<()>(&["DEL", "fib:30"]).await;
        assert_eq!(
            client.source(30).await,
            "local",
            "DEL sends no invalidation"
        );
        redis.rpcache(removal).await.answers("removed 0\n");
        redis.set("fib:30", "832040").await;
        client.has_none(30, &format!("{removal:?}")).await;
    }
}

#[tokio::test]
async fn dry_run_removes_no_copy() {
    let redis = Redis::start();
    let mut client = client_with_copy(&redis).await;
    redis
        .rpcache(&["rm", "--all", "--dry-run"])
        .await
        .answers("fib:30\n");
    // Messages are ordered: this invalidation arrives after any earlier one.
    redis.set("fib:31", "1346269").await;
    client.has_copy(31).await;
    redis.rpcache(&["rm", "31"]).await.answers("removed 1\n");
    redis.set("fib:31", "1346269").await;
    client.has_none(31, "rm 31").await;
    assert_eq!(client.source(30).await, "local");
}

#[tokio::test]
async fn local_answers_go_on_without_redis() {
    let redis = Redis::start();
    let mut client = client_with_copy(&redis).await;
    drop(redis);
    for _ in 0..10 {
        assert_eq!(client.source(30).await, "local");
    }
}

#[tokio::test]
async fn copies_are_dropped_when_invalidations_may_have_been_missed() {
    let redis = Redis::start();
    let mut client = client_with_copy(&redis).await;
    let kill = ["CLIENT", "KILL", "TYPE", "pubsub"];
    assert_eq!(redis.run::<i64>(&kill).await, 1);
    wait_until("the copy is dropped", async || {
        client.source(30).await == "cache"
    })
    .await;
    assert_eq!(subscribers(&redis, "rpcache:removed").await, 1);
    client.has_copy(30).await;
}

#[tokio::test]
async fn invalidations_stay_in_their_namespace() {
    let redis = Redis::start();
    redis.set("prod:fib:30", "832040").await;
    let program = Program::rpcache(&["call", "-", "--json", "--local-cache", "1MB"])
        .env("AMQP_URL", "amqp://127.0.0.1:1")
        .env("RPCACHE_NAMESPACE", "prod")
        .env("REDIS_URL", &redis.url());
    let mut client = Client::start(program);
    wait_until("it listens", async || {
        subscribers(&redis, "prod:rpcache:removed").await == 1
    })
    .await;
    client.has_copy(30).await;
    let others = redis.rpcache(&["rm", "--all", "--yes"]).await;
    others.answers("removed 0\n");
    assert_eq!(client.source(30).await, "local");
    let ours = redis
        .program(&["rm", "30"])
        .env("RPCACHE_NAMESPACE", "prod");
    ours.run().await.answers("removed 1\n");
    redis.set("prod:fib:30", "832040").await;
    client.has_none(30, "rm 30 in prod").await;
}

#[tokio::test]
async fn invalid_messages_drop_copies_only() {
    let redis = Redis::start();
    let mut client = client_with_copy(&redis).await;
    let publish = async |message: &[u8]| {
        let publish = redis::Cmd::publish("rpcache:removed", message);
        assert_eq!(redis.command::<i64>(&publish).await, 1);
    };
    for none in [&b""[..], b"\n\n", b"factors:*", b"factors:30", b"fib:"] {
        publish(none).await;
    }
    // Arrives after those.
    publish(b"fib:31").await;
    assert_eq!(client.source(30).await, "local");
    for some in [
        &b"fib:30"[..],
        b"x\nfib:30\r\n",
        b"fib:*",
        b"*",
        b"\xff",
        &[b'x'; 10].repeat(10_000),
    ] {
        publish(some).await;
        let shown = some[..some.len().min(20)].escape_ascii();
        client.has_none(30, &shown.to_string()).await;
        client.has_copy(30).await;
    }
}

/// The URL of a user with these rights on keys of `fib` only.
async fn user(redis: &Redis, rights: &[&str]) -> String {
    let least = ["ACL", "SETUSER", "least", "reset", "on", ">least", "~fib:*"];
    redis.run::<()>(&[&least, rights].concat()).await;
    redis.url_with("least:least@")
}

#[tokio::test]
async fn client_without_the_right_to_subscribe_logs_it_once_and_keeps_copies() {
    for rights in [
        &["+get", "+mget"][..],
        // The command, but not the channel.
        &["+get", "+mget", "+subscribe"],
    ] {
        let redis = Redis::start();
        redis.set("fib:30", "832040").await;
        let mut client = Client::of(&user(&redis, rights).await);
        client.has_copy(30).await;
        client
            .process
            .says("Redis refuses to tell of removals")
            .await;
        redis.rpcache(&["rm", "30"]).await.answers("removed 1\n");
        assert_eq!(client.source(30).await, "local");
        assert_eq!(client.process.stderr().lines().count(), 1);
    }
}

#[tokio::test]
async fn least_rights_to_subscribe_are_enough() {
    let redis = Redis::start();
    redis.set("fib:30", "832040").await;
    let rights = ["+get", "+mget", "+subscribe", "&rpcache:*"];
    let mut client = Client::of(&user(&redis, &rights).await);
    wait_until("it listens", async || {
        subscribers(&redis, "rpcache:removed").await == 1
    })
    .await;
    client.has_copy(30).await;
    redis.rpcache(&["rm", "30"]).await.answers("removed 1\n");
    redis.set("fib:30", "832040").await;
    client.has_none(30, "rm").await;
    assert_eq!(client.process.stderr(), "");
}

#[tokio::test]
async fn removal_without_the_right_to_publish_warns() {
    let redis = Redis::start();
    for removal in [&["rm", "30"][..], &["rm", "--all", "--yes"]] {
        redis.set("fib:30", "832040").await;
        let url = user(&redis, &["+unlink", "+scan"]).await;
        let removed = redis.program(removal).env("REDIS_URL", &url).run().await;
        removed.answers("removed 1\n");
        removed.has_one_clear_line("clients keep copies");
        assert_eq!(redis.get("fib:30").await, None);
    }
}

#[tokio::test]
async fn no_cache_and_refresh_bypass_copies() {
    let setup = Setup::new().await;
    let _worker = setup.worker(&[]).await;
    for flag in ["--no-cache", "--refresh"] {
        let call = ["call", "-", "--json", "--local-cache", "1MB", flag];
        let mut client = Client::start(setup.rpcache(&call));
        for _ in 0..3 {
            assert_eq!(client.source(30).await, "computed", "{flag}");
        }
    }
}

#[tokio::test]
async fn bench_counts_local_answers() {
    let redis = Redis::start();
    for n in 0..10 {
        redis.set(&format!("fib:{n}"), &fibonacci(n)).await;
    }
    // A long cache budget, so that a busy machine loses no lookup: no worker could answer.
    let bench = ["bench", "--json", "--keys", "10", "--calls", "2000"];
    let bench = [&bench[..], &["--cache-budget", "10s"]].concat();
    for (option, expected) in [(&["--local-cache", "1MB"][..], 1000..1991), (&[], 0..1)] {
        let program = Program::rpcache(&[&bench[..], option].concat())
            .env("AMQP_URL", "amqp://127.0.0.1:1")
            .env("REDIS_URL", &redis.url());
        let finished = program.run().await;
        assert_eq!(finished.code, Some(0), "{finished:#?}");
        let report: Value = serde_json::from_str(&finished.stdout).unwrap();
        let local = report["sources"]["local"].as_u64().unwrap();
        assert!(expected.contains(&local), "{local} with {option:?}");
    }
}
