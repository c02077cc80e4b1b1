//! What is wrong at the broker.

use lapin::types::{AMQPValue, FieldTable};

use super::told::{examine, scrubbed, told};
use super::{DEAD, bound, healthy, prepared, serving};
use crate::support::amqp::{Caller, Declared, QUEUE};
use crate::support::{ONE_AT_A_TIME, SLOW, Setup};

#[tokio::test]
async fn missing_right_to_publish_is_told() {
    let (setup, _worker) = healthy().await;
    let url = setup.vhost.url_of("mute");
    let told = examine(&setup, |doctor| doctor.env("AMQP_URL", &url), 3).await;
    told.is(
        "failure amqp-rights: requests cannot be published: ACCESS_REFUSED - access to exchange \
         'amq.default' in vhost 'VHOST' refused for user 'mute'\n\
         -> rabbitmqctl set_permissions -p VHOST mute \\\n\
         ->  '^amq\\.gen-.*$' '^amq\\.default$' '^amq\\.gen-.*$'\n",
        &[("amqp-rights", &["call", "hit"])],
    );
}

#[tokio::test]
async fn missing_queue_is_told_and_not_created() {
    let setup = Setup::new().await;
    bound(&setup.redis).await;
    let told = examine(&setup, |doctor| doctor, 3).await;
    told.is(
        "failure queue: there is no queue rpc_queue\n\
         -> start a worker, which creates it: rpcache worker\n\
         warning dead-letters: there is no queue rpc_queue.dead\n\
         -> declare rpc_queue.dead, and set a policy that dead-letters messages of rpc_queue to it, as \
         docker/rabbitmq/definitions.json does; then workers answer these messages\n",
        &[("queue", &["consumers", "call", "hit"])],
    );
    for queue in [QUEUE, DEAD] {
        assert_eq!(setup.broker.look_at(queue).await, None);
    }
}

/// What it declares to see how a queue is declared: where there is none, the broker refuses that.
#[tokio::test]
async fn declaration_that_compares_creates_nothing() {
    let setup = Setup::new().await;
    let mut arguments = FieldTable::default();
    for (name, value) in [("x-queue-type", "quorum"), ("x-max-age", "none")] {
        arguments.insert(name.into(), AMQPValue::LongString(value.into()));
    }
    let durable = lapin::options::QueueDeclareOptions::durable();
    let channel = &setup.broker.channel;
    let declared = channel.queue_declare(QUEUE.into(), durable, arguments);
    let error = declared.await.unwrap_err().to_string();
    assert!(error.contains("invalid arg 'x-max-age'"), "{error}");
    assert_eq!(setup.broker.look_at(QUEUE).await, None);
}

#[tokio::test]
async fn queue_that_is_exclusive_to_another_program_is_told() {
    let setup = Setup::new().await;
    bound(&setup.redis).await;
    let _other = Caller::with_named_queue(&setup.vhost.url(), QUEUE).await;
    let told = examine(&setup, |doctor| doctor, 3).await;
    let expected = "failure queue: rpc_queue is exclusive to another program's connection\n\
         -> stop the program that owns rpc_queue: rabbitmqctl list_queues -p VHOST name owner_pid\n\
         -> or give rpcache another --queue (RPCACHE_QUEUE)\n";
    assert!(told.troubles.starts_with(expected), "{}", told.troubles);
}

#[tokio::test]
async fn queue_without_a_consumer_is_told() {
    let setup = prepared().await;
    let told = examine(&setup, |doctor| doctor, 3).await;
    told.is(
        "failure consumers: rpc_queue: 0 consumers, 0 waiting\n\
         -> start a worker: rpcache worker\n\
         warning dead-letters: rpc_queue.dead: 0 consumers, 0 waiting\n\
         -> start or restart the workers: they look for rpc_queue.dead when they connect, and need the right \
         to read it\n",
        &[("consumers", &["call", "hit"])],
    );
}

#[tokio::test]
async fn backlog_is_told() {
    let (setup, worker) = healthy().await;
    worker.terminate().await;
    let caller = setup.caller().await;
    let options = [&["worker", "--prefetch", "1"], &ONE_AT_A_TIME[..]].concat();
    let _worker = serving(&setup, setup.rpcache(&options)).await;
    for n in SLOW - 1010..SLOW {
        caller
            .send(n.to_string().as_bytes(), caller.properties())
            .await;
    }
    let doctor = setup
        .rpcache(&["doctor", "--json", "--timeout", "100ms"])
        .run()
        .await;
    assert_eq!(doctor.code, Some(3), "{doctor:#?}");
    let troubles = told(&scrubbed(&setup, &doctor.stdout)).troubles;
    let (backlog, call) = troubles.split_once("failure call: ").unwrap();
    assert!(
        backlog.starts_with("warning consumers: rpc_queue: 1 consumer, 100"),
        "{backlog}"
    );
    assert!(
        backlog.ends_with("-> start more workers: rpcache worker\n"),
        "{backlog}"
    );
    let expected =
        "no answer within N ms\n-> see the log of the workers; --timeout gives them longer\n";
    assert_eq!(call, expected);
}

#[tokio::test]
async fn declarations_are_told() {
    let setup = prepared().await;
    let durable = lapin::options::QueueDeclareOptions::durable();
    let channel = &setup.broker.channel;
    setup.broker.delete(QUEUE).await;
    let declared = channel.queue_declare(QUEUE.into(), durable, FieldTable::default());
    declared.await.unwrap();
    let worker = serving(&setup, setup.rpcache(&["worker"])).await;
    let doctor = setup.rpcache(&["doctor"]).run().await;
    assert!(
        doctor
            .stdout
            .contains("ok       queue             classic, durable\n"),
        "{doctor:#?}"
    );
    worker.terminate().await;
    setup.broker.delete(QUEUE).await;
    setup
        .broker
        .declare(QUEUE, Declared::ClassicTransient)
        .await
        .unwrap();
    let _worker = serving(&setup, setup.rpcache(&["worker"])).await;
    examine(&setup, |doctor| doctor, 0).await.is(
        "warning queue: classic, not durable: it and its requests are lost when the broker restarts\n\
         -> if no tutorial program needs this kind of queue, stop the workers, and\n\
         -> rabbitmqctl delete_queue -p VHOST rpc_queue --if-empty\n\
         -> rpcache worker\n",
        &[],
    );
}
