//! Messages that are too large for the broker, which closes their channel: only their own calls fail.

use crate::support::amqp::{Broker, Caller, Reply};
use crate::support::restricted::Restricted;
use crate::support::wait::{soon, wait_until};
use crate::support::{EXPENSIVE, ONE_AT_A_TIME, Setup, VERY_SLOW, fibonacci};
use lapin::options::{BasicPublishOptions, QueueDeclareOptions};
use lapin::protocol::basic::AMQPProperties;
use lapin::types::{AMQPValue, FieldTable};
use std::collections::BTreeSet;

/// Its answer has 208,988 bytes.
const TOO_LARGE: &str = "1000000";

/// The broker's log line about a refusal.
const REFUSAL: &str = "is larger than configured max size";

fn names_both_sizes(reply: &Reply) {
    reply.fails_as("too-large");
    for size in ["208988", "100000"] {
        assert!(reply.body.contains(size), "{reply:?}");
    }
}

/// How often the broker closed a channel because of a message that was too large. It writes its log in order but
/// late: so this waits for the line of another refusal.
async fn refusals(broker: &Restricted, setup: &Setup) -> usize {
    let marker = "message size 777777 ";
    assert_eq!(broker.logged(&setup.vhost, marker), 0);
    let large = Broker::connect(&setup.vhost.url()).await;
    let (options, properties) = (BasicPublishOptions::default(), AMQPProperties::default());
    let body = vec![0; 777_777];
    let published = large
        .channel
        .basic_publish("".into(), "x".into(), options, &body, properties);
    soon("a refusal", async { published.await?.await })
        .await
        .unwrap_err();
    wait_until("the log is written", async || {
        broker.logged(&setup.vhost, marker) == 1
    })
    .await;
    broker.logged(&setup.vhost, REFUSAL) - 1
}

async fn send(caller: &Caller, argument: &str) {
    let properties = caller.properties();
    caller.send(argument.as_bytes(), properties).await;
}

#[tokio::test]
async fn answer_above_the_brokers_limit_fails_its_own_call_alone() {
    let (broker, vhost) = Restricted::unused().await;
    let setup = Setup::over(vhost).await;
    let worker = setup.worker(&[]).await;
    for direct in [false, true] {
        let url = setup.vhost.url();
        let caller = async || {
            if direct {
                Caller::direct(&url).await
            } else {
                Caller::with_callback_queue(&url).await
            }
        };
        let (mut large, mut small) = (caller().await, caller().await);
        let arguments: Vec<u64> = (EXPENSIVE..EXPENSIVE + 20).collect();
        for n in &arguments {
            send(&small, &n.to_string()).await;
            send(&large, TOO_LARGE).await;
        }
        for _ in &arguments {
            names_both_sizes(&large.next_reply().await);
        }
        // Replies that were published again may come twice.
        let mut awaited: BTreeSet<String> = arguments.into_iter().map(fibonacci).collect();
        while !awaited.is_empty() {
            let reply = small.next_reply().await;
            assert_eq!(reply.header("x-rpcache-error"), None, "{reply:?}");
            awaited.remove(&reply.body);
        }
    }
    let closed = refusals(&broker, &setup).await;
    let finished = setup.assert_settled(worker).await;
    assert!(!finished.stderr.contains("lost RabbitMQ"), "{finished:#?}");
    // Replies that were in flight together, on each of the two channels.
    assert!((2..20).contains(&closed), "{closed} channels were closed");
}

#[tokio::test]
async fn learnt_limit_is_kept() {
    let (broker, vhost) = Restricted::unused().await;
    let setup = Setup::over(vhost).await;
    let worker = setup.worker(&[]).await;
    let mut caller = Caller::with_callback_queue(&setup.vhost.url()).await;
    for _ in 0..5 {
        names_both_sizes(&caller.ask(TOO_LARGE).await);
        caller.is_served().await;
    }
    assert_eq!(refusals(&broker, &setup).await, 1);
    setup.assert_settled(worker).await;
}

#[tokio::test]
async fn error_of_an_answer_above_the_brokers_limit_names_both_sizes() {
    let (_broker, vhost) = Restricted::unused().await;
    let setup = Setup::over(vhost).await;
    let worker = setup.worker(&[]).await;
    let call = setup.call(&[TOO_LARGE]).await;
    call.refuses(1, "208988 bytes, the broker takes 100000 at most");
    // A hit in the cache has no such limit.
    setup.call(&[TOO_LARGE]).await;
    setup.call(&["30"]).await.answers("832040\n");
    setup.assert_settled(worker).await;
}

#[tokio::test]
async fn reply_limit_is_an_option() {
    let setup = Setup::new().await;
    let worker = setup.worker(&["--max-reply-size", "20kB"]).await;
    let call = setup.call(&["100000"]).await;
    call.refuses(1, "20899 bytes, this worker sends 20000 at most");
    setup.call(&["30"]).await.answers("832040\n");
    setup.assert_settled(worker).await;
}

/// A client of several calls has a channel for requests that outlives a refused one.
#[tokio::test]
async fn request_above_the_brokers_limit_fails_its_own_call_alone() {
    let (broker, vhost) = Restricted::unused().await;
    let setup = Setup::over(vhost).await;
    let mut worker = setup.raw_worker().await;
    // RabbitMQ 4.0 applies the limit to open channels, too: so the answers have two bytes at most.
    broker.set_max_message_size(2);
    let arguments = [
        "10",
        "100",
        "101",
        "11",
        "102",
        "5",
        "--keep-going",
        "--json",
    ];
    let call = setup.start_call(&arguments);
    // Requests that were in flight with a refused one may come twice.
    let serving = async {
        loop {
            let request = worker.take().await;
            let n = String::from_utf8_lossy(&request.data).parse().unwrap();
            worker.reply(&request, &fibonacci(n)).await;
        }
    };
    let finished = tokio::select! {
        finished = call.finish() => finished,
        never = serving => never,
    };
    assert_eq!(finished.code, Some(1), "{finished:#?}");
    let lines: Vec<serde_json::Value> = finished
        .stdout
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let codes: Vec<_> = lines
        .iter()
        .map(|line| line["error"]["code"].as_str())
        .collect();
    let too_large = Some("too-large");
    assert_eq!(codes, [None, too_large, too_large, None, too_large, None]);
    assert!(!finished.stderr.contains("lost RabbitMQ"), "{finished:#?}");
    assert_eq!(setup.broker.look_at("rpc_queue").await, Some((0, 1)));
}

#[tokio::test]
async fn error_of_a_request_above_the_brokers_limit_names_both_sizes() {
    let (broker, vhost) = Restricted::unused().await;
    let setup = Setup::over(vhost).await;
    let _worker = setup.raw_worker().await;
    broker.set_max_message_size(2);
    let call = setup.call(&["100"]).await;
    call.refuses(1, "the request has 3 bytes, the broker takes 2 at most");
}

/// A nack does not say whether the queue is full or its leader is being elected.
#[tokio::test]
async fn full_queue_is_reported_soon() {
    let setup = Setup::new().await;
    let mut arguments = FieldTable::default();
    for (name, value) in [
        ("x-queue-type", AMQPValue::LongString("quorum".into())),
        ("x-max-length", AMQPValue::LongInt(1)),
        ("x-overflow", AMQPValue::LongString("reject-publish".into())),
    ] {
        arguments.insert(name.into(), value);
    }
    let channel = &setup.broker.channel;
    let durable = QueueDeclareOptions::durable();
    let declared = channel.queue_declare("rpc_queue".into(), durable, arguments);
    declared.await.expect("anybody may declare one");
    let options = [&ONE_AT_A_TIME[..], &["--prefetch", "1"]].concat();
    let _worker = setup.worker(&options).await;
    let caller = setup.caller().await;
    let slow = VERY_SLOW.to_string();
    caller.send(slow.as_bytes(), caller.properties()).await;
    setup.all_taken().await;
    // RabbitMQ refuses once the length is above the limit.
    for n in ["30", "31"] {
        caller.send(n.as_bytes(), caller.properties()).await;
    }
    for arguments in [&["1001"][..], &["1001", "1002"]] {
        let finished = setup
            .call(&[arguments, &["--timeout", "20s"]].concat())
            .await;
        assert_eq!(finished.code, Some(3), "{finished:#?}");
        assert!(
            finished.stderr.contains("refused the request"),
            "{finished:#?}"
        );
        assert!(finished.took.as_secs() < 5, "{finished:#?}");
    }
}
