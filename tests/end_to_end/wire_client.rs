//! The wire format of our client: requests that it sends and replies that it accepts, with a worker after the
//! tutorial that the test drives step by step.

use crate::support::Setup;
use crate::support::amqp::{Delivery, headers};
use lapin::protocol::basic::AMQPProperties;

const RIGHT: &str = "832040";
const WRONG: &str = "832041";

fn correlation_id(request: &Delivery) -> String {
    request
        .properties
        .correlation_id()
        .as_ref()
        .expect("requests have one")
        .to_string()
}

fn expiration(request: &Delivery) -> u64 {
    request
        .properties
        .expiration()
        .as_ref()
        .expect("requests have one")
        .as_str()
        .parse()
        .expect("a number")
}

#[tokio::test]
async fn request_is_the_argument_and_three_properties() {
    let setup = Setup::new().await;
    let mut worker = setup.raw_worker().await;
    let call = setup.start_call(&["30"]);
    let request = worker.take().await;

    assert_eq!(request.data, b"30");
    let reply_to = request.properties.reply_to().clone().unwrap();
    assert!(
        reply_to.as_str().starts_with("amq.rabbitmq.reply-to."),
        "{reply_to}"
    );
    let id = uuid::Uuid::parse_str(&correlation_id(&request)).expect("a UUID");
    assert_eq!(id.get_version_num(), 4, "all of its bits are random");
    let expected = AMQPProperties::default()
        .with_reply_to(reply_to)
        .with_correlation_id(correlation_id(&request).into())
        .with_expiration(expiration(&request).to_string().into());
    assert_eq!(request.properties, expected);

    worker.reply(&request, RIGHT).await;
    call.finish().await.answers("832040\n");
}

#[tokio::test]
async fn request_expires_with_its_call() {
    let setup = Setup::new().await;
    let mut worker = setup.raw_worker().await;
    for (timeout, most) in [(&["--timeout", "3s"][..], 3_000), (&[], 10_000)] {
        let _call = setup.start_call(&[&["30"], timeout].concat());
        let expiration = expiration(&worker.take().await);
        assert!(
            (1..=most).contains(&expiration),
            "{expiration} ms for {timeout:?}"
        );
        assert!(
            expiration > most / 2,
            "{expiration} ms for {timeout:?}: no publish takes that long"
        );
    }
}

#[tokio::test]
async fn argument_is_sent_as_its_canonical_text() {
    let setup = Setup::new().await;
    let mut worker = setup.raw_worker().await;
    let call = setup.start_call(&["0030"]);
    let request = worker.take().await;
    assert_eq!(request.data, b"30");
    worker.reply(&request, RIGHT).await;
    call.finish().await.answers("832040\n");
    assert_eq!(setup.redis.keys().await, ["fib:30"]);
}

#[tokio::test]
async fn cache_header_has_the_mode_of_the_call() {
    let setup = Setup::new().await;
    let mut worker = setup.raw_worker().await;
    for (flag, value) in [("--no-cache", "bypass"), ("--refresh", "refresh")] {
        let call = setup.start_call(&["30", flag]);
        let request = worker.take().await;
        assert_eq!(
            request.properties.headers().as_ref(),
            Some(&headers(&[("x-rpcache-cache", value)]))
        );
        worker.reply(&request, RIGHT).await;
        call.finish().await.answers("832040\n");
    }
}

#[tokio::test]
async fn client_fills_when_the_worker_does_not_report_a_fill() {
    let setup = Setup::new().await;
    let mut worker = setup.raw_worker().await;
    let call = setup.start_call(&["30"]);
    let request = worker.take().await;
    worker.reply(&request, RIGHT).await;
    call.finish().await.answers("832040\n");
    assert_eq!(setup.redis.get("fib:30").await.as_deref(), Some(RIGHT));
    assert!(setup.redis.pttl("fib:30").await > 0);
}

#[tokio::test]
async fn client_does_not_fill_when_the_worker_has_filled() {
    let setup = Setup::new().await;
    let mut worker = setup.raw_worker().await;
    let call = setup.start_call(&["30"]);
    let request = worker.take().await;
    let filled = headers(&[
        ("x-rpcache-filled", "true"),
        ("x-rpcache-source", "computed"),
    ]);
    worker
        .reply_with(
            &request,
            RIGHT,
            AMQPProperties::default().with_headers(filled),
        )
        .await;
    call.finish().await.answers("832040\n");
    assert_eq!(setup.redis.keys().await, Vec::<String>::new());
}

#[tokio::test]
async fn client_does_not_fill_when_it_bypasses_the_cache() {
    let setup = Setup::new().await;
    let mut worker = setup.raw_worker().await;
    let call = setup.start_call(&["30", "--no-cache"]);
    let request = worker.take().await;
    worker.reply(&request, RIGHT).await;
    call.finish().await.answers("832040\n");
    assert_eq!(setup.redis.keys().await, Vec::<String>::new());
}

#[tokio::test]
async fn wrong_answer_is_requested_once_more_and_then_refused() {
    let setup = Setup::new().await;
    let mut worker = setup.raw_worker().await;
    let call = setup.start_call(&["30"]);
    let first = worker.take().await;
    worker.reply(&first, WRONG).await;
    let second = worker.take().await;
    assert_eq!(second.data, b"30");
    assert_eq!(correlation_id(&second), correlation_id(&first));
    worker.reply(&second, WRONG).await;

    call.finish().await.refuses(1, WRONG);
    assert_eq!(setup.redis.keys().await, Vec::<String>::new());
}

#[tokio::test]
async fn right_answer_after_a_wrong_one_is_returned() {
    let setup = Setup::new().await;
    let mut worker = setup.raw_worker().await;
    let call = setup.start_call(&["30"]);
    let first = worker.take().await;
    worker.reply(&first, WRONG).await;
    let second = worker.take().await;
    worker.reply(&second, RIGHT).await;
    call.finish().await.answers("832040\n");
}

/// Otherwise an answer could write anything to the terminal.
#[tokio::test]
async fn wrong_answer_is_quoted_escaped_and_shortened() {
    let setup = Setup::new().await;
    let mut worker = setup.raw_worker().await;
    for answer in [
        "",
        "0832040",
        "-1346269",
        "832041\n",
        "\u{1b}[2Jhacked\r\n",
        "\0",
        "٨٣٢٠٤٠",
        &"9".repeat(1_000_000),
    ] {
        eprintln!("the answer is {:.50}", answer.escape_debug().to_string());
        let call = setup.start_call(&["30"]);
        for _ in 0..2 {
            let request = worker.take().await;
            worker.reply(&request, answer).await;
        }
        let finished = call.finish().await;
        finished.refuses(1, "");
        assert!(
            finished.stderr.len() < 1000,
            "{} bytes",
            finished.stderr.len()
        );
    }
}

#[tokio::test]
async fn quotes_in_a_wrong_answer_are_escaped() {
    let setup = Setup::new().await;
    let mut worker = setup.raw_worker().await;
    let call = setup.start_call(&["30"]);
    for _ in 0..2 {
        let request = worker.take().await;
        worker.reply(&request, "7\", which is right; \\\"").await;
    }
    let expected = r#"a worker answered "7\", which is right; \\\"", which is not the answer"#;
    call.finish().await.refuses(1, expected);
}

/// Foreign workers may send the output of a program unchanged.
#[tokio::test]
async fn white_space_around_a_foreign_answer_is_ignored() {
    let setup = Setup::new().await;
    let mut worker = setup.raw_worker().await;
    let call = setup.start_call(&["30"]);
    let request = worker.take().await;
    worker.reply(&request, " 832040\r\n").await;
    call.finish().await.answers("832040\n");
    assert_eq!(setup.redis.get("fib:30").await.as_deref(), Some(RIGHT));
}

/// Our workers add no white space, so that it shows a fault.
#[tokio::test]
async fn white_space_around_an_answer_of_our_workers_is_refused() {
    let setup = Setup::new().await;
    let mut worker = setup.raw_worker().await;
    let call = setup.start_call(&["30"]);
    let ours = headers(&[
        ("x-rpcache-filled", "true"),
        ("x-rpcache-source", "computed"),
    ]);
    for _ in 0..2 {
        let request = worker.take().await;
        let properties = AMQPProperties::default().with_headers(ours.clone());
        worker.reply_with(&request, "832040\n", properties).await;
    }
    call.finish().await.refuses(1, "832040\\n");
}

/// The error is the wrong answer, not the deadline that passed afterwards.
#[tokio::test]
async fn wrong_answer_is_the_error_when_no_other_comes() {
    let setup = Setup::new().await;
    let mut worker = setup.raw_worker().await;
    // The worker stays, and does not reply again.
    for (argument, timeout) in [("30", "1s"), ("31", "200ms")] {
        let call = setup.start_call(&[argument, "--timeout", timeout]);
        let request = worker.take_argument(argument).await;
        worker.reply(&request, WRONG).await;
        call.finish().await.refuses(1, WRONG);
    }
    // The worker disconnects.
    let call = setup.start_call(&["32", "--timeout", "2s"]);
    let request = worker.take_argument("32").await;
    worker.reply(&request, WRONG).await;
    drop(worker);
    call.finish().await.refuses(1, WRONG);
}

#[tokio::test]
async fn error_reply_is_reported_with_its_text() {
    let setup = Setup::new().await;
    let mut worker = setup.raw_worker().await;
    for (code, exit) in [
        ("failed", 1),
        ("bad-argument", 1),
        ("too-large", 1),
        ("poison", 1),
        ("overloaded", 3),
        ("unheard-of", 1),
    ] {
        let call = setup.start_call(&["30"]);
        let request = worker.take().await;
        let error = AMQPProperties::default().with_headers(headers(&[("x-rpcache-error", code)]));
        worker
            .reply_with(&request, "error: the dog\u{1b}[31m ate it\n", error)
            .await;
        call.finish().await.refuses(exit, "the dog");
    }
    assert_eq!(setup.redis.keys().await, Vec::<String>::new());
}

/// A reply is a failure only by its header; without it this is a wrong answer.
#[tokio::test]
async fn error_text_without_the_header_is_a_wrong_answer() {
    let setup = Setup::new().await;
    let mut worker = setup.raw_worker().await;
    let call = setup.start_call(&["30"]);
    let first = worker.take().await;
    worker.reply(&first, "error: the dog ate it").await;
    let second = worker.take().await;
    worker.reply(&second, RIGHT).await;
    call.finish().await.answers("832040\n");
}

#[tokio::test]
async fn second_reply_is_ignored() {
    let setup = Setup::new().await;
    let mut worker = setup.raw_worker().await;
    let call = setup.start_call(&["30", "31"]);
    let first = worker.take_argument("30").await;
    worker.reply(&first, RIGHT).await;
    worker.reply(&first, RIGHT).await;
    let second = worker.take_argument("31").await;
    worker.reply(&second, "1346269").await;
    call.finish().await.answers("30\t832040\n31\t1346269\n");
}

#[tokio::test]
async fn reply_with_another_correlation_id_is_ignored() {
    let setup = Setup::new().await;
    let mut worker = setup.raw_worker().await;
    let call = setup.start_call(&["30"]);
    let request = worker.take().await;
    for id in ["", "another", "00000000-0000-4000-8000-000000000000"] {
        let properties = AMQPProperties::default().with_correlation_id(id.into());
        worker.reply_as(&request, WRONG, properties).await;
    }
    worker
        .reply_as(&request, WRONG, AMQPProperties::default())
        .await;
    worker.reply(&request, RIGHT).await;
    call.finish().await.answers("832040\n");
}

/// The first request may have been lost, with a broker or a foreign worker.
#[tokio::test]
async fn unanswered_request_is_sent_once_more_under_the_same_id() {
    let setup = Setup::new().await;
    let mut worker = setup.raw_worker().await;
    let call = setup.start_call(&["30", "--timeout", "4s"]);
    let first = worker.take().await;
    let second = worker.take().await;
    assert_eq!(correlation_id(&second), correlation_id(&first));
    assert!(expiration(&second) <= 2_000, "{} ms", expiration(&second));
    worker.reply(&second, RIGHT).await;
    call.finish().await.answers("832040\n");
}
