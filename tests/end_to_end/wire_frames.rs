//! Hostile AMQP frames, which RabbitMQ delivers unchanged: each affects its own message at most.

use crate::support::amqp::{Declared, QUEUE};
use crate::support::process::{Process, Program};
use crate::support::rabbitmq::{Node, Vhost};
use crate::support::redis::Redis;
use crate::support::wire::{
    CORRELATION_ID, EXPIRATION, HEADERS, Message, REPLY_TO, Wire, fake_broker, long, nested, short,
    table,
};
use crate::support::{ONE_AT_A_TIME, Setup, VERY_SLOW, fibonacci};
use lapin::options::QueueDeclareOptions;
use lapin::types::{AMQPValue, FieldTable};

const IDS: u16 = CORRELATION_ID | REPLY_TO;

/// Nested deeper than lapin's parser can go on its thread.
const DEEP: usize = 5000;

/// A header that exceeds a frame together with the headers that dead-lettering adds.
const NEARLY_A_FRAME: usize = 130_700;

fn ids(id: &[u8], reply_to: &[u8]) -> Vec<u8> {
    [short(id), short(reply_to)].concat()
}

/// Headers that an AMQP library cannot parse.
fn hostile_headers() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("deep arrays", table(b"a", &nested(b'A', DEEP))),
        ("deep tables", table(b"a", &nested(b'F', DEEP / 2))),
        ("a name that is not UTF-8", table(b"\xff", b"V")),
        (
            "a large string",
            table(
                b"a",
                &[b"S", &long(&vec![b'x'; NEARLY_A_FRAME])[..]].concat(),
            ),
        ),
    ]
}

async fn assert_kept_its_session(setup: &Setup, worker: Process) {
    let finished = setup.assert_settled(worker).await;
    assert!(
        !finished.stderr.contains("lost RabbitMQ"),
        "{}",
        finished.stderr
    );
}

#[tokio::test]
async fn correlation_id_of_any_bytes_is_sent_back() {
    let setup = Setup::new().await;
    let worker = setup.worker(&[]).await;
    let mut wire = Wire::connect(&setup.vhost);
    let queue = wire.callback_queue();
    let erlang_s: Vec<u8> = (0..16).map(|n| 0xf0 | n).collect();
    for id in [
        &erlang_s[..],
        b"\x80",
        &[0xff; 255],
        b"\0\0",
        b"",
        "ä€".as_bytes(),
    ] {
        for (body, answer) in [(&b"30"[..], &b"832040"[..]), (b"x", b"error")] {
            wire.publish(QUEUE.as_bytes(), IDS, &ids(id, &queue), body);
            let reply = wire.next_message();
            assert!(reply.body.starts_with(answer), "{reply:?}");
            assert!(reply.properties.ends_with(&short(id)), "{reply:?}");
            let ours = b"x-rpcache-correlation-bytes";
            assert!(
                !reply
                    .properties
                    .windows(ours.len())
                    .any(|part| part == ours)
            );
        }
    }
    assert_kept_its_session(&setup, worker).await;
}

#[tokio::test]
async fn properties_of_any_bytes_affect_their_own_message_at_most() {
    let setup = Setup::new().await;
    let worker = setup.worker(&[]).await;
    let mut wire = Wire::connect(&setup.vhost);
    let queue = wire.callback_queue();
    let mut caller = setup.caller().await;
    for (what, headers) in hostile_headers() {
        eprintln!("{what}");
        let properties = [headers, ids(what.as_bytes(), &queue)].concat();
        wire.publish(QUEUE.as_bytes(), HEADERS | IDS, &properties, b"30");
        let reply = wire.next_message();
        assert_eq!(reply.body, b"832040");
        assert!(reply.properties.ends_with(&short(what.as_bytes())));
        caller.is_served().await;
    }
    // Strings of bytes in all properties; then flags without their properties, and invalid tables. If the broker
    // refuses these itself, it closes the publisher's connection.
    let texts = |count| [1, 0xff].repeat(count);
    let strings = [
        &texts(2)[..],
        &long(b""),
        &[2, 0],
        &texts(4),
        &[0; 8],
        &texts(4),
    ]
    .concat();
    let hostile = [
        (0xfffc, strings),
        (0xffff, b"\xff\xff\xff".to_vec()),
        (0x8000, b"\xff".to_vec()),
        (HEADERS, b"\xff\xff\xff\xff".to_vec()),
        (HEADERS, table(b"a", b"Z")),
        (HEADERS, table(b"a", b"S\0\0\0\x09abc")),
        (1, b"\xff\xff".to_vec()),
    ];
    for (flags, properties) in hostile {
        eprintln!("{flags:x}, {properties:x?}");
        Wire::connect(&setup.vhost).publish(QUEUE.as_bytes(), flags, &properties, b"30");
        caller.is_served().await;
    }
    assert_kept_its_session(&setup, worker).await;
}

#[tokio::test]
async fn routing_key_of_any_bytes_is_accepted() {
    let setup = Setup::new().await;
    let worker = setup.worker(&[]).await;
    let mut wire = Wire::connect(&setup.vhost);
    let queue = wire.callback_queue();
    wire.fanout(b"all", QUEUE.as_bytes());
    wire.publish_to(b"all", b"\xff\xfe\x80", IDS, &ids(b"id", &queue), b"30");
    assert_eq!(wire.next_message().body, b"832040");
    assert_kept_its_session(&setup, worker).await;
}

/// Dead-lettering adds headers: the content header exceeds the agreed frame size.
#[tokio::test]
async fn dead_letter_above_the_frame_size_is_answered() {
    let setup = Setup::new().await;
    let text = |text: &str| AMQPValue::LongString(text.into());
    let mut arguments = FieldTable::default();
    arguments.insert("x-dead-letter-exchange".into(), text(""));
    arguments.insert("x-dead-letter-routing-key".into(), text("rpc_queue.dead"));
    for (name, arguments) in [
        ("rpc_queue.dead", FieldTable::default()),
        (QUEUE, arguments),
    ] {
        let options = QueueDeclareOptions::default();
        let declared = setup
            .broker
            .channel
            .queue_declare(name.into(), options, arguments);
        declared.await.unwrap();
    }
    let options = [&ONE_AT_A_TIME[..], &["--prefetch", "1"]].concat();
    let worker = setup.worker(&options).await;
    let slow = setup.caller().await;
    slow.send(VERY_SLOW.to_string().as_bytes(), slow.properties())
        .await;
    setup.all_taken().await;
    let mut wire = Wire::connect(&setup.vhost);
    let queue = wire.callback_queue();
    for (what, headers) in hostile_headers() {
        eprintln!("{what}");
        let properties = [headers, ids(what.as_bytes(), &queue), short(b"20")].concat();
        wire.publish(
            QUEUE.as_bytes(),
            HEADERS | IDS | EXPIRATION,
            &properties,
            b"30",
        );
        let reply = wire.next_message();
        assert!(reply.body.starts_with(b"error: "), "{reply:?}");
        assert!(
            reply.properties.ends_with(&short(what.as_bytes())),
            "{reply:?}"
        );
    }
    // Not stopped regularly: the slow request may take longer than the worker has to stop.
    assert!(
        !worker.stderr().contains("lost RabbitMQ"),
        "{}",
        worker.stderr()
    );
}

#[tokio::test]
async fn replies_with_any_headers_are_read() {
    let setup = Setup::new().await;
    setup
        .broker
        .declare(QUEUE, Declared::DurableQuorum)
        .await
        .unwrap();
    let mut wire = Wire::connect(&setup.vhost);
    wire.consume(QUEUE.as_bytes());
    for (what, headers) in hostile_headers() {
        // A one-shot call over one connection with small frames, and a long-lived client.
        for arguments in [&["30"][..], &["30", "30"]] {
            eprintln!("{what}, {arguments:?}");
            let call = setup.start_call(&[arguments, &["--no-cache"]].concat());
            for _ in arguments {
                let request = wire.next_message();
                let (id, reply_to) = ids_of(&request);
                let properties = [&headers[..], &short(id)].concat();
                wire.publish(reply_to, HEADERS | CORRELATION_ID, &properties, b"832040");
            }
            let finished = call.finish().await;
            assert_eq!(finished.code, Some(0), "{finished:?}");
            let answers = finished.stdout.matches("832040\n").count();
            assert_eq!(answers, arguments.len(), "{finished:?}");
        }
    }
}

/// The correlation id and reply-to of a request of ours, which follow its headers.
fn ids_of(request: &Message) -> (&[u8], &[u8]) {
    let (length, headers) = request.properties[2..].split_first_chunk().unwrap();
    let id = &headers[u32::from_be_bytes(*length) as usize..];
    let (id, reply_to) = id[1..].split_at(id[0].into());
    (id, &reply_to[1..=usize::from(reply_to[0])])
}

/// RabbitMQ offers the size in its configuration, 0 for any size; lapin never agrees to less than 8,192.
#[tokio::test]
async fn any_frame_size_that_a_broker_offers_is_respected() {
    let node = Node::start(1).unwrap();
    for offered in [4096, 5000, 8192, 131_072, 0, 16_000_000] {
        // The test's own connection is made before the size is changed.
        let setup = Setup::over(Vhost::of(&node, 0)).await;
        let set = format!("application:set_env(rabbit, frame_max, {offered}).");
        node.evaluate(&set).unwrap();
        let worker = setup.worker(&[]).await;
        let call = setup.call(&["100000", "30"]).await;
        call.answers(&format!("100000\t{}\n30\t832040\n", fibonacci(100_000)));
        let once = setup.call(&["99999", "--no-cache"]).await;
        once.answers(&format!("{}\n", fibonacci(99_999)));
        let sizes = "io_lib:format(\"~p\", [[Size || [{frame_max, Size}] <- \
                     rabbit_networking:connection_info_all([frame_max])]]).";
        let sizes = node.evaluate(sizes).unwrap();
        let agreed = match offered {
            0 => 131_072,
            offered => offered.min(131_072),
        };
        let connections = sizes.matches(&agreed.to_string()).count();
        assert!(
            connections >= 2,
            "the worker's, of {sizes}, agreed to {agreed}"
        );
        let memory = worker.memory_mb();
        assert!(
            memory < 60.0,
            "offered {offered}: the worker takes {memory} MB"
        );
        setup.assert_settled(worker).await;
        node.evaluate("application:set_env(rabbit, frame_max, 131072).")
            .unwrap();
    }
}

#[tokio::test]
async fn broker_with_too_deep_server_properties_is_refused() {
    let port = fake_broker(table(b"a", &nested(b'A', DEEP)), |_| {});
    let redis = Redis::start();
    let url = format!("amqp://127.0.0.1:{port}");
    for arguments in [&["doctor"][..], &["call", "30"]] {
        let finished = Program::rpcache(arguments)
            .env("AMQP_URL", &url)
            .env("REDIS_URL", &redis.url())
            .run()
            .await;
        assert_eq!(finished.code, Some(3), "{finished:?}");
        let said = [&finished.stdout[..], &finished.stderr].concat();
        let said = said.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(
            said.contains("the broker sent a method that cannot be parsed"),
            "{said}"
        );
    }
}

#[tokio::test]
async fn reply_that_claims_any_size_is_too_large_and_takes_no_memory() {
    for claimed in [1 << 28, 1 << 63] {
        let port = fake_broker(long(b""), move |broker| {
            let id = broker.until_published();
            broker.reply_for_ever(&id, claimed);
        });
        let rpcache = env!("CARGO_BIN_EXE_rpcache");
        let line = format!("ulimit -v 600000 && exec {rpcache} call 30 --no-cache --timeout 10s");
        let url = format!("amqp://127.0.0.1:{port}");
        let redis = Redis::start();
        let finished = Program::shell(&line)
            .env("AMQP_URL", &url)
            .env("REDIS_URL", &redis.url())
            .run()
            .await;
        finished.refuses(1, &format!("the reply has {claimed} bytes"));
    }
}
