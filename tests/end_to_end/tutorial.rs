//! Python programs after RabbitMQ's tutorial six, which know nothing of rpcache, work with its clients and
//! workers unchanged.

use crate::support::Setup;
use crate::support::amqp::{Declared, QUEUE};
use crate::support::process::Program;
use std::process::{Command, Stdio};

fn python(script: &str, arguments: &[&str]) -> Program {
    let script = format!("{}/tests/tutorial/{script}", env!("CARGO_MANIFEST_DIR"));
    Program::new(interpreter(), &[&[script.as_str()], arguments].concat())
}

/// The first Python with pika: the one in `PATH` may lack it.
pub(crate) fn interpreter() -> &'static str {
    let knows_pika = |python: &&str| {
        let import = Command::new(python)
            .args(["-c", "import pika"])
            .stderr(Stdio::null())
            .status();
        import.is_ok_and(|status| status.success())
    };
    ["python3", "/usr/bin/python3"]
        .into_iter()
        .find(knows_pika)
        .expect("no Python here can import pika: scripts/test installs it")
}

async fn python_caller_is_served_by_our_worker(declared: Declared) {
    let setup = Setup::new().await;
    setup.broker.declare(QUEUE, declared).await.unwrap();
    let _worker = setup.worker(&[]).await;
    let caller = python("rpc_client.py", &[&setup.vhost.url(), "30", "0", "100"]);
    caller
        .run()
        .await
        .answers("832040\n0\n354224848179261915075\n");
    assert_eq!(
        setup.redis.get("fib:100").await.as_deref(),
        Some("354224848179261915075")
    );
}

#[tokio::test]
async fn python_caller_is_served_by_our_worker_on_a_quorum_queue() {
    python_caller_is_served_by_our_worker(Declared::DurableQuorum).await;
}

#[tokio::test]
async fn python_caller_is_served_by_our_worker_on_a_classic_queue() {
    python_caller_is_served_by_our_worker(Declared::ClassicTransient).await;
}

/// A foreign worker does not fill, so our client does.
async fn our_call_is_answered_by_a_python_worker_and_fills(kind: &str) {
    let setup = Setup::new().await;
    let _worker = setup
        .serving(python("rpc_server.py", &[&setup.vhost.url(), kind]))
        .await;
    setup
        .call(&["30", "100"])
        .await
        .answers("30\t832040\n100\t354224848179261915075\n");
    assert_eq!(setup.redis.get("fib:30").await.as_deref(), Some("832040"));
    assert_eq!(
        setup.redis.get("fib:100").await.as_deref(),
        Some("354224848179261915075")
    );
}

#[tokio::test]
async fn our_call_is_answered_by_a_python_worker_on_a_quorum_queue() {
    our_call_is_answered_by_a_python_worker_and_fills("quorum").await;
}

#[tokio::test]
async fn our_call_is_answered_by_a_python_worker_on_a_classic_queue() {
    our_call_is_answered_by_a_python_worker_and_fills("classic").await;
}

/// A program after the tutorial declares the queue before it uses it, which needs the same arguments as those of
/// our worker.
#[tokio::test]
async fn python_worker_shares_the_queue_that_our_worker_declared() {
    let setup = Setup::new().await;
    let ours = setup.worker(&[]).await;
    let _python = setup
        .serving(python("rpc_server.py", &[&setup.vhost.url(), "quorum"]))
        .await;
    assert_eq!(setup.consumers(QUEUE).await, 2);
    assert_eq!(ours.terminate().await.code, Some(0));
    setup.call(&["30"]).await.answers("832040\n");
}

/// Checks the tests' own tools, without rpcache.
#[tokio::test]
async fn python_caller_is_served_by_a_python_worker() {
    let setup = Setup::new().await;
    let _worker = setup
        .serving(python("rpc_server.py", &[&setup.vhost.url(), "quorum"]))
        .await;
    python("rpc_client.py", &[&setup.vhost.url(), "30"])
        .run()
        .await
        .answers("832040\n");
    setup.caller().await.is_served().await;
}

#[tokio::test]
async fn python_caller_is_served_by_a_raw_worker() {
    let setup = Setup::new().await;
    let mut worker = setup.raw_worker().await;
    let caller = python("rpc_client.py", &[&setup.vhost.url(), "30"]).start();
    let request = worker.take().await;
    assert_eq!(request.data, b"30");
    worker.reply(&request, "832040").await;
    caller.finish().await.answers("832040\n");
}
