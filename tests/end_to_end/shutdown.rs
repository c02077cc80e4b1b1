//! How a worker ends on signals: its requests are answered first, or go to the next worker.

use crate::support::amqp::{Caller, QUEUE};
use crate::support::{ONE_AT_A_TIME, SLOW, Setup, wait};
use std::time::Duration;

/// The limit that a worker gives itself to stop.
const GRACE: Duration = Duration::from_secs(10);

async fn send(caller: &Caller, n: u64) {
    caller
        .send(n.to_string().as_bytes(), caller.properties())
        .await;
}

#[tokio::test]
async fn idle_worker_ends_at_once() {
    let setup = Setup::new().await;
    for signal in ["TERM", "INT"] {
        let worker = setup.worker(&[]).await;
        worker.signal(signal);
        let finished = worker.finish().await;
        assert_eq!(
            (finished.code, finished.stdout.as_str()),
            (Some(0), ""),
            "{finished:#?}"
        );
    }
}

#[tokio::test]
async fn held_requests_are_answered_first() {
    let setup = Setup::new().await;
    let worker = setup.worker(&ONE_AT_A_TIME).await;
    let mut caller = setup.caller().await;
    send(&caller, SLOW).await;
    send(&caller, 5000).await;
    setup.all_taken().await;
    let finished = setup.assert_settled(worker).await;
    for _ in 0..2 {
        assert_eq!(
            caller.next_reply().await.header("x-rpcache-error"),
            None,
            "{finished:#?}"
        );
    }
}

#[tokio::test]
async fn requests_that_were_not_taken_stay_in_the_queue() {
    let setup = Setup::new().await;
    let worker = setup
        .worker(&[&ONE_AT_A_TIME[..], &["--prefetch", "1"]].concat())
        .await;
    let mut caller = setup.caller().await;
    for n in SLOW..SLOW + 3 {
        send(&caller, n).await;
    }
    let finished = worker.terminate().await;
    assert_eq!(finished.code, Some(0), "{finished:#?}");
    let left = setup.broker.look_at(QUEUE).await.unwrap().0;
    assert!(
        left >= 1,
        "no worker can have computed all of them: {finished:#?}"
    );

    // The next worker answers these, and none is answered twice.
    let next = setup.worker(&[]).await;
    let mut answered = std::collections::BTreeSet::new();
    for _ in 0..3 {
        let reply = caller.next_reply().await;
        assert_eq!(reply.header("x-rpcache-error"), None);
        assert!(
            answered.insert(
                reply
                    .properties
                    .correlation_id()
                    .as_ref()
                    .map(ToString::to_string)
            )
        );
    }
    setup.assert_settled(next).await;
}

#[tokio::test]
async fn second_signal_ends_the_worker_at_once() {
    let setup = Setup::new().await;
    // Longer than the grace, so that only the second signal can end it in time.
    let options = [&ONE_AT_A_TIME[..], &["--max-n", "100000000"]].concat();
    let worker = setup.worker(&options).await;
    let caller = setup.caller().await;
    send(&caller, 20_000_000).await;
    setup.all_taken().await;
    worker.signal("TERM");
    // The kernel merges two pending signals of one kind.
    worker.says("stopping").await;
    worker.signal("TERM");
    let finished = worker.finish().await;
    assert_eq!(finished.code, Some(130), "{finished:#?}");
    assert!(finished.took < GRACE, "{finished:#?}");
    wait::wait_until("the broker has noticed", async || {
        setup.consumers(QUEUE).await == 0
    })
    .await;
    // Another worker gets the request that was not answered.
    let _next = setup.worker(&[]).await;
    setup.all_taken().await;
}

#[tokio::test]
async fn request_of_a_killed_worker_goes_to_the_next() {
    let setup = Setup::new().await;
    let worker = setup.worker(&ONE_AT_A_TIME).await;
    let mut caller = setup.caller().await;
    send(&caller, SLOW).await;
    setup.all_taken().await;
    worker.signal("KILL");
    worker.finish().await;
    wait::wait_until("the broker has noticed", async || {
        setup.consumers(QUEUE).await == 0
    })
    .await;
    let _next = setup.worker(&[]).await;
    let reply = caller.next_reply().await;
    assert_eq!(
        (reply.header("x-rpcache-error"), reply.body.len()),
        (None, 83_595)
    );
}
