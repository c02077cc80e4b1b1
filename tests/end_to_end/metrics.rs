//! The metrics of a worker: they match the calls that were made.

use serde_json::Value;

use crate::support::http::{get, scraped, series};
use crate::support::{EXPENSIVE, ONE_AT_A_TIME, Setup, VERY_SLOW, wait};

#[tokio::test]
async fn metrics_match_the_calls() {
    let setup = Setup::new().await;
    let (_worker, address) = scraped(&setup, &[]).await;
    setup.redis.set("fib:33", "1").await;
    let mut caller = setup.caller().await;
    for n in ["30", "31", "30", "33"] {
        assert_eq!(caller.ask(n).await.header("x-rpcache-error"), None);
    }
    caller.ask(&EXPENSIVE.to_string()).await;
    caller.ask("abc").await.fails_as("bad-argument");
    caller.ask("1000001").await.fails_as("too-large");
    let mut foreign = caller.properties();
    foreign = foreign.with_reply_to("another-queue".into());
    caller.send(b"30", foreign).await;
    setup.all_taken().await;

    let mut page = get(address, "/metrics").await;
    let held = "rpcache_requests_held{procedure=\"fib\"}";
    wait::wait_until("all is settled", async || {
        page = get(address, "/metrics").await;
        page.number("rpcache_requests_total{procedure=\"fib\"}") > 7.5 && page.number(held) < 0.5
    })
    .await;
    let lookups = |result| {
        series(
            "rpcache_cache_lookups_total",
            &format!("result=\"{result}\""),
        )
    };
    let errors = |code| series("rpcache_errors_total", &format!("code=\"{code}\""));
    let answers = |source| series("rpcache_answers_total", &format!("source=\"{source}\""));
    for (name, expected) in [
        ("rpcache_requests_total{procedure=\"fib\"}".to_owned(), 8.0),
        (answers("computed"), 4.0),
        (answers("cache"), 1.0),
        (answers("shared"), 0.0),
        (errors("bad-argument"), 1.0),
        (errors("too-large"), 1.0),
        (errors("poison"), 0.0),
        (lookups("hit"), 1.0),
        (lookups("poisoned"), 1.0),
        // 30, 31, the expensive one, and the one that is too large to be computed.
        (lookups("miss"), 4.0),
        (lookups("unanswered"), 0.0),
        (
            series("rpcache_cache_fills_total", "result=\"stored\""),
            4.0,
        ),
        (
            "rpcache_refused_reply_to_total{procedure=\"fib\"}".to_owned(),
            1.0,
        ),
        (
            "rpcache_compute_duration_seconds_count{procedure=\"fib\"}".to_owned(),
            5.0,
        ),
        (
            "rpcache_request_duration_seconds_count{procedure=\"fib\",source=\"computed\"}"
                .to_owned(),
            4.0,
        ),
        (
            "rpcache_broker_up{procedure=\"fib\",role=\"worker\"}".to_owned(),
            1.0,
        ),
        (
            "rpcache_redis_up{procedure=\"fib\",role=\"worker\"}".to_owned(),
            1.0,
        ),
    ] {
        assert!(
            (page.number(&name) - expected).abs() < 0.5,
            "{name}: {page:#?}"
        );
    }
    assert!(!page.body.contains("fib:"), "a key: {page:#?}");
    assert!(
        !page.body.contains("another-queue"),
        "a peer's words: {page:#?}"
    );

    // Its announcement in Redis has the same numbers.
    wait::wait_until("the announcement says the same", async || {
        let status = setup
            .redis
            .get("rpcache:worker:0")
            .await
            .unwrap_or_default();
        let status: Value = serde_json::from_str(&status).unwrap_or_default();
        let counts = &status["counts"];
        counts["answered"] == 7
            && counts["computed"] == 4
            && counts["cache"] == 1
            && counts["failed"] == 2
            && counts["filled"] == 4
    })
    .await;
}

/// One worker computes, the other waits for it; their callers share flights.
#[tokio::test]
async fn shared_computations_are_counted_once() {
    let setup = Setup::new().await;
    let options = [
        &ONE_AT_A_TIME[..],
        &["--cache-budget", "10s", "--prefetch", "4"],
    ]
    .concat();
    let (_one, first) = scraped(&setup, &options).await;
    let (_other, second) = scraped(&setup, &options).await;
    let caller = setup.caller().await;
    for _ in 0..8 {
        let n = VERY_SLOW.to_string();
        caller.send(n.as_bytes(), caller.properties()).await;
    }
    let sum = async |series: &str| {
        get(first, "/metrics").await.number(series) + get(second, "/metrics").await.number(series)
    };
    wait::wait_until("one computes, one waits, six share", async || {
        sum("rpcache_computations{procedure=\"fib\"}").await > 0.5
            && sum("rpcache_lease_waits_total{procedure=\"fib\"}").await > 0.5
            && sum("rpcache_requests_held{procedure=\"fib\"}").await > 7.5
    })
    .await;
    wait::wait_until("all are answered", async || {
        sum("rpcache_requests_held{procedure=\"fib\"}").await < 0.5
    })
    .await;
    for (name, expected) in [
        (series("rpcache_answers_total", "source=\"computed\""), 1.0),
        (series("rpcache_answers_total", "source=\"shared\""), 7.0),
        (
            "rpcache_shared_flights_total{procedure=\"fib\",role=\"worker\"}".to_owned(),
            6.0,
        ),
        (
            "rpcache_lease_waits_total{procedure=\"fib\"}".to_owned(),
            1.0,
        ),
        ("rpcache_computations{procedure=\"fib\"}".to_owned(), 0.0),
        // Polls while it waits are not counted.
        (
            series("rpcache_cache_lookups_total", "result=\"miss\""),
            2.0,
        ),
    ] {
        let found = sum(&name).await;
        assert!((found - expected).abs() < 0.5, "{name}: {found}");
    }
}
