//! The request queue: how a worker declares it, and queues that exist already.

use crate::support::amqp::{Declared, QUEUE};
use crate::support::{Setup, wait};

/// A declaration as in today's tutorials succeeds, which needs equal arguments.
#[tokio::test]
async fn missing_queue_is_declared_as_durable_quorum() {
    let setup = Setup::new().await;
    let _worker = setup.worker(&[]).await;
    setup
        .broker
        .declare(QUEUE, Declared::DurableQuorum)
        .await
        .unwrap();
    let otherwise = setup
        .broker
        .declare(QUEUE, Declared::ClassicTransient)
        .await
        .unwrap_err();
    assert!(
        otherwise.to_string().contains("PRECONDITION"),
        "{otherwise}"
    );
}

#[tokio::test]
async fn missing_queue_is_declared_as_classic_on_request() {
    let setup = Setup::new().await;
    let _worker = setup.worker(&["--declare", "classic"]).await;
    setup
        .broker
        .declare(QUEUE, Declared::ClassicTransient)
        .await
        .unwrap();
}

#[tokio::test]
async fn missing_queue_is_waited_for_with_declare_never() {
    let setup = Setup::new().await;
    let mut worker = setup.rpcache(&["worker", "--declare", "never"]).start();
    worker.says(QUEUE).await;
    assert_eq!(setup.broker.look_at(QUEUE).await, None);
    assert!(worker.is_running());
    setup
        .broker
        .declare(QUEUE, Declared::DurableQuorum)
        .await
        .unwrap();
    wait::wait_until("the worker consumes", async || {
        setup.consumers(QUEUE).await == 1
    })
    .await;
    setup.caller().await.is_served().await;
}

#[tokio::test]
async fn queue_that_exists_otherwise_is_used_with_one_warning() {
    let setup = Setup::new().await;
    setup
        .broker
        .declare(QUEUE, Declared::ClassicTransient)
        .await
        .unwrap();
    let worker = setup.worker(&[]).await;
    setup.caller().await.is_served().await;
    let finished = worker.terminate().await;
    let warnings = finished.stderr.lines().filter(|line| line.contains("WARN"));
    assert_eq!(warnings.count(), 1, "{}", finished.stderr);
}

#[tokio::test]
async fn another_queue_is_served_with_the_option_queue() {
    let setup = Setup::new().await;
    let program = setup.rpcache(&["worker", "--queue", "fib.experimental"]);
    let _worker = program.start();
    wait::wait_until("the worker consumes", async || {
        setup.consumers("fib.experimental").await == 1
    })
    .await;
    setup
        .call(&["30", "--queue", "fib.experimental"])
        .await
        .answers("832040\n");
    assert_eq!(setup.broker.look_at(QUEUE).await, None);
}

#[tokio::test]
async fn worker_declares_its_queue_again_when_it_is_deleted() {
    let setup = Setup::new().await;
    let _worker = setup.worker(&[]).await;
    setup.broker.delete(QUEUE).await;
    wait::wait_until("the worker consumes again", async || {
        setup.consumers(QUEUE).await == 1
    })
    .await;
    setup.caller().await.is_served().await;
}
