//! Redis is down, frozen, full, read-only, or another server: no call fails, and none waits long.

use crate::support::ports::{ClosedPort, SilentPeer};
use crate::support::process::Program;
use crate::support::redis::Redis;
use crate::support::{EXPENSIVE, Setup, fibonacci, wait};
use std::time::Duration;

/// A one-shot call waits at most 500 ms to connect and two budgets of 50 ms after that. The rest allows for a
/// busy machine, and is less than the libraries' own timeouts.
const NOT_LONG: Duration = Duration::from_millis(2500);

/// Starts a worker, and makes a cheap and an expensive call, all with this Redis.
async fn calls_are_answered_with(setup: &Setup, redis_url: &str) {
    let with_redis = |program: Program| program.env("REDIS_URL", redis_url);
    let _worker = setup.serving(with_redis(setup.rpcache(&["worker"]))).await;
    are_answered(setup, redis_url).await;
}

async fn are_answered(setup: &Setup, redis_url: &str) {
    for n in [30, EXPENSIVE] {
        let call = setup
            .rpcache(&["call", &n.to_string()])
            .env("REDIS_URL", redis_url)
            .run()
            .await;
        call.answers(&format!("{}\n", fibonacci(n)));
        assert!(
            call.took < NOT_LONG,
            "{n}: {:?}; {}",
            call.took,
            call.stderr
        );
    }
}

#[tokio::test]
async fn redis_is_down() {
    let closed = ClosedPort::reserve();
    let url = format!("redis://127.0.0.1:{}/", closed.port());
    calls_are_answered_with(&Setup::new().await, &url).await;
}

#[tokio::test]
async fn redis_accepts_connections_and_never_replies() {
    let silent = SilentPeer::start();
    let url = format!("redis://127.0.0.1:{}/", silent.port());
    calls_are_answered_with(&Setup::new().await, &url).await;
}

#[tokio::test]
async fn redis_address_is_that_of_another_server() {
    // RabbitMQ replies to an unknown protocol with its version, and closes the connection.
    let setup = Setup::new().await;
    let url = format!("redis://127.0.0.1:{}/", setup.vhost.port());
    calls_are_answered_with(&setup, &url).await;
}

#[tokio::test]
async fn redis_ends_while_the_worker_serves() {
    let mut setup = Setup::new().await;
    let _worker = setup.worker(&[]).await;
    setup.call(&["30"]).await.answers("832040\n");
    let url = setup.redis.url();
    setup.redis = Redis::start();
    are_answered(&setup, &url).await;
}

#[tokio::test]
async fn redis_freezes_while_the_worker_serves() {
    let setup = Setup::new().await;
    let _worker = setup.worker(&[]).await;
    setup.call(&["30"]).await.answers("832040\n");
    setup.redis.freeze();
    are_answered(&setup, &setup.redis.url()).await;
}

#[tokio::test]
async fn redis_comes_back() {
    let setup = Setup::new().await;
    let _worker = setup.worker(&[]).await;
    setup.redis.freeze();
    are_answered(&setup, &setup.redis.url()).await;
    setup.redis.thaw();
    // The worker fills again as soon as it has noticed.
    wait::wait_until("an answer is stored", async || {
        setup.call(&["31"]).await.answers("1346269\n");
        setup.redis.get("fib:31").await.is_some()
    })
    .await;
}

#[tokio::test]
async fn redis_is_full() {
    let setup = Setup::new().await;
    setup.redis.set("fib:31", "1346269").await;
    setup
        .redis
        .run::<()>(&["CONFIG", "SET", "maxmemory-policy", "noeviction"])
        .await;
    setup
        .redis
        .run::<()>(&["CONFIG", "SET", "maxmemory", "1"])
        .await;
    calls_are_answered_with(&setup, &setup.redis.url()).await;
    assert_eq!(setup.redis.keys().await, ["fib:31"]);
    // Lookups still hit: only fills are refused.
    hits(&setup, &setup.redis.url(), "31", "1346269").await;
}

#[tokio::test]
async fn redis_is_a_read_only_replica() {
    let setup = Setup::new().await;
    setup.redis.set("fib:31", "1346269").await;
    let closed = ClosedPort::reserve();
    setup
        .redis
        .run::<()>(&["REPLICAOF", "127.0.0.1", &closed.port().to_string()])
        .await;
    calls_are_answered_with(&setup, &setup.redis.url()).await;
    assert_eq!(setup.redis.keys().await, ["fib:31"]);
    hits(&setup, &setup.redis.url(), "31", "1346269").await;
}

#[tokio::test]
async fn redis_refuses_the_password() {
    for credentials in ["", ":wrong@", "nobody:right@"] {
        let mut setup = Setup::new().await;
        setup.redis = Redis::start_with(&["--requirepass", "right"]);
        calls_are_answered_with(&setup, &setup.redis.url_with(credentials)).await;
        let keys: Vec<String> = setup.redis.run_as(":right@", &["KEYS", "*"]).await;
        assert_eq!(keys, Vec::<String>::new());
    }
}

#[tokio::test]
async fn redis_accepts_the_password() {
    let mut setup = Setup::new().await;
    setup.redis = Redis::start_with(&["--requirepass", "right"]);
    let url = setup.redis.url_with(":right@");
    calls_are_answered_with(&setup, &url).await;
    hits(&setup, &url, "30", "832040").await;
}

/// A user with the right to read, and no right to write or to take a lease.
#[tokio::test]
async fn redis_user_may_only_read() {
    let setup = Setup::new().await;
    setup.redis.set("fib:31", "1346269").await;
    setup
        .redis
        .run::<()>(&[
            "ACL",
            "SETUSER",
            "reader",
            "on",
            ">reader",
            "~*",
            "+@read",
            "+@connection",
        ])
        .await;
    let url = setup.redis.url_with("reader:reader@");
    calls_are_answered_with(&setup, &url).await;
    assert_eq!(setup.redis.keys().await, ["fib:31"]);
    hits(&setup, &url, "31", "1346269").await;
}

/// Makes a call that Redis alone can answer: no broker listens.
async fn hits(setup: &Setup, redis_url: &str, n: &str, answer: &str) {
    let closed = ClosedPort::reserve();
    let amqp = setup.vhost.url_by(closed.port());
    let call = setup
        .rpcache(&["call", n, "--cache-budget", "10s"])
        .env("AMQP_URL", &amqp)
        .env("REDIS_URL", redis_url);
    call.run().await.answers(&format!("{answer}\n"));
}
