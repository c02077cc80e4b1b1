//! The wire format of our worker: requests that it takes and replies that it sends, with a caller after the
//! tutorial.

use crate::support::amqp::{Caller, Declared, QUEUE, Reply, headers};
use crate::support::{EXPENSIVE, Setup, fibonacci};
use lapin::protocol::basic::AMQPProperties;

async fn caller_is_answered(setup: &Setup, mut caller: Caller) {
    setup
        .broker
        .declare(QUEUE, Declared::DurableQuorum)
        .await
        .unwrap();
    let worker = setup.worker(&[]).await;
    caller.ask("30").await.answers("832040");
    caller
        .ask(&EXPENSIVE.to_string())
        .await
        .answers(&fibonacci(EXPENSIVE));
    setup.assert_settled(worker).await;
}

#[tokio::test]
async fn answers_to_direct_reply_to() {
    let setup = Setup::new().await;
    let caller = Caller::direct(&setup.vhost.url()).await;
    caller_is_answered(&setup, caller).await;
}

#[tokio::test]
async fn answers_to_a_callback_queue() {
    let setup = Setup::new().await;
    let caller = Caller::with_callback_queue(&setup.vhost.url()).await;
    caller_is_answered(&setup, caller).await;
}

#[tokio::test]
async fn reply_is_the_answer_the_correlation_id_and_two_headers() {
    let setup = Setup::new().await;
    let _worker = setup.worker(&[]).await;
    let mut caller = setup.caller().await;
    let asked = caller.properties();
    let reply = caller.ask_with(b"30", asked.clone()).await;
    reply.answers("832040");
    let expected = AMQPProperties::default()
        .with_correlation_id(asked.correlation_id().clone().unwrap())
        .with_headers(headers(&[
            ("x-rpcache-filled", "true"),
            ("x-rpcache-source", "computed"),
        ]));
    assert_eq!(reply.properties, expected);
}

#[tokio::test]
async fn only_the_correlation_id_is_copied_into_the_reply() {
    let setup = Setup::new().await;
    let _worker = setup.worker(&[]).await;
    let mut caller = setup.caller().await;
    let plain = caller.ask("30").await;
    let asked = caller
        .properties()
        .with_content_type("text/plain".into())
        .with_content_encoding("identity".into())
        .with_delivery_mode(2)
        .with_priority(3)
        .with_expiration("60000".into())
        .with_message_id("message".into())
        .with_timestamp(1)
        .with_type("type".into())
        .with_app_id("app".into())
        .with_headers(headers(&[
            ("x-unknown", "header"),
            ("x-rpcache-unknown", "header"),
        ]));
    let reply = caller.ask_with(b"30", asked).await;
    reply.answers("832040");
    assert_eq!(without_values(&reply), without_values(&plain));
}

/// The properties of a reply, without the correlation id and the values of headers.
fn without_values(reply: &Reply) -> AMQPProperties {
    let names: Vec<(&str, &str)> = reply
        .headers
        .keys()
        .map(|name| (name.as_str(), ""))
        .collect();
    reply
        .properties
        .clone()
        .with_correlation_id("".into())
        .with_headers(headers(&names))
}

#[tokio::test]
async fn any_correlation_id_is_copied() {
    let setup = Setup::new().await;
    let _worker = setup.worker(&[]).await;
    let mut caller = setup.caller().await;
    for id in ["1", "", "not a uuid: é\u{1b}[31m\n", &"x".repeat(255)] {
        let properties = caller.properties().with_correlation_id(id.into());
        caller.ask_with(b"30", properties).await.answers("832040");
    }
}

#[tokio::test]
async fn request_without_correlation_id_is_answered_without_one() {
    let setup = Setup::new().await;
    let _worker = setup.worker(&[]).await;
    let mut caller = setup.caller().await;
    let reply_to = caller.properties().reply_to().clone().unwrap();
    let reply = caller
        .ask_with(b"30", AMQPProperties::default().with_reply_to(reply_to))
        .await;
    reply.answers("832040");
    assert_eq!(*reply.properties.correlation_id(), None);
}

#[tokio::test]
async fn request_without_reply_to_is_settled() {
    let setup = Setup::new().await;
    let worker = setup.worker(&[]).await;
    let mut caller = setup.caller().await;
    caller.send(b"30", AMQPProperties::default()).await;
    caller
        .send(b"30", AMQPProperties::default().with_reply_to("".into()))
        .await;
    caller.send(b"abc", AMQPProperties::default()).await;
    caller.is_served().await;
    setup.assert_settled(worker).await;
}

/// The caller may disconnect before its answer is ready.
#[tokio::test]
async fn request_of_a_disconnected_caller_is_settled() {
    let setup = Setup::new().await;
    let worker = setup.worker(&[]).await;
    let mut caller = setup.caller().await;
    for gone in [
        "amq.gen-JzTY20BRgKO-HjmUJj0wLg".to_owned(),
        direct_reply_to_of_a_former_caller(&setup).await,
    ] {
        let properties = caller.properties().with_reply_to(gone.into());
        caller.send(b"30", properties).await;
    }
    caller.is_served().await;
    setup.assert_settled(worker).await;
}

/// The direct reply-to name of a caller that has disconnected.
async fn direct_reply_to_of_a_former_caller(setup: &Setup) -> String {
    setup
        .broker
        .declare("aside", Declared::ClassicTransient)
        .await
        .unwrap();
    let leaving = setup.caller().await;
    leaving
        .broker
        .publish("aside", b"30", leaving.properties())
        .await;
    let request = setup.broker.get("aside").await.expect("it was confirmed");
    leaving.broker.close().await;
    request
        .properties
        .reply_to()
        .as_ref()
        .expect("it has one")
        .to_string()
}

/// In the other order, a lookup in between would cause a second computation.
#[tokio::test]
async fn answer_is_in_redis_before_its_reply() {
    let setup = Setup::new().await;
    let _worker = setup.worker(&[]).await;
    let mut caller = setup.caller().await;
    for n in (0..50).chain(EXPENSIVE..EXPENSIVE + 10) {
        let reply = caller.ask(&n.to_string()).await;
        reply.answers(&fibonacci(n));
        assert_eq!(
            setup.redis.get(&format!("fib:{n}")).await,
            Some(reply.body),
            "n = {n}"
        );
    }
}

#[tokio::test]
async fn second_caller_is_answered_from_the_cache() {
    let setup = Setup::new().await;
    let _worker = setup.worker(&[]).await;
    let mut caller = setup.caller().await;
    let argument = EXPENSIVE.to_string();
    assert_eq!(
        caller.ask(&argument).await.header("x-rpcache-source"),
        Some("computed")
    );
    let second = caller.ask(&argument).await;
    second.answers(&fibonacci(EXPENSIVE));
    assert_eq!(second.header("x-rpcache-source"), Some("cache"));
}

#[tokio::test]
async fn every_request_of_a_burst_is_answered() {
    let setup = Setup::new().await;
    let worker = setup.worker(&["--prefetch", "4"]).await;
    let mut caller = setup.caller().await;
    for n in 0..200_u64 {
        let properties = caller
            .properties()
            .with_correlation_id(n.to_string().into());
        caller.send(n.to_string().as_bytes(), properties).await;
    }
    let mut answered = std::collections::BTreeSet::new();
    for _ in 0..200 {
        let reply = caller.next_reply().await;
        let n: u64 = reply
            .properties
            .correlation_id()
            .as_ref()
            .unwrap()
            .as_str()
            .parse()
            .unwrap();
        reply.answers(&fibonacci(n));
        assert!(answered.insert(n), "answered twice: {n}");
    }
    setup.assert_settled(worker).await;
}
