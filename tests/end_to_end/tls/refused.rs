//! Faults of TLS: each is reported in one line with a remedy, and nothing falls back to plain text.

use super::{TlsRedis, amqps, encrypted, showing, trusting};
use crate::support::Setup;
use crate::support::certificates::{file, in_front_of};
use crate::support::ports::SilentPeer;
use crate::support::process::Program;
use std::time::Duration;

/// An address, the options, and the expected message and remedy.
struct Case {
    url: String,
    prepare: fn(Program) -> Program,
    message: &'static str,
    remedy: &'static str,
}

fn unchanged(program: Program) -> Program {
    program
}

/// The system trusts another CA.
fn foreign_system_ca(program: Program) -> Program {
    program.env("SSL_CERT_FILE", &file("foreign-ca.pem"))
}

fn wrong_ca(program: Program) -> Program {
    showing(
        program.env("RPCACHE_TLS_CA", &file("other-ca.pem")),
        "client",
    )
}

fn correct(program: Program) -> Program {
    showing(trusting(program), "client")
}

fn foreign_client(program: Program) -> Program {
    showing(trusting(program), "stranger")
}

fn case(
    url: &str,
    prepare: fn(Program) -> Program,
    message: &'static str,
    remedy: &'static str,
) -> Case {
    Case {
        url: url.to_owned(),
        prepare,
        message,
        remedy,
    }
}

/// The cases that both servers share. The server at `tls` requires a client certificate.
fn common(tls: &str, expired: &str, early: &str) -> Vec<Case> {
    let by_address = tls.replace("localhost", "127.0.0.1");
    let (scheme, plain_scheme) = match tls.split_once("://") {
        Some(("amqps", _)) => ("amqps", "amqp"),
        _ => ("rediss", "redis"),
    };
    let unencrypted = tls.replacen(scheme, plain_scheme, 1);
    vec![
        case(
            tls,
            foreign_system_ca,
            "signed by no CA that this machine trusts",
            "--tls-ca (RPCACHE_TLS_CA) names",
        ),
        case(tls, wrong_ca, "signed by none of the given CAs", "--tls-ca"),
        case(
            &by_address,
            correct,
            "its certificate is for localhost, not for 127.0.0.1",
            "a name that the certificate has",
        ),
        case(expired, correct, "its certificate expired ", "renewed"),
        case(early, correct, "its certificate is not valid yet", "clock"),
        case(
            &unencrypted,
            unchanged,
            "the server requires TLS, and the address does not ask for it",
            if scheme == "amqps" {
                "write amqps://"
            } else {
                "write rediss://"
            },
        ),
        case(
            tls,
            trusting,
            "it requires a client certificate, and none is configured",
            "--tls-cert (RPCACHE_TLS_CERT)",
        ),
        case(
            tls,
            foreign_client,
            "it refuses the client certificate: ",
            "--tls-cert (RPCACHE_TLS_CERT)",
        ),
    ]
}

async fn broker_cases(setup: &Setup) -> Vec<Case> {
    let front = async |name| {
        let port = in_front_of(setup.vhost.port(), name).await;
        format!(
            "amqps://guest:guest@localhost:{port}/{}",
            setup.vhost.name()
        )
    };
    let (expired, early) = (front("expired").await, front("early").await);
    let plain = setup.vhost.url();
    let mut cases = common(&amqps(setup), &expired, &early);
    cases.push(case(
        &plain.replacen("amqp:", "amqps:", 1),
        correct,
        "the server does not use TLS",
        "5671",
    ));
    cases
}

#[tokio::test]
async fn call_reports_faults_of_the_brokers_tls() {
    let setup = Setup::new().await;
    for Case {
        url,
        prepare,
        message,
        remedy,
    } in broker_cases(&setup).await
    {
        let program = prepare(setup.rpcache(&["call", "30"])).env("AMQP_URL", &url);
        let finished = program.run().await;
        finished.refuses(3, message);
        finished.has_one_clear_line("no TLS with amqp");
        finished.has_one_clear_line(remedy);
        assert!(finished.took < Duration::from_secs(5), "{finished:#?}");
        assert!(!finished.stderr.contains("guest:guest"), "{finished:#?}");
    }
}

/// The worker ends at once, as after a refused login.
#[tokio::test]
async fn worker_does_not_start_with_an_untrusted_broker() {
    let setup = Setup::new().await;
    let worker = wrong_ca(setup.rpcache(&["worker"])).env("AMQP_URL", &amqps(&setup));
    worker
        .run()
        .await
        .refuses(3, "signed by none of the given CAs");
}

#[tokio::test]
async fn cache_reports_faults_of_redis_tls() {
    let redis = TlsRedis::start("server", "yes");
    let expired = TlsRedis::start("expired", "no");
    let early = TlsRedis::start("early", "no");
    for Case {
        url,
        prepare,
        message,
        remedy,
    } in common(&redis.url(), &expired.url(), &early.url())
    {
        let program = prepare(Program::rpcache(&["cache", "get", "30"]));
        let finished = program.env("REDIS_URL", &url).run().await;
        finished.refuses(3, message);
        finished.has_one_clear_line("no TLS with redis");
        finished.has_one_clear_line(remedy);
    }
}

/// A plain Redis waits for the end of a line, and a silent peer never replies: both are given up in time.
#[tokio::test]
async fn peer_without_tls_is_given_up_in_time() {
    let setup = Setup::new().await;
    let silent = SilentPeer::start();
    let url = format!("amqps://localhost:{}", silent.port());
    let call = correct(setup.rpcache(&["call", "30"])).env("AMQP_URL", &url);
    let call = call.run().await;
    call.refuses(3, "no answer to the TLS handshake within 5 s");
    assert!(call.took < Duration::from_secs(8), "{call:#?}");
    let url = setup.redis.url().replacen("redis:", "rediss:", 1);
    let get = correct(setup.rpcache(&["cache", "get", "30"])).env("REDIS_URL", &url);
    let get = get.run().await;
    get.refuses(3, "perhaps the server does not use TLS");
    assert!(get.took < Duration::from_secs(3), "{get:#?}");
}

/// Calls go on without a Redis that is not trusted, with one log line about the reason.
#[tokio::test]
async fn call_goes_on_without_an_untrusted_redis() {
    let setup = Setup::new().await;
    let _worker = setup.worker(&[]).await;
    let redis = TlsRedis::start("expired", "no");
    let call = trusting(setup.rpcache(&["call", "30"])).env("REDIS_URL", &redis.url());
    let call = call.run().await;
    call.answers("832040\n");
    call.has_one_clear_line("its certificate expired");
    assert!(call.stderr.contains("calls go on without the cache"));
    assert_eq!(redis.redis.keys().await, [""; 0]);
}

#[tokio::test]
async fn doctor_reports_faults_of_tls() {
    let setup = Setup::new().await;
    let redis = TlsRedis::start("expired", "no");
    let doctor = encrypted(&setup, &redis, &["doctor"])
        .env("RPCACHE_TLS_CA", &file("other-ca.pem"))
        .run()
        .await;
    assert_eq!(doctor.code, Some(3), "{doctor:#?}");
    let text = doctor
        .stdout
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ");
    let port = setup.vhost.tls_port();
    for line in [
        format!(
            "FAILURE amqp-encryption no TLS with localhost:{port}: its certificate is signed by \
             none of the given CAs -> --tls-ca (RPCACHE_TLS_CA) names the CA that signed it"
        ),
        "skipped amqp-protocol because of amqp-encryption".to_owned(),
        "skipped redis-login because of redis-encryption".to_owned(),
    ] {
        assert!(text.contains(&line), "{line}: {text}");
    }
    let plain = amqps(&setup).replacen("amqps", "amqp", 1);
    let doctor = setup
        .rpcache(&["doctor"])
        .env("AMQP_URL", &plain)
        .run()
        .await;
    let text = doctor
        .stdout
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ");
    let line = format!(
        "FAILURE amqp-protocol no TLS with localhost:{port}: the server requires TLS, and the \
         address does not ask for it -> write amqps:// in --amqp-url (AMQP_URL)"
    );
    assert!(text.contains(&line), "{text}");
}
