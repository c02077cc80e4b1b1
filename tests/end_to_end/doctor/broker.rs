//! Doctor checks of the broker: rights, queues, consumers, backlog.

use lapin::types::{AMQPValue, FieldTable};

use super::report::{examine, parse, scrubbed};
use super::{DEAD, bound, healthy, prepared, serving};
use crate::support::amqp::{Caller, Declared, QUEUE};
use crate::support::{ONE_AT_A_TIME, Setup, VERY_SLOW};

#[tokio::test]
async fn missing_right_to_publish_is_a_failure() {
    let (setup, _worker) = healthy().await;
    let url = setup.vhost.url_of("mute");
    let report = examine(&setup, |doctor| doctor.env("AMQP_URL", &url), 3).await;
    report.is(
        "failure amqp-rights: requests cannot be published: ACCESS_REFUSED - access to exchange \
         'amq.default' in vhost 'VHOST' refused for user 'mute'\n\
         -> rabbitmqctl set_permissions -p VHOST mute \\\n\
         ->  '^amq\\.gen-.*$' '^amq\\.default$' '^amq\\.gen-.*$'\n",
        &[("amqp-rights", &["call", "hit"])],
    );
}

#[tokio::test]
async fn missing_queue_is_a_failure_and_not_created() {
    let setup = Setup::new().await;
    bound(&setup.redis).await;
    let report = examine(&setup, |doctor| doctor, 3).await;
    report.is(
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

/// The doctor learns a queue's arguments by a declaration that the broker refuses if there is no queue.
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
async fn queue_that_is_exclusive_to_another_program_is_a_failure() {
    let setup = Setup::new().await;
    bound(&setup.redis).await;
    let _other = Caller::with_named_queue(&setup.vhost.url(), QUEUE).await;
    let report = examine(&setup, |doctor| doctor, 3).await;
    let expected = "failure queue: rpc_queue is exclusive to another program's connection\n\
         -> stop the program that owns rpc_queue: rabbitmqctl list_queues -p VHOST name owner_pid\n\
         -> or give rpcache another --queue (RPCACHE_QUEUE)\n";
    assert!(report.problems.starts_with(expected), "{}", report.problems);
}

#[tokio::test]
async fn queue_without_a_consumer_is_a_failure() {
    let setup = prepared().await;
    let report = examine(&setup, |doctor| doctor, 3).await;
    report.is(
        "failure consumers: rpc_queue: 0 consumers, 0 waiting\n\
         -> start a worker: rpcache worker\n\
         warning dead-letters: rpc_queue.dead: 0 consumers, 0 waiting\n\
         -> start or restart the workers: they look for rpc_queue.dead when they connect, and need the right \
         to read it\n",
        &[("consumers", &["call", "hit"])],
    );
}

#[tokio::test]
async fn backlog_is_a_warning() {
    let (setup, worker) = healthy().await;
    worker.terminate().await;
    let caller = setup.caller().await;
    let options = [&["worker", "--prefetch", "1"], &ONE_AT_A_TIME[..]].concat();
    let _worker = serving(&setup, setup.rpcache(&options)).await;
    for n in VERY_SLOW - 1010..VERY_SLOW {
        caller
            .send(n.to_string().as_bytes(), caller.properties())
            .await;
    }
    let doctor = setup
        .rpcache(&["doctor", "--json", "--timeout", "100ms"])
        .run()
        .await;
    assert_eq!(doctor.code, Some(3), "{doctor:#?}");
    let problems = parse(&scrubbed(&setup, &doctor.stdout)).problems;
    let (backlog, call) = problems.split_once("failure call: ").unwrap();
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
async fn kind_of_queue_is_shown() {
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
