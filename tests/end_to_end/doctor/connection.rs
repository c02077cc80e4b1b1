//! Doctor checks of the connections: addresses, names, ports, protocols, logins.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::report::examine;
use super::{SECRET, healthy};
use crate::support::ports::{ClosedPort, SilentPeer};
use crate::support::process::Program;

const AFTER_AMQP_PORT: [&str; 11] = [
    "amqp-encryption",
    "amqp-protocol",
    "amqp-login",
    "amqp-vhost",
    "amqp-nodes",
    "amqp-rights",
    "queue",
    "consumers",
    "dead-letters",
    "call",
    "hit",
];
const AFTER_AMQP_LOGIN: [&str; 8] = [
    "amqp-vhost",
    "amqp-nodes",
    "amqp-rights",
    "queue",
    "consumers",
    "dead-letters",
    "call",
    "hit",
];
const AFTER_REDIS_PORT: [&str; 7] = [
    "redis-encryption",
    "redis-protocol",
    "redis-login",
    "redis-version",
    "redis-rights",
    "redis-memory",
    "hit",
];

#[tokio::test]
async fn invalid_addresses_are_failures_and_other_checks_go_on() {
    let (setup, _worker) = healthy().await;
    let url = format!("amqps://user:{SECRET}@localhost/#insecure");
    let mut after_url = vec!["amqp-name", "amqp-port"];
    after_url.extend(AFTER_AMQP_PORT);
    let report = examine(&setup, |doctor| doctor.env("AMQP_URL", &url), 3).await;
    report.is(
        "failure amqp-url: #insecure is not supported: certificates are always checked; expected \
         something like amqp://user:password@host:5672/vhost\n\
         -> correct --amqp-url (AMQP_URL)\n",
        &[("amqp-url", &after_url)],
    );
    let url = format!("redis://:{SECRET}@localhost/x");
    let report = examine(&setup, |doctor| doctor.env("REDIS_URL", &url), 3).await;
    let first = "failure redis-url: the part after the host must be the number of a database; expected \
                 something like redis://user:password@host:6379/0\n\
                 -> correct --redis-url (REDIS_URL)\n";
    assert_eq!(report.problems, first);
}

#[tokio::test]
async fn name_without_an_address_is_a_failure() {
    let (setup, _worker) = healthy().await;
    let url = format!("amqp://user:{SECRET}@unknown.invalid");
    let report = examine(&setup, |doctor| doctor.env("AMQP_URL", &url), 3).await;
    let (trouble, remedy) = report.problems.split_once('\n').unwrap();
    // The system's message differs.
    assert!(
        trouble.starts_with("failure amqp-name: unknown.invalid: no address ("),
        "{trouble}"
    );
    let expected =
        "-> correct the host in --amqp-url (AMQP_URL), or this machine's name resolution\n";
    assert_eq!(remedy, expected);
    let skipped: Vec<_> = ["amqp-port"].into_iter().chain(AFTER_AMQP_PORT).collect();
    assert_eq!(report.skipped["amqp-name"], skipped);
    // One node with an address is enough.
    let both = format!("{},amqp://unknown.invalid", setup.vhost.url());
    let report = examine(&setup, |doctor| doctor.env("AMQP_URL", &both), 0).await;
    assert!(
        report
            .problems
            .starts_with("warning amqp-name: unknown.invalid: no address")
    );
}

#[tokio::test]
async fn closed_ports_are_failures() {
    let (setup, _worker) = healthy().await;
    let closed = ClosedPort::reserve();
    let url = format!("amqp://user:{SECRET}@127.0.0.1:{}", closed.port());
    let report = examine(&setup, |doctor| doctor.env("AMQP_URL", &url), 3).await;
    let expected = |check: &str, option: &str| {
        format!(
            "failure {check}: 127.0.0.1:{}: nothing is listening there\n\
             -> is it running? `scripts/services up` or `docker compose up -d` starts the servers\n\
             -> or correct the port in {option}\n",
            closed.port()
        )
    };
    report.is(
        &expected("amqp-port", "--amqp-url (AMQP_URL)"),
        &[("amqp-port", &AFTER_AMQP_PORT)],
    );
    let url = format!("redis://user:{SECRET}@127.0.0.1:{}", closed.port());
    let report = examine(&setup, |doctor| doctor.env("REDIS_URL", &url), 3).await;
    let expected = expected("redis-port", "--redis-url (REDIS_URL)");
    report.is(&expected, &[("redis-port", &AFTER_REDIS_PORT)]);
}

#[tokio::test]
async fn other_servers_are_failures() {
    let (setup, _worker) = healthy().await;
    let swapped = |doctor: Program| {
        doctor
            .env(
                "AMQP_URL",
                &setup.redis.url().replace("redis://", "amqp://"),
            )
            .env(
                "REDIS_URL",
                &format!("redis://127.0.0.1:{}", setup.vhost.port()),
            )
    };
    let report = examine(&setup, swapped, 3).await;
    // Redis waits for the end of the line that AMQP's protocol header begins.
    assert!(
        report.problems.starts_with(
            "failure amqp-protocol: 127.0.0.1:REDIS: it accepts connections, and does not answer: \
             not RabbitMQ, or it hangs\n\
             -> correct host and port in --amqp-url (AMQP_URL); RabbitMQ's own port is 5672\n\
             -> or restart the server, if it hangs\n\
             failure redis-protocol: 127.0.0.1:AMQP: what answers there is not Redis: \"AMQP"
        ),
        "{}",
        report.problems
    );
    assert!(report.problems.ends_with(
        "-> correct host and port in --redis-url (REDIS_URL); Redis' own port is 6379\n"
    ));
    assert_eq!(
        report.skipped["amqp-protocol"],
        [&["amqp-login"], &AFTER_AMQP_LOGIN[..]].concat()
    );
    let web = web_server().await;
    let url = format!("amqp://127.0.0.1:{web}");
    let report = examine(&setup, |doctor| doctor.env("AMQP_URL", &url), 3).await;
    let expected = format!(
        "failure amqp-protocol: 127.0.0.1:{web}: what answers there is not RabbitMQ: \"HTTP/1.1 400 \
         Bad Request\\r\\n\\r\\n\"\n"
    );
    assert!(
        report.problems.starts_with(&expected),
        "{}",
        report.problems
    );
}

/// Starts a server that replies to everything with HTTP 400; returns its port.
async fn web_server() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut peer, _)) = listener.accept().await {
            let mut received = Vec::new();
            while !received.ends_with(b"\r\n\r\n")
                && peer.read_buf(&mut received).await.is_ok_and(|n| n > 0)
            {}
            let _ = peer.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        }
    });
    port
}

#[tokio::test]
async fn refused_logins_and_vhosts_are_failures() {
    let (setup, _worker) = healthy().await;
    let url = setup.vhost.url_with("guest", SECRET);
    let report = examine(&setup, |doctor| doctor.env("AMQP_URL", &url), 3).await;
    report.is(
        "failure amqp-login: amqp://guest@127.0.0.1:AMQP/VHOST refuses: ACCESS_REFUSED - Login was \
         refused using authentication mechanism PLAIN. For details see the broker logfile.\n\
         -> correct user and password in --amqp-url (AMQP_URL), or on the broker:\n\
         -> rabbitmqctl change_password USER PASSWORD\n\
         -> (guest may log in from the broker's own machine only)\n",
        &[("amqp-login", &AFTER_AMQP_LOGIN)],
    );
    let url = format!(
        "amqp://guest:guest@127.0.0.1:{}/nowhere",
        setup.vhost.port()
    );
    let report = examine(&setup, |doctor| doctor.env("AMQP_URL", &url), 3).await;
    report.is(
        "failure amqp-vhost: amqp://guest@127.0.0.1:AMQP/nowhere refuses: NOT_ALLOWED - vhost \
         nowhere not found\n\
         -> correct the vhost in --amqp-url (AMQP_URL) (the vhost / is written %2f), or create it:\n\
         -> rabbitmqctl add_vhost VHOST\n\
         -> rabbitmqctl set_permissions -p VHOST USER '.*' '.*' '.*'\n",
        &[("amqp-vhost", &AFTER_AMQP_LOGIN[1..])],
    );
    setup
        .redis
        .run::<()>(&["CONFIG", "SET", "requirepass", "right"])
        .await;
    let url = setup.redis.url_with(&format!(":{SECRET}@"));
    let report = examine(&setup, |doctor| doctor.env("REDIS_URL", &url), 3).await;
    assert!(
        report.problems.starts_with("failure redis-login: "),
        "{}",
        report.problems
    );
    assert!(
        report
            .problems
            .ends_with("-> correct user and password in --redis-url (REDIS_URL)\n")
    );
    let none = examine(&setup, |doctor| doctor, 3).await;
    assert!(
        none.problems.contains("failure redis-login: "),
        "{}",
        none.problems
    );
    assert_eq!(
        none.skipped["redis-login"],
        ["redis-version", "redis-rights", "redis-memory", "hit"]
    );
}

#[tokio::test]
async fn servers_that_hang_do_not_delay_it_for_long() {
    let (setup, _worker) = healthy().await;
    let silent = SilentPeer::start();
    let url = format!("amqp://user:{SECRET}@127.0.0.1:{}", silent.port());
    setup.redis.freeze();
    let report = examine(&setup, |doctor| doctor.env("AMQP_URL", &url), 3).await;
    setup.redis.thaw();
    for (check, server) in [("amqp-protocol", "RabbitMQ"), ("redis-protocol", "Redis")] {
        let start = format!("failure {check}: 127.0.0.1:");
        let line = report
            .problems
            .lines()
            .find(|line| line.starts_with(&start));
        let line = line.unwrap_or_else(|| panic!("{}", report.problems));
        assert!(
            line.ends_with(&format!("and does not answer: not {server}, or it hangs")),
            "{line}"
        );
    }
}
