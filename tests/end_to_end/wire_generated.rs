//! Ten thousand random messages from a seed: requests for our worker, replies for our client.
//! `RPCACHE_MESSAGES=1000000` makes it a million, `RPCACHE_SEED=7` repeats a run.

use crate::support::Setup;
use crate::support::amqp::{Caller, Delivery, Worker, headers};
use crate::support::fibonacci;
use fastrand::Rng;
use futures_util::future::join_all;
use lapin::options::BasicPublishOptions;
use lapin::protocol::basic::AMQPProperties;
use lapin::types::{AMQPValue, FieldArray, FieldTable, ShortString};

fn from_environment(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

fn messages() -> u64 {
    from_environment("RPCACHE_MESSAGES").unwrap_or(10_000)
}

fn rng() -> Rng {
    let seed = from_environment("RPCACHE_SEED").unwrap_or_else(|| fastrand::u64(..));
    eprintln!("RPCACHE_SEED={seed} repeats this");
    Rng::with_seed(seed)
}

fn text(rng: &mut Rng, most: usize) -> String {
    let length = rng.usize(..=most);
    let mut text: String = (0..length).map(|_| rng.char(..)).collect();
    while text.len() > most {
        text.pop();
    }
    text
}

fn short(rng: &mut Rng) -> ShortString {
    text(rng, 255).into()
}

fn body(rng: &mut Rng) -> Vec<u8> {
    match rng.u8(..64) {
        63 => vec![rng.u8(..); rng.usize(..1_000_000)],
        60.. => Vec::new(),
        50.. => text(rng, 40).into_bytes(),
        40.. => (0..rng.usize(..200)).map(|_| rng.u8(..)).collect(),
        30.. => rng.u64(..).to_string().into_bytes(),
        20.. => format!("{:0>width$}", rng.u8(..), width = rng.usize(..30)).into_bytes(),
        _ => rng.u64(..2_000).to_string().into_bytes(),
    }
}

fn value(rng: &mut Rng, depth: u8) -> AMQPValue {
    match rng.u8(..if depth == 0 { 8 } else { 10 }) {
        0 => AMQPValue::Boolean(rng.bool()),
        1 => AMQPValue::LongLongInt(rng.i64(..)),
        2 => AMQPValue::Double(rng.f64()),
        3 => AMQPValue::Timestamp(rng.u64(..)),
        4 => AMQPValue::Void,
        5 => AMQPValue::ShortShortInt(rng.i8(..)),
        6 => AMQPValue::LongString(
            (0..rng.usize(..300))
                .map(|_| rng.u8(..))
                .collect::<Vec<_>>()
                .into(),
        ),
        7 => AMQPValue::LongString(["bypass", "refresh", "cache", "true"][rng.usize(..4)].into()),
        8 => AMQPValue::FieldTable(table(rng, depth - 1)),
        _ => {
            let values: Vec<_> = (0..rng.usize(..4)).map(|_| value(rng, depth - 1)).collect();
            AMQPValue::FieldArray(FieldArray::from(values))
        }
    }
}

/// Header names of ours, of the broker's, and any other.
const NAMES: [&str; 7] = [
    "x-rpcache-cache",
    "x-rpcache-error",
    "x-rpcache-source",
    "x-rpcache-filled",
    "x-delivery-count",
    "x-death",
    "",
];

fn table(rng: &mut Rng, depth: u8) -> FieldTable {
    let mut table = FieldTable::default();
    for _ in 0..rng.usize(..5) {
        let name = match NAMES[rng.usize(..NAMES.len())] {
            // The broker itself checks the types of its own headers.
            "" => text(rng, 60),
            name => name.to_owned(),
        };
        table.insert(name.into(), value(rng, depth));
    }
    table
}

/// Random properties of a request or a reply; the expiration is valid, since the broker checks it.
fn properties(rng: &mut Rng) -> AMQPProperties {
    let mut properties = AMQPProperties::default();
    if rng.bool() {
        properties = properties.with_headers(table(rng, 2));
    }
    if rng.bool() {
        properties = properties.with_correlation_id(short(rng));
    }
    if rng.u8(..4) == 0 {
        properties = properties.with_expiration(rng.u32(..).to_string().into());
    }
    if rng.u8(..4) == 0 {
        properties = properties
            .with_content_type(short(rng))
            .with_content_encoding(short(rng))
            .with_message_id(short(rng))
            .with_type(short(rng))
            .with_app_id(short(rng))
            .with_priority(rng.u8(..))
            .with_delivery_mode(rng.u8(1..=2))
            .with_timestamp(rng.u64(..));
    }
    properties
}

fn reply_to(rng: &mut Rng, caller: &Caller) -> Option<ShortString> {
    match rng.u8(..6) {
        0 => None,
        1 => Some(short(rng)),
        2 => Some(format!("amq.gen-{}", text(rng, 30)).into()),
        3 => Some(["rpc_queue", "rpc_queue.dead", "amq.gen-", "rpc.reply."][rng.usize(..4)].into()),
        _ => caller.properties().reply_to().clone(),
    }
}

#[tokio::test]
async fn worker_survives_generated_requests() {
    let setup = Setup::new().await;
    let worker = setup.worker(&[]).await;
    let mut rng = rng();
    let mut left = messages();
    while left > 0 {
        // A caller for each batch: its replies are dropped with it.
        let batch = left.min(1_000);
        left -= batch;
        let caller = Caller::with_callback_queue(&setup.vhost.url()).await;
        let publish = |body: Vec<u8>, properties| {
            let channel = &caller.broker.channel;
            async move {
                let options = BasicPublishOptions::default();
                let queue = crate::support::amqp::QUEUE.into();
                let confirm = channel.basic_publish("".into(), queue, options, &body, properties);
                confirm.await.unwrap().await.unwrap();
            }
        };
        let sent: Vec<_> = (0..batch)
            .map(|_| {
                let properties = properties(&mut rng);
                let properties = match reply_to(&mut rng, &caller) {
                    Some(name) => properties.with_reply_to(name),
                    None => properties,
                };
                publish(body(&mut rng), properties)
            })
            .collect();
        join_all(sent).await;
        setup.all_taken().await;
        setup.caller().await.is_served().await;
        caller.broker.close().await;
    }
    let finished = setup.assert_settled(worker).await;
    assert!(!finished.stderr.contains("panicked"), "{finished:#?}");
    let lines = finished.stderr.lines().count();
    assert!(lines < 100, "{lines} lines of log: {finished:#?}");
}

/// A random message of a broken or hostile worker.
fn nonsense(rng: &mut Rng, request: &Delivery) -> (String, AMQPProperties) {
    let id = request.properties.correlation_id().clone().unwrap();
    let properties = match rng.u8(..5) {
        // Ids of no call, and some that are similar to the right one.
        0 => properties(rng),
        1 => AMQPProperties::default(),
        2 => AMQPProperties::default().with_correlation_id(format!("{id}0").into()),
        3 => properties(rng).with_correlation_id(uuid::Uuid::new_v4().to_string().into()),
        _ => AMQPProperties::default().with_headers(headers(&[("x-rpcache-error", "poison")])),
    };
    (text(rng, 300), properties)
}

#[tokio::test]
async fn call_survives_generated_replies() {
    let setup = Setup::new().await;
    let mut worker = setup.raw_worker().await;
    let mut rng = rng();
    // Each argument is preceded by a few messages of nonsense.
    let last = messages() / 20;
    let call = setup.start_call(&[&format!("0..{last}"), "--timeout", "60s"]);
    let mut answered = 0;
    let mut asked_twice = std::collections::HashSet::new();
    while answered <= last {
        let request = worker.take().await;
        let nonsense: Vec<_> = (0..rng.usize(..20))
            .map(|_| nonsense(&mut rng, &request))
            .collect();
        let send = |(junk, properties): (String, AMQPProperties)| {
            let (worker, request): (&Worker, &Delivery) = (&worker, &request);
            async move { worker.reply_as(request, &junk, properties).await }
        };
        join_all(nonsense.into_iter().map(send)).await;
        let n: u64 = String::from_utf8_lossy(&request.data).parse().unwrap();
        if rng.u8(..10) == 0 && asked_twice.insert(n) {
            // A wrong answer once: the client requests it again.
            worker.reply(&request, &text(&mut rng, 50)).await;
            continue;
        }
        worker.reply(&request, &fibonacci(n)).await;
        if rng.bool() {
            worker.reply(&request, "twice, and too late").await;
        }
        answered += 1;
    }
    let finished = call.finish().await;
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    let expected: Vec<_> = (0..=last)
        .map(|n| format!("{n}\t{}", fibonacci(n)))
        .collect();
    let answers: Vec<_> = finished.stdout.lines().collect();
    assert!(answers == expected, "an answer is wrong");
}
