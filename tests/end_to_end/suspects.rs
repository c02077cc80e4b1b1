//! Requests that end their workers, and requests that the broker gives up: each caller hears of it,
//! and the neighbours are served.

use crate::support::amqp::{Caller, QUEUE, headers};
use crate::support::http::{get, scraped, series};
use crate::support::ports::ClosedPort;
use crate::support::process::Process;
use crate::support::{ONE_AT_A_TIME, SLOW, Setup, wait};
use lapin::options::QueueDeclareOptions;
use lapin::types::{AMQPValue, FieldTable};

const STARTS: &str = "{fib:750000}:starts";

/// A worker's options with which 20,000,000 takes longer than anybody waits, and where that is counted.
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

/// Kills the worker as if what it computes had done it, and waits until the broker has noticed.
async fn dies(setup: &Setup, worker: Process) {
    worker.signal("KILL");
    worker.finish().await;
    wait::wait_until("the broker has noticed", async || {
        setup.consumers(QUEUE).await == 0
    })
    .await;
}

async fn began(setup: &Setup, counted: &str, starts: &str) {
    wait::wait_until("the suspect is begun", async || {
        setup.redis.get(counted).await.as_deref() == Some(starts)
    })
    .await;
}

#[tokio::test]
async fn request_that_ends_its_workers_is_poison_and_its_neighbour_is_served() {
    let setup = Setup::new().await;
    let mut caller = setup.caller().await;
    let worker = setup.worker(&ONE_AT_A_TIME).await;
    send(&caller, SLOW).await;
    setup.all_taken().await;
    dies(&setup, worker).await;
    for starts in ["1", "2"] {
        let worker = setup.worker(&ONE_AT_A_TIME).await;
        began(&setup, STARTS, starts).await;
        dies(&setup, worker).await;
    }
    let worker = setup.worker(&ONE_AT_A_TIME).await;
    caller.next_reply().await.fails_as("poison");
    caller.is_served().await;
    setup.assert_settled(worker).await;
}

#[tokio::test]
async fn suspect_that_is_computed_is_forgotten() {
    let setup = Setup::new().await;
    let mut caller = setup.caller().await;
    let worker = setup.worker(&ONE_AT_A_TIME).await;
    send(&caller, SLOW).await;
    setup.all_taken().await;
    dies(&setup, worker).await;
    let worker = setup.worker(&ONE_AT_A_TIME).await;
    let reply = caller.next_reply().await;
    let found = (reply.header("x-rpcache-error"), reply.body.len());
    assert_eq!(found, (None, 156_741));
    assert_eq!(setup.redis.get(STARTS).await, None);
    setup.assert_settled(worker).await;
}

/// Sessions come and go under a worker that lives: the first delivery is still being computed, and
/// the same request, a suspect by now, waits behind it again and again. None of that is a start.
#[tokio::test]
async fn suspect_that_only_waits_while_sessions_are_lost_is_no_poison() {
    let setup = Setup::new().await;
    let way = ClosedPort::reserve().forward_to(setup.vhost.port());
    let mut caller = setup.caller().await;
    let program = setup
        .rpcache(&[&["worker"], &ONE_AT_A_TIME[..]].concat())
        .env("AMQP_URL", &setup.vhost.url_by(way.port()));
    let worker = setup.serving(program).await;
    send(&caller, SLOW).await;
    setup.all_taken().await;
    for _ in 0..4 {
        way.cut();
        wait::wait_until("it is gone", async || setup.consumers(QUEUE).await == 0).await;
        wait::wait_until("it is back", async || setup.consumers(QUEUE).await == 1).await;
        setup.all_taken().await;
        // It is answered behind the suspect: that has been looked at.
        setup.caller().await.is_served().await;
    }
    let reply = caller.next_reply().await;
    let found = (reply.header("x-rpcache-error"), reply.body.len());
    assert_eq!(found, (None, 156_741));
    assert_eq!(setup.redis.keys().await, ["fib:30", "fib:750000"]);
    setup.assert_settled(worker).await;
}

/// It lives, and so it knows that the request did not end it.
#[tokio::test]
async fn suspect_whose_worker_is_stopped_meanwhile_is_no_poison() {
    let setup = Setup::new().await;
    let caller = setup.caller().await;
    let worker = setup.worker(&ENDLESS).await;
    send(&caller, 20_000_000).await;
    setup.all_taken().await;
    dies(&setup, worker).await;
    let worker = setup.worker(&ENDLESS).await;
    began(&setup, ENDLESS_STARTS, "1").await;
    let finished = worker.terminate().await;
    assert_eq!(finished.code, Some(1), "{finished:#?}");
    assert_eq!(setup.redis.get(ENDLESS_STARTS).await, None);
}

/// Each session that it loses ends what was computed for that one alone.
#[tokio::test]
async fn suspect_that_bypasses_the_cache_is_no_poison_when_sessions_are_lost() {
    let setup = Setup::new().await;
    let way = ClosedPort::reserve().forward_to(setup.vhost.port());
    let caller = setup.caller().await;
    let options = [&["worker", "--concurrency", "8"], &ENDLESS[2..]].concat();
    let program = setup
        .rpcache(&options)
        .env("AMQP_URL", &setup.vhost.url_by(way.port()));
    let worker = setup.serving(program).await;
    let bypass = headers(&[("x-rpcache-cache", "bypass")]);
    let properties = caller.properties().with_headers(bypass);
    caller.send(b"20000000", properties).await;
    setup.all_taken().await;
    for times in 1..=3 {
        way.cut();
        wait::wait_until("it is begun once more", async || {
            let stats: String = setup.redis.run(&["INFO", "commandstats"]).await;
            stats.contains(&format!("cmdstat_incrby:calls={times},"))
        })
        .await;
        began(&setup, ENDLESS_STARTS, "1").await;
    }
    worker.signal("KILL");
    worker.finish().await;
    assert_eq!(
        setup.redis.get(ENDLESS_STARTS).await.as_deref(),
        Some("1"),
        "a worker that is killed takes nothing back"
    );
}

/// Its time runs out while it waits for a slot. What it takes then to let go of the key, Redis makes
/// long; meanwhile another one comes for the key, with all the time in the world.
#[tokio::test]
async fn request_that_joins_one_that_expires_does_not_expire_with_it() {
    let setup = Setup::new().await;
    let options = [&ONE_AT_A_TIME[..], &["--cache-budget", "10s"]].concat();
    let worker = setup.worker(&options).await;
    let bypass = || headers(&[("x-rpcache-cache", "bypass")]);
    let mut busy = setup.caller().await;
    let properties = busy.properties().with_headers(bypass());
    busy.send(SLOW.to_string().as_bytes(), properties).await;
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
    // It was taken before this one, which needs no Redis.
    let properties = busy.properties().with_headers(bypass());
    busy.ask_with(b"30", properties).await.answers("832040");
    setup.redis.thaw();
    short.next_reply().await.fails_as("expired");
    let reply = long.next_reply().await;
    assert_eq!(reply.header("x-rpcache-error"), None);
    setup.assert_settled(worker).await;
}

/// Declares the request queue so that what the broker gives up goes to `rpc_queue.dead`. In earnest
/// that is a policy's business; a worker uses the queue as it is.
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
            .expect("anybody may declare it");
    };
    declare(QUEUE, arguments).await;
    declare("rpc_queue.dead", FieldTable::default()).await;
}

#[tokio::test]
async fn caller_of_an_expired_request_is_told() {
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
async fn caller_of_an_overflowing_request_is_told() {
    let setup = Setup::new().await;
    queue_with_dead_letters(&setup, &[("x-max-length", AMQPValue::LongInt(1))]).await;
    let options = [&ONE_AT_A_TIME[..], &["--prefetch", "1"]].concat();
    let worker = setup.worker(&options).await;
    let slow = setup.caller().await;
    send(&slow, SLOW).await;
    setup.all_taken().await;
    let mut first = setup.caller().await;
    send(&first, 30).await;
    // There is room for one: the older one goes.
    let second = setup.caller().await;
    send(&second, 31).await;
    first.next_reply().await.fails_as("overloaded");
    setup.assert_settled(worker).await;
}

#[tokio::test]
async fn what_is_no_dead_letter_is_not_answered() {
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
    // The next reply is the next request's own.
    caller.is_served().await;
    setup.assert_settled(worker).await;
    setup.broker.assert_empty("rpc_queue.dead").await;
}

/// As the broker marks it, and as whoever may publish there can, too, as often as they like.
#[tokio::test]
async fn poison_that_the_broker_gave_up_is_named_once_in_a_while() {
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
