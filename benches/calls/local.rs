//! `local`: hits in the near cache, in one task on one core, through the public API: clocks, key, lookup, clone of
//! the answer. Compared with a fixed number.

use std::time::{Duration, Instant};

use rpcache::fibonacci::{Fibonacci, N};
use rpcache::{CacheOptions, Client, ClientOptions, LocalOptions, Source};

use crate::support::redis::Redis;
use crate::table::Table;

const ROUNDS: usize = 15;
const SLICE: Duration = Duration::from_millis(300);

/// Calls between two readings of the clock by the benchmark.
const BATCH: u32 = 1000;

/// Calls per second.
const GOAL: f64 = 5e6;

pub(crate) async fn run(table: &mut Table) {
    let server = Redis::start();
    server.set("fib:30", "832040").await;
    let mut cache = CacheOptions::new(server.url().parse().expect("a URL"));
    cache.wait_for_connection = true;
    // A hit needs no broker: there is none.
    let amqp = "amqp://127.0.0.1:1".parse().expect("a URL");
    let mut options = ClientOptions::new(amqp, cache);
    options.local = Some(LocalOptions::new(64_000_000));
    let client = Client::new(Fibonacci::default(), options);
    let mut ours = Vec::new();
    for _ in 0..ROUNDS {
        let client = client.clone();
        // In a task, as usual; no other task runs.
        ours.push(
            tokio::spawn(async move { rate(&client).await })
                .await
                .expect("a rate"),
        );
    }
    table.at_least("hits of one key, 1 task", "1/s", &ours, GOAL);
}

async fn rate(client: &Client<Fibonacci>) -> f64 {
    // Until there is a copy, and the subscription to invalidations, which drops copies once.
    let ready = Instant::now() + Duration::from_millis(50);
    while call(client).await != Source::Local || Instant::now() < ready {}
    let (start, mut calls) = (Instant::now(), 0);
    while start.elapsed() < SLICE {
        for _ in 0..BATCH {
            assert_eq!(call(client).await, Source::Local);
        }
        calls += BATCH;
    }
    f64::from(calls) / start.elapsed().as_secs_f64()
}

async fn call(client: &Client<Fibonacci>) -> Source {
    client.call(N(30)).await.expect("an answer").source
}
