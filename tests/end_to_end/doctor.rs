//! `rpcache doctor`: a healthy set-up, and broken ones, each reported by its check and with a remedy.

mod broker;
mod cache;
mod connection;
mod report;

use self::report::{examine, scrubbed};
use crate::support::Setup;
use crate::support::amqp::{Declared, QUEUE};
use crate::support::ports::SilentPeer;
use crate::support::process::{Process, Program};
use crate::support::redis::Redis;
use crate::support::wait::wait_until;

const SECRET: &str = "s3cret";
const DEAD: &str = "rpc_queue.dead";

/// A set-up with bounded memory, a dead-letter queue, and a worker that consumes both queues.
async fn healthy() -> (Setup, Process) {
    let setup = prepared().await;
    let worker = serving(&setup, setup.rpcache(&["worker"])).await;
    (setup, worker)
}

/// The healthy set-up without a worker.
async fn prepared() -> Setup {
    let setup = Setup::new().await;
    bound(&setup.redis).await;
    for queue in [QUEUE, DEAD] {
        let declared = setup.broker.declare(queue, Declared::DurableQuorum);
        declared.await.unwrap();
    }
    setup
}

async fn bound(redis: &Redis) {
    let settings = [("maxmemory", "100mb"), ("maxmemory-policy", "allkeys-lfu")];
    for (name, value) in settings {
        redis.run::<()>(&["CONFIG", "SET", name, value]).await;
    }
}

async fn serving(setup: &Setup, worker: Program) -> Process {
    let worker = setup.serving(worker).await;
    wait_until("the worker consumes dead letters", async || {
        setup.consumers(DEAD).await == 1
    })
    .await;
    worker
}

#[tokio::test]
async fn healthy_set_up_is_ok() {
    let (setup, _worker) = healthy().await;
    let finished = setup.rpcache(&["doctor"]).run().await;
    assert_eq!((finished.code, finished.stderr.as_str()), (Some(0), ""));
    let mut text = scrubbed(&setup, &finished.stdout);
    for name in ["RabbitMQ ", "redis-version     "] {
        let at = text.find(name).unwrap() + name.len();
        let end = at + text[at..].find('\n').unwrap();
        text.replace_range(at..end, "VERSION");
    }
    let expected = "\
ok       amqp-url          amqp://guest@127.0.0.1:AMQP/VHOST
ok       amqp-name         127.0.0.1 is an address
ok       amqp-port         127.0.0.1:AMQP is open
ok       amqp-encryption   not needed: the server is this machine
ok       amqp-protocol     RabbitMQ VERSION
ok       amqp-login        as guest
ok       amqp-vhost        VHOST
ok       amqp-nodes        127.0.0.1:AMQP
ok       amqp-rights       requests can be published
ok       queue             quorum, durable
ok       consumers         rpc_queue: 1 consumer, 0 waiting
ok       dead-letters      rpc_queue.dead: 1 consumer, 0 waiting
ok       redis-url         redis://127.0.0.1:REDIS/0
ok       redis-name        127.0.0.1 is an address
ok       redis-port        127.0.0.1:REDIS is open
ok       redis-encryption  not needed: the server is this machine
ok       redis-protocol    Redis
ok       redis-login       as default
ok       redis-version     VERSION
ok       redis-rights      all that a client and a worker need
ok       redis-memory      limited to 104 MB, allkeys-lfu
ok       call              a worker answered in N ms
ok       hit               stored by the call, then found in N ms
23 ok, 0 warnings, 0 failures, 0 skipped
";
    assert_eq!(text, expected);
    // The first call bypasses the cache, and the second one stores its answer.
    assert_eq!(setup.redis.keys().await, ["fib:30"]);
    assert_eq!(setup.redis.get("fib:30").await.as_deref(), Some("832040"));
    let queues = [QUEUE, DEAD].map(|queue| setup.broker.look_at(queue));
    for queue in queues {
        assert_eq!(queue.await, Some((0, 1)));
    }
}

#[tokio::test]
async fn least_rights_are_enough() {
    let (setup, _worker) = healthy().await;
    let least = ["least", "on", ">least", "~fib:*", "+get", "+mget", "+set"];
    setup
        .redis
        .run::<()>(&[&["ACL", "SETUSER"], &least[..]].concat())
        .await;
    let by_least = |doctor: Program| {
        doctor
            .env("AMQP_URL", &setup.vhost.url_of("client"))
            .env("REDIS_URL", &setup.redis.url_with("least:least@"))
    };
    examine(&setup, by_least, 0).await.is(
        "warning redis-rights: enough for clients; workers lack ~{fib:* +eval +unlink +incrby \
         +pexpire ~rpcache:worker:*\n\
         -> redis-cli ACL SETUSER least '~{fib:*' +eval +unlink +incrby +pexpire '~rpcache:worker:*'\n\
         -> or nothing, if no worker uses this login\n",
        &[("unknown: this login may not run INFO", &["redis-memory"])],
    );
}

#[tokio::test]
async fn set_up_is_ok_when_all_keys_are_stored_already() {
    let (setup, _worker) = healthy().await;
    setup.call(&["0..30"]).await;
    examine(&setup, |doctor| doctor, 0).await.is("", &[]);
}

#[tokio::test]
async fn checks_are_printed_at_once_and_an_interrupt_ends_it() {
    let setup = Setup::new().await;
    let silent = SilentPeer::start();
    let url = format!("amqp://127.0.0.1:{}", silent.port());
    let doctor = setup.rpcache(&["doctor"]).env("AMQP_URL", &url).start();
    wait_until("the first checks are printed", async || {
        doctor.stdout().contains("is open\n")
    })
    .await;
    doctor.signal("INT");
    let finished = doctor.finish().await;
    assert_eq!(finished.code, Some(130), "{finished:#?}");
    assert!(!finished.stdout.contains("skipped"), "{finished:#?}");
    finished.has_one_clear_line("interrupted");
}
