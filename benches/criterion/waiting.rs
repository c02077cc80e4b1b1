//! The table of requests that await their reply: the cost of one wait, alone and beside 10,000 others.

use std::sync::Arc;

use criterion::{BenchmarkId, Criterion};
use futures_util::FutureExt as _;
use uuid::Uuid;

use crate::message::Reply;
use crate::requester::{pending::Outcome, table};

pub(crate) fn measure(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("pending");
    let reply = Outcome::Reply(Reply {
        outcome: Ok(Arc::new(b"832040".to_vec())),
        source: None,
        filled: None,
        steps: None,
    });
    for others in [0, 10_000] {
        let pending = table(others + 1);
        let register = |id| pending.register(id, false).expect("there is room");
        let _others: Vec<_> = (0..others).map(|_| register(Uuid::new_v4())).collect();
        let id = Uuid::new_v4();
        group.bench_function(
            BenchmarkId::new("register, answer, take", others),
            |bencher| {
                bencher.iter(|| {
                    let mut waiter = register(id);
                    pending.complete(id, reply.clone());
                    waiter.outcome().now_or_never().expect("it is there")
                });
            },
        );
        group.bench_function(BenchmarkId::new("register, give up", others), |bencher| {
            bencher.iter(|| drop(register(id)));
        });
    }
    group.finish();
}
