//! Wrong, late and hostile requests for our worker. Each is settled, each is answered if its reply-to can be
//! answered, and the next one is served.

use crate::support::amqp::{Caller, Declared, QUEUE};
use crate::support::{ONE_AT_A_TIME, SLOW, Setup};
use lapin::options::QueueDeclareOptions;
use lapin::protocol::basic::AMQPProperties;
use lapin::types::{AMQPValue, FieldTable};

/// Bodies that are not an argument.
const INVALID_ARGUMENTS: [&[u8]; 22] = [
    b"",
    b" ",
    b"abc",
    b"30abc",
    b"-5",
    b"-0",
    b"+5",
    b"1.5",
    b"1e3",
    b"0x1e",
    b"1_000",
    b"1,000",
    b"3 0",
    b"30\xa0",
    "30\u{a0}".as_bytes(),
    b"30\0",
    b"\0",
    b"\xff\xfe",
    b"\x1b[31m30",
    "٣٠".as_bytes(),
    "３０".as_bytes(),
    "3０".as_bytes(),
];

#[tokio::test]
async fn invalid_arguments_are_refused() {
    let setup = Setup::new().await;
    let worker = setup.worker(&[]).await;
    let mut caller = setup.caller().await;
    for body in INVALID_ARGUMENTS {
        let properties = caller.properties();
        eprintln!("the body is {:?}", String::from_utf8_lossy(body));
        caller
            .ask_with(body, properties)
            .await
            .fails_as("bad-argument");
    }
    assert_eq!(setup.redis.keys().await, Vec::<String>::new());
    caller.is_served().await;
    setup.assert_settled(worker).await;
}

/// Servers after the tutorial accept these: their languages ignore white space.
#[tokio::test]
async fn white_space_around_an_argument_is_ignored() {
    let setup = Setup::new().await;
    let worker = setup.worker(&[]).await;
    let mut caller = setup.caller().await;
    for body in ["30\n", " 30", "30\r\n", "\t30 \n", " 030"] {
        caller.ask(body).await.answers("832040");
    }
    assert_eq!(setup.redis.keys().await, ["fib:30"]);
    setup.assert_settled(worker).await;
}

/// The error quotes the argument in a readable form, `"\u{1b}[31m30"`, and escapes it once.
#[tokio::test]
async fn error_message_is_escaped_once() {
    let setup = Setup::new().await;
    let _worker = setup.worker(&[]).await;
    let mut caller = setup.caller().await;
    let reply = caller.ask("\u{1b}[31m\"30\n\"").await;
    reply.fails_as("bad-argument");
    let expected =
        r#"error: "\u{1b}[31m\"30\n\"" is not a whole number from 0 to 18446744073709551615"#;
    assert_eq!(reply.body, expected);
}

#[tokio::test]
async fn argument_above_the_limit_is_too_large() {
    let setup = Setup::new().await;
    let _worker = setup.worker(&["--max-n", "100"]).await;
    let mut caller = setup.caller().await;
    caller.ask("100").await.answers("354224848179261915075");
    for n in [
        "101",
        "1000000",
        "10000000000000000000",
        "18446744073709551615",
    ] {
        caller.ask(n).await.fails_as("too-large");
    }
    assert_eq!(setup.redis.keys().await, ["fib:100"]);
    caller.is_served().await;
}

#[tokio::test]
async fn default_limit_is_a_million() {
    let setup = Setup::new().await;
    let _worker = setup.worker(&[]).await;
    let mut caller = setup.caller().await;
    caller.ask("1000001").await.fails_as("too-large");
    let million = caller.ask("1000000").await;
    assert_eq!(million.header("x-rpcache-error"), None);
    assert_eq!(million.body.len(), 208_988);
    assert!(
        million.body.starts_with("19532821287077577316")
            && million.body.ends_with("68996526838242546875")
    );
}

#[tokio::test]
async fn megabyte_is_refused_with_a_short_message() {
    let setup = Setup::new().await;
    let worker = setup.worker(&[]).await;
    let mut caller = setup.caller().await;
    for byte in [b"x", b"1", b"0", b"\0"] {
        let properties = caller.properties();
        caller
            .ask_with(&byte.repeat(1_000_000), properties)
            .await
            .fails_as("bad-argument");
    }
    caller.is_served().await;
    let finished = setup.assert_settled(worker).await;
    assert!(
        finished.stderr.len() < 10_000,
        "the log repeats what came: {} bytes",
        finished.stderr.len()
    );
}

/// Otherwise an AMQP user with the right to write to the default exchange alone could make the worker write to
/// any queue.
#[tokio::test]
async fn nothing_is_sent_to_a_queue_that_is_not_a_callback_queue() {
    let setup = Setup::new().await;
    let dead = format!("{QUEUE}.dead");
    for queue in [dead.as_str(), "orders"] {
        setup
            .broker
            .declare(queue, Declared::DurableQuorum)
            .await
            .unwrap();
    }
    let worker = setup.worker(&[]).await;
    let mut caller = setup.caller().await;
    for reply_to in [QUEUE, &dead, "orders"] {
        for body in ["30", "abc"] {
            caller
                .send(
                    body.as_bytes(),
                    caller.properties().with_reply_to(reply_to.into()),
                )
                .await;
        }
    }
    caller.is_served().await;
    let finished = setup.assert_settled(worker).await;
    for queue in [dead.as_str(), "orders"] {
        setup.broker.assert_empty(queue).await;
    }
    let warnings = finished
        .stderr
        .lines()
        .filter(|line| line.contains("--reply-to"));
    assert_eq!(
        warnings.count(),
        1,
        "one warning names the flag: {}",
        finished.stderr
    );
}

/// RPC libraries of PHP and others choose such names. A queue that is not exclusive or does not exist gets
/// nothing.
#[tokio::test]
async fn callback_queue_with_any_name_is_answered() {
    let setup = Setup::new().await;
    let plain = setup
        .broker
        .declare("plain.rpc.0f3a", Declared::DurableQuorum);
    plain.await.unwrap();
    let worker = setup.worker(&[]).await;
    let mut caller = Caller::with_named_queue(&setup.vhost.url(), "billing.rpc.0f3a").await;
    caller.is_served().await;
    for reply_to in ["plain.rpc.0f3a", "missing.rpc.0f3a"] {
        let properties = caller.properties().with_reply_to(reply_to.into());
        caller.send(b"30", properties).await;
    }
    caller.is_served().await;
    let finished = setup.assert_settled(worker).await;
    setup.broker.assert_empty("plain.rpc.0f3a").await;
    assert!(finished.stderr.contains("--reply-to"), "{finished:#?}");
    assert!(!finished.stderr.contains("lost RabbitMQ"), "{finished:#?}");
}

#[tokio::test]
async fn reply_to_pattern_allows_further_queues_but_never_its_own() {
    let setup = Setup::new().await;
    setup
        .broker
        .declare("answers.here", Declared::DurableQuorum)
        .await
        .unwrap();
    let worker = setup
        .worker(&["--reply-to", "answers.*", "--reply-to", "rpc_*"])
        .await;
    let mut caller = setup.caller().await;
    for reply_to in ["answers.here", QUEUE] {
        caller
            .send(b"30", caller.properties().with_reply_to(reply_to.into()))
            .await;
    }
    caller.is_served().await;
    setup.assert_settled(worker).await;
    let answer = setup
        .broker
        .get("answers.here")
        .await
        .expect("the answer was sent there");
    assert_eq!(answer.data, b"832040");
}

/// RabbitMQ 3.10 closes the connection that publishes to a direct reply-to name that it cannot decode. One such
/// request must not disconnect every worker that it is redelivered to.
#[tokio::test]
async fn forged_direct_reply_to_is_settled() {
    let setup = Setup::new().await;
    let worker = setup.worker(&[]).await;
    let mut caller = setup.caller().await;
    for forged in ["", "x", "g2dkAAB.gone==", "AAAA.AAAA", "\u{1b}"] {
        let reply_to = format!("amq.rabbitmq.reply-to.{forged}");
        caller
            .send(b"30", caller.properties().with_reply_to(reply_to.into()))
            .await;
    }
    caller.is_served().await;
    setup.assert_settled(worker).await;
}

#[tokio::test]
async fn request_that_expires_while_it_waits_is_not_computed() {
    let setup = Setup::new().await;
    let _worker = setup.worker(&ONE_AT_A_TIME).await;
    let mut caller = setup.caller().await;
    caller
        .send(SLOW.to_string().as_bytes(), caller.properties())
        .await;
    setup.all_taken().await;
    let late = caller.properties().with_expiration("100".into());
    caller
        .send((SLOW + 1).to_string().as_bytes(), late.clone())
        .await;
    setup.all_taken().await;

    let replies = [caller.next_reply().await, caller.next_reply().await];
    let (expired, answered): (Vec<_>, Vec<_>) = replies
        .into_iter()
        .partition(|reply| reply.properties.correlation_id() == late.correlation_id());
    expired[0].fails_as("expired");
    assert_eq!(answered[0].header("x-rpcache-error"), None);
    assert_eq!(setup.redis.keys().await, [format!("fib:{SLOW}")]);
}

#[tokio::test]
async fn longest_expiration_is_accepted() {
    let setup = Setup::new().await;
    let _worker = setup.worker(&[]).await;
    let mut caller = setup.caller().await;
    // The maximum of the broker.
    let properties = caller.properties().with_expiration("4294967295".into());
    caller.ask_with(b"30", properties).await.answers("832040");
}

#[tokio::test]
async fn headers_of_any_type_and_size_are_ignored() {
    use lapin::types::{AMQPValue, FieldTable};
    let setup = Setup::new().await;
    let _worker = setup.worker(&[]).await;
    // All of a message's headers are in one frame.
    let large = format!("{}?frame_max=131072", setup.vhost.url());
    let mut caller = Caller::direct(&large).await;
    let values = [
        AMQPValue::Void,
        AMQPValue::Boolean(true),
        AMQPValue::LongLongInt(i64::MIN),
        AMQPValue::Double(1.5),
        AMQPValue::LongString("x".repeat(25_000).into()),
        AMQPValue::LongString(b"\xff\0".to_vec().into()),
        AMQPValue::FieldTable(FieldTable::default()),
    ];
    for value in values {
        let mut table = FieldTable::default();
        for name in ["x-rpcache-cache", "x-rpcache-error", "x-death", ""] {
            table.insert(name.into(), value.clone());
        }
        let properties = caller.properties().with_headers(table);
        caller.ask_with(b"30", properties).await.answers("832040");
    }
}

#[tokio::test]
async fn failed_request_without_reply_to_is_settled() {
    let setup = Setup::new().await;
    let worker = setup.worker(&[]).await;
    let mut caller = setup.caller().await;
    for body in INVALID_ARGUMENTS {
        caller.send(body, AMQPProperties::default()).await;
    }
    caller.is_served().await;
    setup.assert_settled(worker).await;
}

#[tokio::test]
async fn reply_that_a_full_queue_refuses_is_given_up() {
    let setup = Setup::new().await;
    let worker = setup.worker(&[]).await;
    let mut caller = setup.caller().await;
    let mut full = FieldTable::default();
    full.insert("x-max-length".into(), AMQPValue::LongInt(1));
    let refuse = AMQPValue::LongString("reject-publish".into());
    full.insert("x-overflow".into(), refuse);
    let queue = caller
        .broker
        .channel
        .queue_declare("".into(), QueueDeclareOptions::exclusive(), full)
        .await
        .expect("guest may declare it");
    let name = queue.name().as_str();
    caller
        .broker
        .publish(name, b"fills it", AMQPProperties::default())
        .await;
    let properties = caller.properties().with_reply_to(name.into());
    caller.send(b"30", properties).await;
    caller.is_served().await;
    setup.assert_settled(worker).await;
}
