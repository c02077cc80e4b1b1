//! The least rights that are enough. At the broker: the worker's user writes to the default exchange and
//! reads its queue, the client's user writes to the default exchange. In Redis: a few commands on the
//! procedure's keys; without any one of them, calls still work.

use crate::support::amqp::{Broker, Caller, Declared, QUEUE};
use crate::support::ports::ClosedPort;
use crate::support::wait::wait_until;
use crate::support::{EXPENSIVE, Setup, fibonacci};
use lapin::options::BasicGetOptions;
use std::collections::{BTreeSet, HashMap};

/// The commands of a worker and of a client. The redis crate sends INCRBY for INCR.
const WORKER: [&str; 7] = ["get", "mget", "set", "incrby", "pexpire", "unlink", "eval"];
const CLIENT: [&str; 2] = ["get", "set"];

/// Commands of the connection that may be refused.
const DISPENSABLE: [&str; 2] = ["ping", "client|setinfo"];

#[tokio::test]
async fn worker_and_call_work_with_the_least_rights() {
    let setup = Setup::new().await;
    setup
        .broker
        .declare(QUEUE, Declared::DurableQuorum)
        .await
        .unwrap();
    let program = setup
        .rpcache(&["worker"])
        .env("AMQP_URL", &setup.vhost.url_of("worker"));
    let worker = setup.serving(program).await;

    for n in [30, EXPENSIVE] {
        let call = setup
            .rpcache(&["call", &n.to_string()])
            .env("AMQP_URL", &setup.vhost.url_of("client"));
        call.run().await.answers(&format!("{}\n", fibonacci(n)));
        assert_eq!(
            setup.redis.get(&format!("fib:{n}")).await,
            Some(fibonacci(n))
        );
    }
    setup.assert_settled(worker).await;
}

#[tokio::test]
async fn raw_caller_with_the_least_rights_is_served() {
    let setup = Setup::new().await;
    let _worker = setup.worker(&[]).await;
    Caller::direct(&setup.vhost.url_of("client"))
        .await
        .is_served()
        .await;
}

#[tokio::test]
async fn worker_without_the_right_to_create_the_queue_ends_with_an_error() {
    let setup = Setup::new().await;
    let program = setup
        .rpcache(&["worker"])
        .env("AMQP_URL", &setup.vhost.url_of("worker"));
    program.run().await.refuses(3, QUEUE);
}

/// The URL of a user with these commands on the keys of `fib` and of workers only.
async fn redis_user(setup: &Setup, commands: &[&str]) -> String {
    let commands: Vec<String> = commands.iter().map(|name| format!("+{name}")).collect();
    let mut rights = vec!["ACL", "SETUSER", "least", "reset", "on", ">least"];
    rights.extend(["~fib:*", "~{fib:*", "~rpcache:worker:*"]);
    rights.extend(commands.iter().map(String::as_str));
    setup.redis.run::<()>(&rights).await;
    setup.redis.run::<()>(&["ACL", "LOG", "RESET"]).await;
    setup.redis.url_with("least:least@")
}

/// The commands that Redis has refused.
async fn refused(setup: &Setup) -> BTreeSet<String> {
    let log: Vec<HashMap<String, redis::Value>> = setup.redis.run(&["ACL", "LOG"]).await;
    log.into_iter()
        .map(|mut entry| redis::from_redis_value(entry.remove("object").unwrap()).unwrap())
        .filter(|object: &String| !DISPENSABLE.contains(&object.as_str()))
        .collect()
}

/// Puts a request into the queue that was delivered before.
async fn send_redelivered(setup: &Setup, caller: &Caller, n: u64) {
    caller
        .send(n.to_string().as_bytes(), caller.properties())
        .await;
    let lost = Broker::connect(&setup.vhost.url()).await;
    let options = BasicGetOptions { no_ack: false };
    let taken = lost.channel.basic_get(QUEUE.into(), options).await.unwrap();
    assert!(taken.is_some());
    lost.close().await;
    // A quorum queue counts a channel that holds a message among its consumers.
    wait_until("it is back", async || setup.consumers(QUEUE).await == 0).await;
}

/// Has a worker with this Redis answer a redelivered request, a cheap and an expensive call; returns its
/// stderr.
async fn worker_serves(setup: &Setup, redis_url: &str) -> String {
    let mut caller = setup.caller().await;
    send_redelivered(setup, &caller, 31).await;
    let program = setup.rpcache(&["worker"]).env("REDIS_URL", redis_url);
    let worker = setup.serving(program).await;
    caller.next_reply().await.answers(&fibonacci(31));
    for n in [30, EXPENSIVE] {
        let call = setup.call(&[&n.to_string()]).await;
        call.answers(&format!("{}\n", fibonacci(n)));
    }
    setup.assert_settled(worker).await.stderr
}

/// Makes a call with this Redis, answered by a worker that does not fill; returns its stderr.
async fn call_is_answered(setup: &Setup, redis_url: &str) -> String {
    let mut worker = setup.raw_worker().await;
    let program = setup.rpcache(&["call", "30"]).env("REDIS_URL", redis_url);
    let call = program.start();
    let request = worker.take().await;
    worker.reply(&request, "832040").await;
    let finished = call.finish().await;
    finished.answers("832040\n");
    finished.stderr
}

#[tokio::test]
async fn worker_works_with_the_least_rights_in_redis() {
    let setup = Setup::new().await;
    let declared = setup.broker.declare(QUEUE, Declared::DurableQuorum);
    declared.await.unwrap();
    let url = redis_user(&setup, &WORKER).await;
    worker_serves(&setup, &url).await;
    assert_eq!(refused(&setup).await, BTreeSet::new());
    let filled = ["fib:100000", "fib:30", "fib:31"];
    assert_eq!(setup.redis.keys().await, filled);
}

#[tokio::test]
async fn call_works_with_the_least_rights_in_redis() {
    let setup = Setup::new().await;
    let url = redis_user(&setup, &CLIENT).await;
    assert_eq!(call_is_answered(&setup, &url).await, "");
    assert_eq!(refused(&setup).await, BTreeSet::new());
    let closed = ClosedPort::reserve();
    let hit = setup
        .rpcache(&["call", "30"])
        .env("AMQP_URL", &setup.vhost.url_by(closed.port()))
        .env("REDIS_URL", &url);
    hit.run().await.answers("832040\n");
}

/// The log line about a missing right; empty for rights without a log line.
fn complaint(right: &str) -> &'static str {
    match right {
        "get" => "Redis refused a lookup",
        "set" => "Redis refused a fill",
        "unlink" => "Redis refuses to forget a suspect",
        _ => "",
    }
}

/// The rights that docs/production.md names.
#[tokio::test]
async fn operators_rights_are_enough_for_all_cache_commands() {
    let setup = Setup::new().await;
    setup.redis.set("fib:30", "832040").await;
    setup.redis.set("fib:31", "wrong").await;
    let rights = ["@read", "@connection", "info", "unlink", "publish", "eval"];
    let url = redis_user(&setup, &rights).await;
    let channel = ["ACL", "SETUSER", "least", "&rpcache:removed"];
    setup.redis.run::<()>(&channel).await;
    for command in [
        "get 30",
        "ttl 30",
        "explain 30",
        "ls --long",
        "stats",
        "verify --repair",
        "rm 30",
        "rm --all --yes",
    ] {
        let arguments: Vec<&str> = ["cache"].into_iter().chain(command.split(' ')).collect();
        let program = setup.rpcache(&arguments).env("REDIS_URL", &url);
        let finished = program.run().await;
        assert_eq!(finished.code, Some(0), "{command}: {finished:#?}");
    }
    assert_eq!(refused(&setup).await, BTreeSet::new());
}

#[tokio::test]
async fn worker_works_without_any_one_right_in_redis() {
    let setup = Setup::new().await;
    let declared = setup.broker.declare(QUEUE, Declared::DurableQuorum);
    declared.await.unwrap();
    for missing in WORKER {
        setup.redis.run::<()>(&["FLUSHALL"]).await;
        let rights = WORKER.map(|right| if right == missing { "ping" } else { right });
        let url = redis_user(&setup, &rights).await;
        let log = worker_serves(&setup, &url).await;
        assert!(log.contains(complaint(missing)), "{missing}: {log}");
        let expected = BTreeSet::from([missing.to_owned()]);
        wait_until("Redis has refused that and nothing else", async || {
            refused(&setup).await == expected
        })
        .await;
    }
}

#[tokio::test]
async fn call_works_without_any_one_right_in_redis() {
    for missing in CLIENT {
        let setup = Setup::new().await;
        let rights = CLIENT.map(|right| if right == missing { "ping" } else { right });
        let url = redis_user(&setup, &rights).await;
        let log = call_is_answered(&setup, &url).await;
        assert!(log.contains(complaint(missing)), "{missing}: {log}");
        assert_eq!(refused(&setup).await, BTreeSet::from([missing.to_owned()]));
    }
}
