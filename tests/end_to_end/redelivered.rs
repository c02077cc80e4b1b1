//! Redelivered requests, which may have crashed their worker, and dead letters: each caller gets an error or an
//! answer, and other requests are served.

use crate::support::amqp::{Caller, QUEUE, headers};
use crate::support::http::{get, scraped, series};
use crate::support::ports::ClosedPort;
use crate::support::process::Process;
use crate::support::{ONE_AT_A_TIME, SLOW, Setup, VERY_SLOW, wait};
use lapin::options::QueueDeclareOptions;
use lapin::types::{AMQPValue, FieldTable};

const STARTS: &str = "{fib:750000}:starts";

/// Options with which a worker computes 20,000,000 for longer than a test waits; and the key of its attempts.
const ENDLESS: [&str; 6] = [
    "--concurrency",
    "1",
    "--algorithm",
    "iterative",
    "--max-n",
    "100000000",
];
const ENDLESS_STARTS: &str = "{fib:20000000}:starts";

async fn send(caller: &Caller, n: u64) {
    let properties = caller.properties();
    caller.send(n.to_string().as_bytes(), properties).await;
}

/// Kills the worker as a crash would, and waits until the broker has noticed.
async fn crashes(setup: &Setup, worker: Process) {
    worker.signal("KILL");
    worker.finish().await;
    wait::wait_until("the broker has noticed", async || {
        setup.consumers(QUEUE).await == 0
    })
    .await;
}

async fn started(setup: &Setup, counted: &str, starts: &str) {
    wait::wait_until("the redelivered request is started", async || {
        setup.redis.get(counted).await.as_deref() == Some(starts)
    })
    .await;
}

#[tokio::test]
async fn request_that_crashes_its_workers_is_poison_and_others_are_served() {
    let setup = Setup::new().await;
    let mut caller = setup.caller().await;
    let worker = setup.worker(&ONE_AT_A_TIME).await;
    send(&caller, VERY_SLOW).await;
    setup.all_taken().await;
    crashes(&setup, worker).await;
    for starts in ["1", "2"] {
        let worker = setup.worker(&ONE_AT_A_TIME).await;
        started(&setup, STARTS, starts).await;
        crashes(&setup, worker).await;
    }
    let worker = setup.worker(&ONE_AT_A_TIME).await;
    caller.next_reply().await.fails_as("poison");
    caller.is_served().await;
    setup.assert_settled(worker).await;
}

#[tokio::test]
async fn attempts_of_a_computed_request_are_forgotten() {
    let setup = Setup::new().await;
    let mut caller = setup.caller().await;
    let worker = setup.worker(&ONE_AT_A_TIME).await;
    send(&caller, VERY_SLOW).await;
    setup.all_taken().await;
    crashes(&setup, worker).await;
    let worker = setup.worker(&ONE_AT_A_TIME).await;
    let reply = caller.next_reply().await;
    let found = (reply.header("x-rpcache-error"), reply.body.len());
    assert_eq!(found, (None, 156_741));
    assert_eq!(setup.redis.get(STARTS).await, None);
    setup.assert_settled(worker).await;
}

/// A worker loses its session again and again while it computes the first delivery. Each redelivery of that
/// request waits for the computation, which is not counted as an attempt.
#[tokio::test]
async fn request_that_waits_while_sessions_are_lost_is_not_poison() {
    let setup = Setup::new().await;
    let forwarder = ClosedPort::reserve().forward_to(setup.vhost.port());
    let mut caller = setup.caller().await;
    let program = setup
        .rpcache(&[&["worker"], &ONE_AT_A_TIME[..]].concat())
        .env("AMQP_URL", &setup.vhost.url_by(forwarder.port()));
    let worker = setup.serving(program).await;
    send(&caller, VERY_SLOW).await;
    setup.all_taken().await;
    for _ in 0..4 {
        forwarder.cut();
        wait::wait_until("it is gone", async || setup.consumers(QUEUE).await == 0).await;
        wait::wait_until("it is back", async || setup.consumers(QUEUE).await == 1).await;
        setup.all_taken().await;
        // This is answered after the redelivered request was handled.
        setup.caller().await.is_served().await;
    }
    let reply = caller.next_reply().await;
    let found = (reply.header("x-rpcache-error"), reply.body.len());
    assert_eq!(found, (None, 156_741));
    assert_eq!(setup.redis.keys().await, ["fib:30", "fib:750000"]);
    setup.assert_settled(worker).await;
}

/// The worker stops regularly, so the request did not crash it.
#[tokio::test]
async fn request_whose_worker_is_stopped_is_not_poison() {
    let setup = Setup::new().await;
    let caller = setup.caller().await;
    let worker = setup.worker(&ENDLESS).await;
    send(&caller, 20_000_000).await;
    setup.all_taken().await;
    crashes(&setup, worker).await;
    let worker = setup.worker(&ENDLESS).await;
    started(&setup, ENDLESS_STARTS, "1").await;
    let finished = worker.terminate().await;
    assert_eq!(finished.code, Some(1), "{finished:#?}");
    assert_eq!(setup.redis.get(ENDLESS_STARTS).await, None);
}

/// A lost session ends computations that bypass the cache.
#[tokio::test]
async fn request_that_bypasses_the_cache_is_not_poison_when_sessions_are_lost() {
    let setup = Setup::new().await;
    let forwarder = ClosedPort::reserve().forward_to(setup.vhost.port());
    let caller = setup.caller().await;
    let options = [&["worker", "--concurrency", "8"], &ENDLESS[2..]].concat();
    let program = setup
        .rpcache(&options)
        .env("AMQP_URL", &setup.vhost.url_by(forwarder.port()));
    let worker = setup.serving(program).await;
    let bypass = headers(&[("x-rpcache-cache", "bypass")]);
    let properties = caller.properties().with_headers(bypass);
    caller.send(b"20000000", properties).await;
    setup.all_taken().await;
    for times in 1..=3 {
        forwarder.cut();
        wait::wait_until("it is started once more", async || {
            let stats: String = setup.redis.run(&["INFO", "commandstats"]).await;
            stats.contains(&format!("cmdstat_incrby:calls={times},"))
        })
        .await;
        started(&setup, ENDLESS_STARTS, "1").await;
    }
    worker.signal("KILL");
    worker.finish().await;
    assert_eq!(
        setup.redis.get(ENDLESS_STARTS).await.as_deref(),
        Some("1"),
        "a killed worker takes no attempt back"
    );
}

/// A request expires while it waits for a slot, and Redis is frozen, so that it cannot release its lease.
/// Meanwhile another request for the key arrives, which does not expire.
#[tokio::test]
async fn request_that_joins_an_expired_one_does_not_expire_with_it() {
    let setup = Setup::new().await;
    let options = [&ONE_AT_A_TIME[..], &["--cache-budget", "10s"]].concat();
    let worker = setup.worker(&options).await;
    let bypass = || headers(&[("x-rpcache-cache", "bypass")]);
    let mut busy = setup.caller().await;
    let properties = busy.properties().with_headers(bypass());
    busy.send(VERY_SLOW.to_string().as_bytes(), properties)
        .await;
    setup.all_taken().await;
    let mut short = setup.caller().await;
    let properties = short.properties().with_expiration("300".into());
    short.send(b"100000", properties).await;
    wait::wait_until("it has the lease", async || {
        setup.redis.get("{fib:100000}:lease").await.is_some()
    })
    .await;
    setup.redis.freeze();
    busy.next_reply().await;
    let mut long = setup.caller().await;
    send(&long, 100_000).await;
    setup.all_taken().await;
    // The long request was taken before this one, which needs no Redis.
    let properties = busy.properties().with_headers(bypass());
    busy.ask_with(b"30", properties).await.answers("832040");
    setup.redis.thaw();
    short.next_reply().await.fails_as("expired");
    let reply = long.next_reply().await;
    assert_eq!(reply.header("x-rpcache-error"), None);
    setup.assert_settled(worker).await;
}

/// Declares the request queue with dead-lettering to `rpc_queue.dead`. In production, a policy does that; a
/// worker uses the queue as it is.
pub(crate) async fn queue_with_dead_letters(setup: &Setup, extra: &[(&'static str, AMQPValue)]) {
    let text = |text: &str| AMQPValue::LongString(text.into());
    let mut arguments = FieldTable::default();
    arguments.insert("x-dead-letter-exchange".into(), text(""));
    arguments.insert("x-dead-letter-routing-key".into(), text("rpc_queue.dead"));
    for (name, value) in extra {
        arguments.insert((*name).into(), value.clone());
    }
    let declare = async |name: &'static str, arguments| {
        let options = QueueDeclareOptions::default();
        let channel = &setup.broker.channel;
        channel
            .queue_declare(name.into(), options, arguments)
            .await
            .expect("the queue is new");
    };
    declare(QUEUE, arguments).await;
    declare("rpc_queue.dead", FieldTable::default()).await;
}

#[tokio::test]
async fn expired_request_is_answered() {
    let setup = Setup::new().await;
    queue_with_dead_letters(&setup, &[]).await;
    let options = [&ONE_AT_A_TIME[..], &["--prefetch", "1"]].concat();
    let (worker, address) = scraped(&setup, &options).await;
    let slow = setup.caller().await;
    send(&slow, SLOW).await;
    setup.all_taken().await;
    let mut caller = setup.caller().await;
    let properties = caller.properties().with_expiration("50".into());
    let reply = caller.ask_with(b"30", properties).await;
    reply.fails_as("expired");
    let expired = series("rpcache_errors_total", r#"code="expired""#);
    let counted = get(address, "/metrics").await.number(&expired);
    assert!((counted - 1.0).abs() < 0.5, "{counted}");
    setup.assert_settled(worker).await;
}

#[tokio::test]
async fn overflowing_request_is_answered() {
    let setup = Setup::new().await;
    queue_with_dead_letters(&setup, &[("x-max-length", AMQPValue::LongInt(1))]).await;
    let options = [&ONE_AT_A_TIME[..], &["--prefetch", "1"]].concat();
    let worker = setup.worker(&options).await;
    let slow = setup.caller().await;
    send(&slow, SLOW).await;
    setup.all_taken().await;
    let mut first = setup.caller().await;
    send(&first, 30).await;
    // The queue has room for one: the older request is dead-lettered.
    let second = setup.caller().await;
    send(&second, 31).await;
    first.next_reply().await.fails_as("overloaded");
    setup.assert_settled(worker).await;
}

#[tokio::test]
async fn message_that_is_not_a_dead_letter_is_not_answered() {
    let setup = Setup::new().await;
    queue_with_dead_letters(&setup, &[]).await;
    let worker = setup.worker(&[]).await;
    let mut caller = setup.caller().await;
    let properties = caller.properties();
    caller
        .broker
        .publish("rpc_queue.dead", b"30", properties)
        .await;
    wait::wait_until("it is taken", async || {
        let look = setup.broker.look_at("rpc_queue.dead").await;
        look.is_some_and(|(messages, _)| messages == 0)
    })
    .await;
    // The next reply is that of the next request.
    caller.is_served().await;
    setup.assert_settled(worker).await;
    setup.broker.assert_empty("rpc_queue.dead").await;
}

/// Marked as the broker does; other publishers can forge that, as often as they like.
#[tokio::test]
async fn poison_in_dead_letters_is_logged_now_and_then() {
    let setup = Setup::new().await;
    queue_with_dead_letters(&setup, &[]).await;
    let worker = setup.worker(&[]).await;
    let mut caller = setup.caller().await;
    let death = AMQPValue::FieldTable(headers(&[("reason", "delivery_limit")]));
    let mut marked = FieldTable::default();
    marked.insert("x-death".into(), AMQPValue::FieldArray(vec![death].into()));
    for argument in ["30", "31", "32"] {
        let properties = caller.properties().with_headers(marked.clone());
        let broker = &caller.broker;
        broker
            .publish("rpc_queue.dead", argument.as_bytes(), properties)
            .await;
        caller.next_reply().await.fails_as("poison");
    }
    worker.says("fib:30").await;
    assert_eq!(worker.stderr().matches("too often").count(), 1);
    setup.assert_settled(worker).await;
}
