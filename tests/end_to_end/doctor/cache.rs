//! Doctor checks of Redis, and of workers and client using the same one.

use super::report::{examine, parse, scrubbed};
use super::{DEAD, SECRET, bound, healthy, prepared, serving};
use crate::support::Setup;
use crate::support::amqp::Declared;
use crate::support::ports::ClosedPort;
use crate::support::process::Program;
use crate::support::redis::Redis;

#[tokio::test]
async fn missing_rights_in_redis_are_failures() {
    let (setup, _worker) = healthy().await;
    // With DRYRUN, rights are asked for; without it, commands are tried.
    for dryrun in ["+acl", "-acl"] {
        let user = [
            "ACL", "SETUSER", "u", "reset", "on", ">s3cret", "+@all", "allkeys", "-get", dryrun,
        ];
        setup.redis.run::<()>(&user).await;
        let url = setup.redis.url_with(&format!("u:{SECRET}@"));
        let report = examine(&setup, |doctor| doctor.env("REDIS_URL", &url), 3).await;
        report.is(
            "failure redis-rights: clients lack +get\n-> redis-cli ACL SETUSER u +get\n",
            &[("redis-rights", &["hit"])],
        );
        let user = [
            "ACL", "SETUSER", "u", "reset", "on", ">s3cret", "+@all", "~other:*", dryrun,
        ];
        setup.redis.run::<()>(&user).await;
        let report = examine(&setup, |doctor| doctor.env("REDIS_URL", &url), 3).await;
        report.is(
            "failure redis-rights: clients lack ~fib:*\n\
             -> redis-cli ACL SETUSER u '~fib:*' '~{fib:*' '~rpcache:worker:*'\n",
            &[("redis-rights", &["hit"])],
        );
    }
    assert!(setup.redis.keys().await.is_empty());
}

#[tokio::test]
async fn unlimited_memory_and_no_eviction_are_warnings() {
    let (setup, _worker) = healthy().await;
    let set = async |name: &str, value: &str| {
        setup.redis.run::<()>(&["CONFIG", "SET", name, value]).await;
    };
    let policy = "-> redis-cli CONFIG SET maxmemory-policy allkeys-lfu\n";
    let bound = "-> redis-cli CONFIG SET maxmemory 1gb\n";
    set("maxmemory-policy", "noeviction").await;
    let message =
        "warning redis-memory: limited to 104 MB, noeviction: it refuses to store when full\n";
    examine(&setup, |doctor| doctor, 0)
        .await
        .is(&format!("{message}{policy}"), &[]);
    set("maxmemory", "0").await;
    let message = "warning redis-memory: unlimited: all answers stored within a TTL must fit\n";
    examine(&setup, |doctor| doctor, 0)
        .await
        .is(&format!("{message}{bound}{policy}"), &[]);
    let message = "warning redis-memory: unlimited, and answers are stored for ever\n";
    let ttl = "-> or let answers expire: --ttl 1d (RPCACHE_TTL)\n";
    let for_ever = |doctor: Program| doctor.env("RPCACHE_TTL", "none");
    let expected = format!("{message}{bound}{policy}{ttl}");
    examine(&setup, for_ever, 0).await.is(&expected, &[]);
}

#[tokio::test]
async fn wrong_value_under_the_key_is_a_warning() {
    let (setup, _worker) = healthy().await;
    setup.redis.run::<()>(&["LPUSH", "fib:30", "x"]).await;
    let doctor = setup.rpcache(&["doctor", "--json"]).run().await;
    assert_eq!(doctor.code, Some(0), "{doctor:#?}");
    parse(&doctor.stdout).is(
        "warning hit: fib:30 held \"a value that is no string\", which is not the answer; the call \
         has replaced it\n\
         -> find the program that writes there; check all entries:\n\
         -> rpcache cache verify --repair\n",
        &[],
    );
    assert_eq!(setup.redis.get("fib:30").await.as_deref(), Some("832040"));
}

#[tokio::test]
async fn worker_with_another_cache_is_a_failure() {
    let setup = prepared().await;
    let other = Redis::start();
    let elsewhere = "-> give workers and clients the same --redis-url (REDIS_URL) and the same \
                     --namespace (RPCACHE_NAMESPACE)\n";
    let by_redis = setup.rpcache(&["worker"]).env("REDIS_URL", &other.url());
    let by_name = setup.rpcache(&["worker"]).env("RPCACHE_NAMESPACE", "other");
    for worker in [by_redis, by_name] {
        let worker = serving(&setup, worker).await;
        let doctor = setup.rpcache(&["doctor", "--json"]);
        let report = parse(&doctor.run().await.stdout);
        let message = "failure hit: fib:30 is in the worker's cache, and not in this one\n";
        report.is(&format!("{message}{elsewhere}"), &[]);
        // Now the worker's own cache has the answer.
        let again = setup.rpcache(&["doctor", "--json"]).run().await;
        assert_eq!(again.code, Some(3), "{again:#?}");
        worker.terminate().await;
        setup.redis.run::<()>(&["FLUSHALL"]).await;
    }
}

#[tokio::test]
async fn worker_that_cannot_store_is_a_failure() {
    let setup = prepared().await;
    let closed = ClosedPort::reserve();
    let nowhere = format!("redis://127.0.0.1:{}", closed.port());
    let worker = setup.rpcache(&["worker"]).env("REDIS_URL", &nowhere);
    let _worker = serving(&setup, worker).await;
    examine(&setup, |doctor| doctor, 3).await.is(
        "failure hit: the answer was not stored under fib:30\n\
         -> see the workers' log: do they use this Redis, has it memory, may they write \
         there? Set their --redis-url (REDIS_URL)\n",
        &[],
    );
}

#[tokio::test]
async fn worker_with_wrong_answers_is_a_failure() {
    let setup = Setup::new().await;
    bound(&setup.redis).await;
    setup
        .broker
        .declare(DEAD, Declared::DurableQuorum)
        .await
        .unwrap();
    let mut worker = setup.raw_worker().await;
    let doctor = setup.rpcache(&["doctor", "--json"]).start();
    for _ in 0..2 {
        let request = worker.take().await;
        worker.reply(&request, "7").await;
    }
    let finished = doctor.finish().await;
    assert_eq!(finished.code, Some(3), "{finished:#?}");
    let problems = parse(&scrubbed(&setup, &finished.stdout)).problems;
    let (_, call) = problems.split_once("failure call: ").unwrap();
    let expected = "a worker answered \"7\", which is not the answer\n\
        -> stop the program that serves rpc_queue (rabbitmqctl list_consumers -p VHOST names it), or give \
        rpcache another --queue (RPCACHE_QUEUE)\n";
    assert_eq!(call, expected);
}

/// A worker after the tutorial does not use Redis, so the client stores.
#[tokio::test]
async fn worker_after_the_tutorial_is_ok() {
    let setup = Setup::new().await;
    let mut worker = setup.raw_worker().await;
    let doctor = setup.rpcache(&["doctor", "--json"]).start();
    for _ in 0..2 {
        let request = worker.take().await;
        worker.reply(&request, "832040").await;
    }
    let finished = doctor.finish().await;
    assert_eq!(finished.code, Some(0), "{finished:#?}");
    assert!(
        finished.stdout.contains("stored by the call"),
        "{finished:#?}"
    );
}
