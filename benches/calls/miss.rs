//! `miss`: calls with new arguments, against an echo by lapin alone. The workers are processes.

use std::sync::Arc;
use std::time::Duration;

use rpcache::{CacheOptions, CacheUse, CallOptions, Client, ClientOptions, Source};

use crate::echo::Echo;
use crate::raw::{self, Caller};
use crate::role;
use crate::servers::Servers;
use crate::table::{Goal, Table};
use crate::tasks::rate;

const ROUNDS: usize = 9;
const SLICE: Duration = Duration::from_millis(500);

pub(crate) async fn run(table: &mut Table) {
    let servers = Servers::start();
    let _workers = ["echo-worker", "raw-worker"].map(|name| role::start(&servers, &[name]));
    let mut cache = CacheOptions::new(servers.redis.url().parse().expect("a URL"));
    cache.wait_for_connection = true;
    let amqp = servers.amqp_url().parse().expect("a URL");
    let client = Client::new(Echo, ClientOptions::new(amqp, cache));
    let connection = raw::connect(&servers.amqp_url()).await;
    raw::declare(&connection.create_channel().await.expect("a channel")).await;
    let raw = Arc::new(Caller::connect(&servers.amqp_url()).await);
    // Wait until both workers serve.
    raw.call(u64::MAX).await;
    miss(client.clone(), u64::MAX, CacheUse::Bypass).await;

    for tasks in [1, 64, 256] {
        let (mut cached, mut bypassing, mut limit) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            for (rates, cache) in [
                (&mut cached, CacheUse::Normal),
                (&mut bypassing, CacheUse::Bypass),
            ] {
                let client = client.clone();
                rates.push(rate(tasks, SLICE, move |n| miss(client.clone(), n, cache)).await);
            }
            let raw = Arc::clone(&raw);
            let echo = move |n| {
                let raw = Arc::clone(&raw);
                async move { assert_eq!(raw.call(n).await, n.to_string().as_bytes()) }
            };
            limit.push(rate(tasks, SLICE, echo).await);
        }
        table.add(
            format!("{tasks} in flight, looked up and stored"),
            "1/s",
            (&cached, &limit),
            Goal::AtLeast(0.7),
        );
        table.add(
            format!("{tasks} in flight, --no-cache"),
            "1/s",
            (&bypassing, &limit),
            Goal::AtLeast(0.9),
        );
    }
}

async fn miss(client: Client<Echo>, n: u64, cache: CacheUse) {
    let mut options = CallOptions::default();
    options.cache = cache;
    options.wait = true;
    let answered = client.call_with(n, options).await.expect("an answer");
    assert_eq!(answered.source, Source::Computed);
}
