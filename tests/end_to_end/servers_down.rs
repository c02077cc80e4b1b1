//! A broker that is down, silent, or refuses logins; connections that are cut; a queue without workers.

use crate::support::amqp::{Declared, QUEUE};
use crate::support::ports::{ClosedPort, SilentPeer};
use crate::support::process::Finished;
use crate::support::{ONE_AT_A_TIME, Setup, VERY_SLOW, wait};
use std::time::Duration;

const SECRET: &str = "s3cret";

/// The timeout of the calls, and their limit on a busy machine.
const TIMEOUT: [&str; 2] = ["--timeout", "3s"];
const IN_TIME: Duration = Duration::from_secs(5);

async fn call(setup: &Setup, amqp_url: &str) -> Finished {
    let program = setup
        .rpcache(&[&["call", "30"][..], &TIMEOUT].concat())
        .env("AMQP_URL", amqp_url);
    let finished = program.run().await;
    assert!(finished.took < IN_TIME, "{finished:#?}");
    assert!(
        !finished.stderr.contains(SECRET),
        "the password is shown: {finished:#?}"
    );
    finished
}

/// Nothing listens on localhost: the message says how to start the servers.
#[tokio::test]
async fn unreachable_broker_is_reported_with_its_address() {
    let setup = Setup::new().await;
    let closed = ClosedPort::reserve();
    let url = format!("amqp://user:{SECRET}@127.0.0.1:{}", closed.port());
    let finished = call(&setup, &url).await;
    finished.refuses(3, &format!("127.0.0.1:{}", closed.port()));
    assert!(finished.stderr.contains("start"), "{finished:#?}");
}

#[tokio::test]
async fn unknown_host_is_reported() {
    // `.invalid` is reserved for names that do not exist.
    call(&Setup::new().await, "amqp://unknown.invalid")
        .await
        .refuses(3, "unknown.invalid");
}

#[tokio::test]
async fn silent_broker_is_given_up_in_time() {
    let silent = SilentPeer::start();
    let finished = call(
        &Setup::new().await,
        &format!("amqp://user:{SECRET}@127.0.0.1:{}", silent.port()),
    )
    .await;
    assert!(matches!(finished.code, Some(3 | 124)), "{finished:#?}");
    finished.has_one_clear_line("");
}

#[tokio::test]
async fn address_of_another_server_is_reported() {
    let setup = Setup::new().await;
    let redis = setup.redis.url().replace("redis://", "amqp://");
    let finished = call(&setup, &redis).await;
    assert!(matches!(finished.code, Some(3 | 124)), "{finished:#?}");
    finished.has_one_clear_line("");
}

#[tokio::test]
async fn refused_login_is_reported() {
    let setup = Setup::new().await;
    for user in ["guest", "unknown"] {
        call(&setup, &setup.vhost.url_with(user, SECRET))
            .await
            .refuses(3, user);
    }
}

#[tokio::test]
async fn wrong_vhost_is_reported() {
    let setup = Setup::new().await;
    let url = format!(
        "amqp://guest:guest@127.0.0.1:{}/nowhere",
        setup.vhost.port()
    );
    call(&setup, &url).await.refuses(3, "nowhere");
}

/// `amqp://host/` names the vhost with the empty name, which is rarely meant.
#[tokio::test]
async fn vhost_with_the_empty_name_is_reported() {
    let setup = Setup::new().await;
    let finished = call(
        &setup,
        &format!("amqp://guest:guest@127.0.0.1:{}/", setup.vhost.port()),
    )
    .await;
    assert!(matches!(finished.code, Some(2 | 3)), "{finished:#?}");
    finished.has_one_clear_line("vhost");
}

#[tokio::test]
async fn missing_queue_is_reported_at_once() {
    let setup = Setup::new().await;
    let finished = call(&setup, &setup.vhost.url()).await;
    finished.refuses(3, QUEUE);
    assert!(finished.took < Duration::from_secs(2), "{finished:#?}");
    assert_eq!(
        setup.broker.look_at(QUEUE).await,
        None,
        "clients create no queue"
    );
}

#[tokio::test]
async fn queue_without_a_consumer_is_reported() {
    let setup = Setup::new().await;
    setup
        .broker
        .declare(QUEUE, Declared::DurableQuorum)
        .await
        .unwrap();
    call(&setup, &setup.vhost.url()).await.refuses(3, QUEUE);
}

#[tokio::test]
async fn json_has_the_code_of_the_error() {
    let setup = Setup::new().await;
    let closed = ClosedPort::reserve();
    let urls = [
        (setup.vhost.url_by(closed.port()), "unreachable"),
        (setup.vhost.url_with("guest", SECRET), "refused"),
        (setup.vhost.url(), "nobody-serving"),
    ];
    for (url, code) in urls {
        let program = setup.rpcache(&[&["call", "30", "--json"][..], &TIMEOUT].concat());
        let finished = program.env("AMQP_URL", &url).run().await;
        assert_eq!(finished.code, Some(3), "{finished:#?}");
        let line: serde_json::Value = serde_json::from_str(&finished.stdout).unwrap();
        assert_eq!(line["argument"], "30");
        assert_eq!(line["error"]["code"], code, "{line}");
        assert!(!format!("{finished:?}").contains(SECRET), "{finished:#?}");
    }
}

#[tokio::test]
async fn worker_ends_when_its_login_or_vhost_is_refused() {
    let setup = Setup::new().await;
    let nowhere = format!(
        "amqp://guest:guest@127.0.0.1:{}/nowhere",
        setup.vhost.port()
    );
    for (url, reason) in [
        (setup.vhost.url_with("guest", SECRET), "guest"),
        (nowhere, "nowhere"),
    ] {
        let finished = setup.rpcache(&["worker"]).env("AMQP_URL", &url).run().await;
        assert_eq!(finished.code, Some(3), "{finished:#?}");
        let last = finished.stderr.lines().last().unwrap_or_default();
        assert!(last.contains(reason), "{finished:#?}");
        assert!(!finished.stderr.contains(SECRET), "{finished:#?}");
    }
}

#[tokio::test]
async fn worker_waits_for_an_unreachable_broker() {
    let setup = Setup::new().await;
    let closed = ClosedPort::reserve();
    let port = closed.port();
    let url = setup.vhost.url_by(port);
    let mut worker = setup.rpcache(&["worker"]).env("AMQP_URL", &url).start();
    worker.says(&port.to_string()).await;
    assert!(worker.is_running());
    let _open = closed.forward_to(setup.vhost.port());
    wait::wait_until("the worker consumes", async || {
        setup.consumers(QUEUE).await == 1
    })
    .await;
    setup.caller().await.is_served().await;
}

#[tokio::test]
async fn worker_reconnects_when_its_connections_are_cut() {
    let setup = Setup::new().await;
    let forwarder = ClosedPort::reserve().forward_to(setup.vhost.port());
    let program = setup
        .rpcache(&["worker"])
        .env("AMQP_URL", &setup.vhost.url_by(forwarder.port()));
    let worker = setup.serving(program).await;
    for _ in 0..3 {
        forwarder.cut();
        wait::wait_until("it is gone", async || setup.consumers(QUEUE).await == 0).await;
        wait::wait_until("it is back", async || setup.consumers(QUEUE).await == 1).await;
        setup.caller().await.is_served().await;
    }
    assert_eq!(worker.terminate().await.code, Some(0));
}

/// The request is sent again on a new connection.
#[tokio::test]
async fn call_survives_when_its_connection_is_cut() {
    let setup = Setup::new().await;
    let forwarder = ClosedPort::reserve().forward_to(setup.vhost.port());
    let mut worker = setup.raw_worker().await;
    let call = setup
        .rpcache(&["call", "30"])
        .env("AMQP_URL", &setup.vhost.url_by(forwarder.port()))
        .start();
    worker.take().await;
    forwarder.cut();
    let again = worker.take().await;
    worker.reply(&again, "832040").await;
    call.finish().await.answers("832040\n");
}

#[tokio::test]
async fn calls_survive_when_all_connections_are_cut() {
    let setup = Setup::new().await;
    let forwarder = ClosedPort::reserve().forward_to(setup.vhost.port());
    let by_forwarder = |arguments: &[&str]| {
        let url = setup.vhost.url_by(forwarder.port());
        setup.rpcache(arguments).env("AMQP_URL", &url)
    };
    let options = [&["worker"], &ONE_AT_A_TIME[..]].concat();
    let _worker = setup.serving(by_forwarder(&options)).await;
    let (first, last) = (VERY_SLOW / 2, VERY_SLOW / 2 + 3);
    let call = by_forwarder(&["call", &format!("{first}..{last}"), "--timeout", "25s"]).start();
    wait::wait_until("the first is answered", async || !call.stdout().is_empty()).await;
    forwarder.cut();
    let finished = call.finish().await;
    assert_eq!(finished.code, Some(0), "{finished:#?}");
    let asked: Vec<u64> = finished
        .stdout
        .lines()
        .map(|line| line.split('\t').next().unwrap().parse().unwrap())
        .collect();
    assert_eq!(asked, (first..=last).collect::<Vec<_>>());
}

#[tokio::test]
async fn timeout_holds_while_redis_is_silent() {
    let setup = Setup::new().await;
    let redis = SilentPeer::start();
    let call = setup
        .rpcache(&["call", "30", "--wait", "--timeout", "100ms"])
        .env("REDIS_URL", &format!("redis://127.0.0.1:{}", redis.port()));
    let finished = call.run().await;
    assert_eq!(finished.code, Some(124), "{finished:#?}");
    assert!(finished.stdout.is_empty(), "{finished:#?}");
    // The lookup is given up within the budget, with a log line, before the call's deadline.
    assert!(finished.stderr.contains("too late"), "{finished:#?}");
    assert!(finished.stderr.contains("100 ms"), "{finished:#?}");
    assert!(finished.took < Duration::from_millis(400), "{finished:#?}");
}

#[tokio::test]
async fn call_with_the_option_wait_waits_for_a_worker() {
    let setup = Setup::new().await;
    let call = setup.start_call(&["30", "--wait", "--timeout", "20s"]);
    let patience = Duration::from_millis(1500);
    assert!(
        tokio::time::timeout(
            patience,
            wait::wait_until("an end", async || { !call.stderr().is_empty() })
        )
        .await
        .is_err()
    );
    let _worker = setup.worker(&[]).await;
    call.finish().await.answers("832040\n");
}

#[tokio::test]
async fn another_node_is_used_when_one_is_down() {
    let setup = Setup::new().await;
    let closed = ClosedPort::reserve();
    let nodes = format!(
        "{},{}",
        setup.vhost.url_by(closed.port()),
        setup.vhost.url()
    );
    let by_both = |arguments: &[&str]| setup.rpcache(arguments).env("AMQP_URL", &nodes);
    let _worker = setup.serving(by_both(&["worker"])).await;
    for n in 30..40 {
        let call = by_both(&["call", &n.to_string(), "--no-cache"]).run().await;
        assert_eq!(call.code, Some(0), "{call:#?}");
    }
}
