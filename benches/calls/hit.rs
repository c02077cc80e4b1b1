//! `hit`: verified answers from the cache, against a bare GET on one shared connection, and against an
//! alternative: the Redis store of the crate `cached` with its defaults. That shares one connection, too, waits
//! half a second at most, and does not verify.

use std::sync::Arc;
use std::time::Duration;

use cached::{AsyncRedisCache, ConcurrentCachedAsync as _};
use redis::AsyncConnectionConfig;
use rpcache::fibonacci::{Fibonacci, N};
use rpcache::{CacheOptions, Client, ClientOptions, Source};

use crate::support::redis::Redis;
use crate::table::{Goal, Table};
use crate::tasks::rate;

const ROUNDS: usize = 15;
const SLICE: Duration = Duration::from_millis(300);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

pub(crate) async fn run(table: &mut Table) {
    let server = Redis::start();
    server.set("fib:30", "832040").await;
    let mut cache = CacheOptions::new(server.url().parse().expect("a URL"));
    cache.wait_for_connection = true;
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
    let cached = Arc::new(cached(&server.url()).await);

    for tasks in [1, 64, 256] {
        let [mut ours, mut limit, mut default, mut other] = [(); 4].map(|()| Vec::new());
        for _ in 0..ROUNDS {
            let client = client.clone();
            ours.push(rate(tasks, SLICE, move |_| hit(client.clone())).await);
            let connection = timeless.clone();
            limit.push(rate(tasks, SLICE, move |_| get(connection.clone())).await);
            let connection = as_it_comes.clone();
            default.push(rate(tasks, SLICE, move |_| get(connection.clone())).await);
            let cached = Arc::clone(&cached);
            other.push(rate(tasks, SLICE, move |_| cache_get(Arc::clone(&cached))).await);
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
        table.add(
            format!("{tasks} tasks, against the crate cached"),
            "1/s",
            (&ours, &other),
            Goal::AtLeast(1.0),
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

type Cached = AsyncRedisCache<u64, String>;

/// A store of the crate `cached` with the answer, under a key of its own.
async fn cached(url: &str) -> Cached {
    let builder = Cached::builder("fib").ttl(DAY).connection_string(url);
    let cached = builder.build().await.expect("Redis answers");
    let stored = cached.async_cache_set(30, "832040".to_owned()).await;
    assert_eq!(stored.expect("it is stored"), None);
    cached
}

async fn cache_get(cached: Arc<Cached>) {
    let answer = cached.async_cache_get(&30).await.expect("an answer");
    assert_eq!(answer.as_deref(), Some("832040"));
}
