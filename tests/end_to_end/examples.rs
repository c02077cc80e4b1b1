//! The examples of this package do what their module documentation says. `cargo test` builds them first.

use crate::support::http::{Page, request};
use crate::support::process::{Finished, Process, Program};
use crate::support::{Setup, http, wait};
use crate::tutorial::interpreter;
use std::net::SocketAddr;

#[tokio::test]
async fn prime_factors_are_served_called_and_cached() {
    let setup = Setup::new().await;
    let _worker = setup
        .knowing(Program::example("prime_factors", &["serve"]))
        .start();
    wait::wait_until("it serves", async || {
        setup.consumers("rpc_queue.factors").await == 1
    })
    .await;

    call(&setup)
        .await
        .answers("360: 2 2 2 3 3 5 (computed)\n97: 97 (computed)\n");
    assert_eq!(setup.redis.keys().await, ["factors:360", "factors:97"]);
    call(&setup)
        .await
        .answers("360: 2 2 2 3 3 5 (cache)\n97: 97 (cache)\n");
}

async fn call(setup: &Setup) -> Finished {
    let program = Program::example("prime_factors", &["call", "360", "97"]);
    setup.knowing(program).run().await
}

#[tokio::test]
async fn timetables_that_are_equal_share_one_key() {
    let setup = Setup::new().await;
    let worker = Program::example("timetable", &["serve"]);
    let _worker = serving(&setup, worker, "rpc_queue.timetable").await;
    let ask = async |timetables: &[&str]| {
        let program = Program::example("timetable", &[&["ask"], timetables].concat());
        setup.knowing(program).run().await
    };

    let answer = |source| format!("12@3,20@11: at 51, then every 60 minutes ({source})\n");
    ask(&["20@11 012@+3"]).await.answers(&answer("computed"));
    until(&answer("cache"), async || ask(&["12@15,20@31"]).await).await;
    assert_eq!(setup.redis.keys().await, ["timetable:12@3,20@11"]);
    // A wrong answer: at minute 11 only one of them leaves.
    setup.redis.set("timetable:12@3,20@11", "11/60").await;
    ask(&["12@3 20@11"]).await.answers(&answer("computed"));
    let never = ask(&["2@0 4@1"]).await;
    assert_eq!(never.code, Some(1), "{never:?}");
    assert!(never.stderr.contains("never leave together"), "{never:?}");
}

/// Calls until this is printed. On a busy machine a lookup may exceed the cache budget, and an answer is
/// computed once more.
async fn until(printed: &str, call: impl AsyncFn() -> Finished) {
    wait::wait_until(printed, async || call().await.stdout == printed).await;
}

/// Starts a program and waits until it consumes the queue.
async fn serving(setup: &Setup, program: Program, queue: &str) -> Process {
    let process = setup.knowing(program).start();
    wait::wait_until("it serves", async || setup.consumers(queue).await == 1).await;
    process
}

#[tokio::test]
async fn python_computes_and_the_client_checks_and_stores() {
    let setup = Setup::new().await;
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/python_worker.py");
    let python = Program::new(interpreter(), &[script, &setup.vhost.url()]);
    let _worker = serving(&setup, python, "rpc_queue.isqrt").await;
    let most = u128::MAX.to_string();
    let call = async |n: &str| {
        let program = Program::example("foreign_worker", &[n, &most]);
        setup.knowing(program).run().await
    };

    let roots = |source| format!("10: 3 ({source})\n{most}: {} ({source})\n", u64::MAX);
    call("+010").await.answers(&roots("computed"));
    until(&roots("cache"), async || call("10").await).await;
    assert_eq!(setup.redis.get("isqrt:10").await.as_deref(), Some("3"));
    setup.redis.set("isqrt:10", "4").await;
    let again = call("10").await.stdout;
    assert!(again.starts_with("10: 3 (computed)\n"), "{again}");

    let mut caller = setup.caller().await;
    let properties = caller.properties();
    let queue = "rpc_queue.isqrt";
    caller.broker.publish(queue, b"ten", properties).await;
    caller.next_reply().await.fails_as("bad-argument");
}

/// The signal comes in the middle of a computation, which waits for a reply of the test.
#[tokio::test]
async fn worker_finishes_its_requests_before_it_stops() {
    let setup = Setup::new().await;
    let queue = "rpc_queue.digitsum";
    let mut fib = setup.raw_worker().await;
    let program = Program::example("graceful_shutdown", &[]);
    let worker = serving(&setup, program, queue).await;
    let mut caller = setup.caller().await;
    let properties = caller.properties();
    caller.broker.publish(queue, b"30", properties).await;
    let request = fib.take().await;

    worker.signal("TERM");
    worker.says("stopping").await;
    fib.reply(&request, "832040").await;
    caller.next_reply().await.answers("17");
    let finished = worker.finish().await;
    assert_eq!(finished.code, Some(0), "{finished:?}");
    setup.broker.assert_empty(queue).await;
}

#[tokio::test]
async fn second_signal_ends_the_worker_at_once() {
    let setup = Setup::new().await;
    let queue = "rpc_queue.digitsum";
    let mut fib = setup.raw_worker().await;
    let program = Program::example("graceful_shutdown", &[]);
    let worker = serving(&setup, program, queue).await;
    let caller = setup.caller().await;
    let properties = caller.properties();
    caller.broker.publish(queue, b"30", properties).await;
    fib.take().await;

    worker.signal("INT");
    worker.says("stopping").await;
    let ended = worker.terminate().await;
    assert_eq!(ended.code, Some(130), "{ended:?}");
    wait::wait_until("the request is back", async || {
        setup.broker.look_at(queue).await == Some((1, 0))
    })
    .await;
}

/// Starts the web server on a free port and waits until it listens.
async fn web_server(setup: &Setup) -> (Process, SocketAddr) {
    let program = Program::example("axum_handler", &["127.0.0.1:0"]);
    let server = setup.knowing(program).start();
    wait::wait_until("it listens", async || {
        server.stdout().ends_with("/fib/30\n")
    })
    .await;
    let printed = server.stdout();
    let address = printed.trim_start_matches("http://").split('/').next();
    let address = address.and_then(|address| address.parse().ok());
    (server, address.expect("an address"))
}

fn is(page: &Page, status: u16, body: &str) {
    assert_eq!(
        (page.status, page.body.as_str()),
        (status, body),
        "{page:#?}"
    );
}

#[tokio::test]
async fn web_server_answers_and_maps_errors_to_status_codes() {
    let setup = Setup::new().await;
    let (server, address) = web_server(&setup).await;
    let get = async |path: &str| http::get(address, path).await;
    is(&get("/fib/30").await, 503, "Service Unavailable\n");

    let worker = setup.worker(&[]).await;
    let computed = get("/fib/30").await;
    is(&computed, 200, "832040\n");
    assert!(computed.head.contains("x-rpcache-source: computed"));
    wait::wait_until("it comes from the cache", async || {
        let again = get("/fib/30").await;
        is(&again, 200, "832040\n");
        again.head.contains("x-rpcache-source: cache")
    })
    .await;
    assert_eq!(get("/fib/thirty").await.status, 400);
    is(
        &get("/fib/1000001").await,
        422,
        "n is limited to 1000000 here\n",
    );
    assert_eq!(worker.terminate().await.code, Some(0));

    // The worker does not reply within the time that the request allows.
    let _silent = setup.raw_worker().await;
    let asked = request(address, "GET", "/fib/31", "prefer: wait=1\r\n");
    is(&asked.await.unwrap(), 504, "Gateway Timeout\n");
    let stopped = server.terminate().await;
    assert_eq!(stopped.code, Some(0), "{stopped:?}");
}

#[tokio::test]
async fn web_server_finishes_its_requests_before_it_stops() {
    let setup = Setup::new().await;
    let mut worker = setup.raw_worker().await;
    let (server, address) = web_server(&setup).await;
    let asked = tokio::spawn(async move { http::get(address, "/fib/30").await });
    let request = worker.take().await;

    server.signal("TERM");
    wait::wait_until("it listens no more", async || {
        tokio::net::TcpStream::connect(address).await.is_err()
    })
    .await;
    worker.reply(&request, "832040").await;
    is(&asked.await.unwrap(), 200, "832040\n");
    assert_eq!(server.finish().await.code, Some(0));
}
