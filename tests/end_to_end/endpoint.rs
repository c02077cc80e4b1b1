//! `--metrics-addr`: readiness, liveness, `rpcache health`, and idle or hostile peers of the endpoint.

use std::net::SocketAddr;
use std::time::Duration;

use crate::support::http::{self, METRICS, Page, address_of, get, scraped, series};
use crate::support::ports::{ClosedPort, SilentPeer};
use crate::support::redis::Redis;
use crate::support::{ONE_AT_A_TIME, Setup, VERY_SLOW, wait};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Waits until `/readyz` has this status and these words.
async fn readiness_is(address: SocketAddr, status: u16, words: &str) -> Page {
    let mut page = None;
    wait::wait_until(&format!("readiness is {status} {words:?}"), async || {
        let now = get(address, "/readyz").await;
        let is_so = now.status == status && now.body.contains(words);
        page = Some(now);
        is_so
    })
    .await;
    page.unwrap()
}

#[tokio::test]
async fn readiness_follows_the_broker() {
    let setup = Setup::new().await;
    let closed = ClosedPort::reserve();
    let url = setup.vhost.url_by(closed.port());
    let program = setup.rpcache(&[&["worker"], &METRICS[..]].concat());
    let worker = program.env("AMQP_URL", &url).start();
    // The endpoint listens before any server is reached.
    let address = address_of(&worker).await;
    readiness_is(address, 503, &closed.port().to_string()).await;
    assert_eq!(get(address, "/healthz").await.status, 200);
    let up = "rpcache_broker_up{procedure=\"fib\",role=\"worker\"}";
    assert!(get(address, "/metrics").await.number(up) < 0.5);

    let forwarder = closed.forward_to(setup.vhost.port());
    assert_eq!(readiness_is(address, 200, "").await.body, "ready\n");
    for _ in 0..2 {
        forwarder.close();
        let page = readiness_is(address, 503, "closed").await;
        assert!(
            page.body.contains(&forwarder.port().to_string()),
            "{page:#?}"
        );
        assert!(!page.body.contains("guest:guest"), "{page:#?}");
        forwarder.open();
        readiness_is(address, 200, "ready").await;
    }
    let page = get(address, "/metrics").await;
    let reconnects = "rpcache_broker_reconnects_total{procedure=\"fib\",role=\"worker\"}";
    assert!(
        page.number(up) > 0.5 && page.number(reconnects) > 1.5,
        "{page:#?}"
    );
    assert_eq!(worker.terminate().await.code, Some(0));
}

#[tokio::test]
async fn worker_without_redis_is_ready_and_degraded() {
    let setup = Setup::new().await;
    let redis = Redis::start_with(&["--requirepass", "s3cret"]);
    let program = setup.rpcache(&[&["worker"], &METRICS[..]].concat());
    let program = program.env("REDIS_URL", &redis.url_with(":s3cret@"));
    let worker = setup.serving(program).await;
    let address = address_of(&worker).await;
    assert_eq!(readiness_is(address, 200, "").await.body, "ready\n");

    redis.freeze();
    let mut caller = setup.caller().await;
    wait::wait_until("its breaker trips", async || {
        caller.is_served().await;
        let late = series("rpcache_redis_losses_total", "cause=\"late\"");
        get(address, "/metrics").await.number(&late) > 0.5
    })
    .await;
    readiness_is(address, 200, "degraded").await;
    redis.thaw();
    wait::wait_until("it is back", async || {
        get(address, "/readyz").await.body == "ready\n"
    })
    .await;

    drop(redis);
    let page = readiness_is(address, 200, "degraded").await;
    assert!(page.body.contains("redis://"), "{page:#?}");
    assert!(!page.body.contains("s3cret"), "{page:#?}");
    caller.is_served().await;
    let page = get(address, "/metrics").await;
    let up = "rpcache_redis_up{procedure=\"fib\",role=\"worker\"}";
    let unanswered = series("rpcache_cache_lookups_total", "result=\"unanswered\"");
    assert!(
        page.number(up) < 0.5 && page.number(&unanswered) > 0.5,
        "{page:#?}"
    );
}

#[tokio::test]
async fn stopping_worker_is_not_ready_and_closes_the_endpoint() {
    let setup = Setup::new().await;
    let (worker, address) = scraped(&setup, &ONE_AT_A_TIME).await;
    let caller = setup.caller().await;
    caller
        .send(VERY_SLOW.to_string().as_bytes(), caller.properties())
        .await;
    setup.all_taken().await;
    worker.signal("TERM");
    readiness_is(address, 503, "stopping").await;
    assert_eq!(get(address, "/healthz").await.status, 200);
    let finished = worker.finish().await;
    assert_eq!(finished.code, Some(0), "{finished:#?}");
    assert!(finished.stderr.contains("are answered"), "{finished:#?}");
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn address_in_use_is_an_error() {
    let setup = Setup::new().await;
    let (_worker, address) = scraped(&setup, &[]).await;
    let address = address.to_string();
    let options = ["worker", "--metrics-addr", &address, "--log-format", "text"];
    let second = setup.rpcache(&options).run().await;
    second.refuses(3, &address);
    second.has_one_clear_line("--metrics-addr");
    assert_eq!(setup.consumers("rpc_queue").await, 1);
    let wrong = setup
        .rpcache(&["worker", "--metrics-addr", "9464"])
        .run()
        .await;
    wrong.refuses(2, "127.0.0.1:9464");
}

/// `rpcache health`, for images without curl.
#[tokio::test]
async fn health_has_exit_codes() {
    let setup = Setup::new().await;
    let asked = async |address: &str| {
        let program = setup.rpcache(&["health"]);
        program.env("RPCACHE_METRICS_ADDR", address).run().await
    };
    let (worker, address) = scraped(&setup, &[]).await;
    asked(&address.to_string()).await.answers("ready\n");
    let everywhere = format!("0.0.0.0:{}", address.port());
    asked(&everywhere).await.answers("ready\n");
    worker.terminate().await;
    let gone = asked(&address.to_string()).await;
    gone.refuses(3, &address.to_string());

    let closed = ClosedPort::reserve();
    let url = setup.vhost.url_by(closed.port());
    let program = setup.rpcache(&[&["worker"], &METRICS[..]].concat());
    let worker = program.env("AMQP_URL", &url).start();
    let address = address_of(&worker).await;
    let page = asked(&address.to_string()).await;
    page.refuses(1, "not ready");
    let silent = SilentPeer::start();
    let address = format!("127.0.0.1:{}", silent.port());
    asked(&address).await.refuses(124, &address);
}

#[tokio::test]
async fn unknown_pages_methods_and_large_heads_are_refused() {
    let setup = Setup::new().await;
    let (_worker, address) = scraped(&setup, &[]).await;
    let asked = async |method, path, headers: &str| {
        let asked = http::request(address, method, path, headers);
        wait::soon("an answer", asked).await.unwrap()
    };
    assert_eq!(asked("GET", "/", "").await.status, 404);
    assert_eq!(asked("GET", "/metrics/fib:30", "").await.status, 404);
    let refused = asked("POST", "/metrics", "content-length: 0\r\n").await;
    assert_eq!(refused.status, 405);
    assert!(refused.head.contains("allow: get, head"), "{refused:#?}");
    let head = asked("HEAD", "/readyz", "").await;
    assert_eq!((head.status, head.body.as_str()), (200, ""));
    let large = format!("x: {}\r\n", "y".repeat(100_000));
    assert!(matches!(
        http::request(address, "GET", "/metrics", &large).await,
        Err(_) | Ok(Page { status: 431, .. })
    ));
    let openmetrics = asked(
        "GET",
        "/metrics",
        "accept: application/openmetrics-text;version=1.0.0\r\n",
    )
    .await;
    assert!(
        openmetrics.head.contains("application/openmetrics-text"),
        "{openmetrics:#?}"
    );
    assert!(openmetrics.body.ends_with("# EOF\n"), "{openmetrics:#?}");
}

/// A liveness probe does not wait for other connections.
#[tokio::test]
async fn idle_connections_make_room_for_a_probe() {
    let setup = Setup::new().await;
    let (_worker, address) = scraped(&setup, &[]).await;
    let mut idle = Vec::new();
    for _ in 0..100 {
        idle.push(TcpStream::connect(address).await.unwrap());
    }
    for _ in 0..40 {
        let probe = http::request(address, "GET", "/healthz", "");
        let probe = tokio::time::timeout(Duration::from_secs(1), probe).await;
        assert_eq!(probe.expect("it is answered at once").unwrap().status, 200);
    }
    // Many probes at once.
    let probes = (0..40).map(|_| get(address, "/healthz"));
    for probe in futures_util::future::join_all(probes).await {
        assert_eq!(probe.status, 200, "{probe:#?}");
    }
}

/// The limit is for the head of a request, not for a whole exchange.
#[tokio::test]
async fn an_idle_connection_is_closed_within_seconds() {
    let setup = Setup::new().await;
    let (_worker, address) = scraped(&setup, &[]).await;
    for spoken in ["", "GET /healthz HTTP/1.1\r\nx: "] {
        let mut idle = TcpStream::connect(address).await.unwrap();
        idle.write_all(spoken.as_bytes()).await.unwrap();
        let mut rest = Vec::new();
        let closed = tokio::time::timeout(Duration::from_secs(5), idle.read_to_end(&mut rest));
        assert!(closed.await.is_ok(), "{spoken:?}");
    }
}

/// Connections without a request are closed; meanwhile the worker serves.
#[tokio::test]
async fn silent_peers_do_not_block_requests() {
    let setup = Setup::new().await;
    let (_worker, address) = scraped(&setup, &[]).await;
    let mut silent = Vec::new();
    for n in 0..80 {
        let mut stream = TcpStream::connect(address).await.unwrap();
        // Some have sent part of a request.
        if n % 2 == 0 {
            stream
                .write_all(b"GET /metrics HTTP/1.1\r\nx: ")
                .await
                .unwrap();
        }
        silent.push(stream);
    }
    setup.caller().await.is_served().await;
    assert_eq!(get(address, "/healthz").await.status, 200);
    let mut first = silent.swap_remove(0);
    let mut rest = Vec::new();
    let closed = first.read_to_end(&mut rest);
    let closed = tokio::time::timeout(Duration::from_secs(1), closed).await;
    assert!(closed.is_ok(), "the connection is still open");
}
