//! Requests and replies, written and read: the properties of messages, whose encoding is lapin's.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use criterion::{BatchSize, Criterion};
use lapin::message::Delivery;
use lapin::types::ShortString;
use uuid::Uuid;

use crate::cache_use::CacheUse;
use crate::message::{CorrelationId, Reply, Request, request_properties};
use crate::source::Source;

const DEADLINE: Duration = Duration::from_secs(10);

pub(crate) fn measure(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("message");
    let id = Uuid::new_v4();
    let reply_to = ShortString::from("amq.gen-0123456789abcdefghijkl");

    for (name, cache) in [
        ("write a request", CacheUse::Normal),
        ("write a request with a header", CacheUse::Bypass),
    ] {
        group.bench_function(name, |bencher| {
            bencher.iter(|| request_properties(black_box(id), &reply_to, DEADLINE, cache));
        });
    }

    let request = request_properties(id, &reply_to, DEADLINE, CacheUse::Normal);
    let fib = rpcache::fibonacci::Fibonacci::default();
    group.bench_function("read a request and its argument", |bencher| {
        bencher.iter_batched(
            || b"1000000".to_vec(),
            |body| {
                let request = Request::read(body, black_box(&request));
                let argument = request.argument(&fib);
                assert!(argument.is_ok());
                (request, argument.ok())
            },
            BatchSize::SmallInput,
        );
    });

    let correlation_id = CorrelationId::Text(id.to_string().into());
    let reply = Reply {
        outcome: Ok(Arc::new(b"832040".to_vec())),
        source: Some(Source::Computed),
        filled: Some(true),
        steps: None,
    };
    group.bench_function("write a reply", |bencher| {
        bencher.iter_batched(
            || reply.clone(),
            |reply| reply.write(Some(&correlation_id)),
            BatchSize::SmallInput,
        );
    });

    let (body, properties) = reply.clone().write(Some(&correlation_id));
    let delivery = || {
        let mut delivery = Delivery::mock(1, "".into(), "".into(), false, body.to_vec());
        delivery.properties = properties.clone();
        delivery
    };
    assert_eq!(Reply::read(delivery()), Some((id, reply)));
    group.bench_function("read a reply", |bencher| {
        bencher.iter_batched(delivery, Reply::read, BatchSize::SmallInput);
    });
    group.finish();
}
