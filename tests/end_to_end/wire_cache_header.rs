//! The request header `x-rpcache-cache`: its two values, and the entry in Redis afterwards.
//!
//! An entry of the test has no expiry, and one that a worker fills has: so the TTL shows whether the
//! worker wrote it.

use crate::support::amqp::{Caller, Reply, headers};
use crate::support::{EXPENSIVE, Setup, fibonacci};

/// The key of [`EXPENSIVE`].
const KEY: &str = "fib:100000";

async fn ask(caller: &mut Caller, mode: &str) -> Reply {
    let properties = caller
        .properties()
        .with_headers(headers(&[("x-rpcache-cache", mode)]));
    let reply = caller
        .ask_with(EXPENSIVE.to_string().as_bytes(), properties)
        .await;
    reply.answers(&fibonacci(EXPENSIVE));
    reply
}

#[tokio::test]
async fn bypass_neither_reads_nor_fills() {
    let setup = Setup::new().await;
    let _worker = setup.worker(&[]).await;
    let mut caller = setup.caller().await;

    let reply = ask(&mut caller, "bypass").await;
    assert_eq!(reply.header("x-rpcache-source"), Some("computed"));
    assert_ne!(reply.header("x-rpcache-filled"), Some("true"));
    assert_eq!(setup.redis.keys().await, Vec::<String>::new());

    setup.redis.set(KEY, &fibonacci(EXPENSIVE)).await;
    assert_eq!(
        ask(&mut caller, "bypass").await.header("x-rpcache-source"),
        Some("computed")
    );
    assert_eq!(
        setup.redis.pttl(KEY).await,
        -1,
        "the entry was written again"
    );
}

#[tokio::test]
async fn refresh_does_not_read_but_fills() {
    let setup = Setup::new().await;
    let _worker = setup.worker(&[]).await;
    let mut caller = setup.caller().await;
    setup.redis.set(KEY, &fibonacci(EXPENSIVE)).await;

    let reply = ask(&mut caller, "refresh").await;
    assert_eq!(reply.header("x-rpcache-source"), Some("computed"));
    assert_eq!(reply.header("x-rpcache-filled"), Some("true"));
    assert!(
        setup.redis.pttl(KEY).await > 0,
        "the entry was not written again"
    );
}

#[tokio::test]
async fn unknown_value_is_an_ordinary_request() {
    let setup = Setup::new().await;
    let _worker = setup.worker(&[]).await;
    let mut caller = setup.caller().await;
    assert_eq!(
        ask(&mut caller, "unheard-of")
            .await
            .header("x-rpcache-source"),
        Some("computed")
    );
    assert_eq!(setup.redis.keys().await, [KEY]);
    assert_eq!(
        ask(&mut caller, "unheard-of")
            .await
            .header("x-rpcache-source"),
        Some("cache")
    );
}
