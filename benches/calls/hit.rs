//! `hit`: answers from the cache, verified, against a GET and nothing else on one shared connection.

use std::time::Duration;

use redis::AsyncConnectionConfig;
use rpcache::fibonacci::{Fibonacci, N};
use rpcache::{CacheOptions, Client, ClientOptions, Source};

use crate::support::redis::Redis;
use crate::table::{Goal, Table};
use crate::tasks::rate;

const ROUNDS: usize = 15;
const SLICE: Duration = Duration::from_millis(300);

pub(crate) async fn run(table: &mut Table) {
    let server = Redis::start();
    server.set("fib:30", "832040").await;
    let mut cache = CacheOptions::new(server.url().parse().expect("a URL"));
    cache.connect_first = true;
    // A hit needs no broker: there is none.
    let amqp = "amqp://127.0.0.1:1".parse().expect("a URL");
    let client = Client::new(Fibonacci::default(), ClientOptions::new(amqp, cache));
    let as_it_comes = AsyncConnectionConfig::new();
    let timeless = as_it_comes.clone().set_response_timeout(None);
    let redis = redis::Client::open(server.url()).expect("a URL");
    let connect = async |config| {
        redis
            .get_multiplexed_async_connection_with_config(config)
            .await
            .expect("Redis answers")
    };
    let (as_it_comes, timeless) = (connect(&as_it_comes).await, connect(&timeless).await);

    for tasks in [1, 64, 256] {
        let (mut ours, mut limit, mut default) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            let client = client.clone();
            ours.push(rate(tasks, SLICE, move |_| hit(client.clone())).await);
            let connection = timeless.clone();
            limit.push(rate(tasks, SLICE, move |_| get(connection.clone())).await);
            let connection = as_it_comes.clone();
            default.push(rate(tasks, SLICE, move |_| get(connection.clone())).await);
        }
        table.add(
            format!("{tasks} tasks, against GET"),
            "1/s",
            (&ours, &limit),
            Goal::AtLeast(0.9),
        );
        table.add(
            format!("{tasks} tasks, against GET with a time-out"),
            "1/s",
            (&ours, &default),
            Goal::AtLeast(0.9),
        );
    }
}

async fn hit(client: Client<Fibonacci>) {
    let answered = client.call(N(30)).await.expect("an answer");
    assert_eq!(answered.source, Source::Cache);
}

async fn get(mut connection: redis::aio::MultiplexedConnection) {
    let answer: String = redis::cmd("GET")
        .arg("fib:30")
        .query_async(&mut connection)
        .await
        .expect("an answer");
    assert_eq!(answer, "832040");
}
