//! Refusals at the worker's start: temporary ones, after which it tries again, and a broker that cannot be used.

use crate::support::Setup;
use crate::support::amqp::{Broker, Declared, QUEUE};
use crate::support::rabbitmq::broker;
use crate::support::restricted::Restricted;
use crate::support::wait::wait_until;
use lapin::options::BasicConsumeOptions;
use lapin::types::FieldTable;

#[tokio::test]
async fn worker_waits_while_the_connection_limit_is_reached() {
    let setup = Setup::new().await;
    let vhost = setup.vhost.name();
    let limit = |set: &str| {
        let set = format!("rabbit_vhost_limit:{set}.");
        broker().evaluate(&set).unwrap();
    };
    // The test's own connection.
    limit(&format!(
        "set(<<\"{vhost}\">>, [{{<<\"max-connections\">>, 1}}], <<\"test\">>)"
    ));
    let mut worker = setup.rpcache(&["worker"]).start();
    worker.says("connection limit (1) is reached").await;
    worker.says("trying again").await;
    assert!(worker.is_running());
    let call = setup.call(&["30"]).await;
    call.refuses(3, "connection limit (1) is reached");
    limit(&format!("clear(<<\"{vhost}\">>, <<\"test\">>)"));
    wait_until("the worker serves", async || {
        setup.consumers(QUEUE).await == 1
    })
    .await;
    setup.caller().await.is_served().await;
    setup.assert_settled(worker).await;
}

#[tokio::test]
async fn worker_waits_while_another_consumer_is_exclusive() {
    let setup = Setup::new().await;
    let only = Broker::connect(&setup.vhost.url()).await;
    only.declare(QUEUE, Declared::ClassicTransient)
        .await
        .unwrap();
    let options = BasicConsumeOptions {
        exclusive: true,
        ..BasicConsumeOptions::default()
    };
    let consumer =
        only.channel
            .basic_consume(QUEUE.into(), "".into(), options, FieldTable::default());
    let consumer = consumer.await.unwrap();
    let mut worker = setup.rpcache(&["worker"]).start();
    worker.says("in exclusive use").await;
    worker.says("trying again").await;
    assert!(worker.is_running());
    drop(consumer);
    only.close().await;
    worker.says("serving fib").await;
    setup.caller().await.is_served().await;
    setup.assert_settled(worker).await;
}

#[tokio::test]
async fn broker_that_allows_one_channel_is_an_error_at_once() {
    let (broker, vhost) = Restricted::unused().await;
    let setup = Setup::over(vhost).await;
    broker.set_channel_max(1);
    for arguments in [&["worker"][..], &["call", "30"]] {
        let finished = setup.rpcache(arguments).run().await;
        assert_eq!(finished.code, Some(3), "{finished:#?}");
        let last = finished.stderr.lines().last().unwrap_or_default();
        assert!(last.contains("channel_max of 1"), "{finished:#?}");
        assert!(last.contains("rabbitmq.conf"), "{finished:#?}");
    }
    let doctor = setup.rpcache(&["doctor"]).run().await;
    assert_eq!(doctor.code, Some(3), "{doctor:#?}");
    assert!(doctor.stdout.contains("channel_max of 1"), "{doctor:#?}");
}
