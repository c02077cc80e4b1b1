//! TLS to real servers, with certificates made for the run: what is accepted, and how each fault is reported.
//! Also passwords from files.

mod login;
mod refused;

use crate::support::certificates::{file, in_front_of};
use crate::support::process::Program;
use crate::support::redis::Redis;
use crate::support::wait::wait_until;
use crate::support::{Setup, ports};

/// A Redis with a TLS port, the certificate `name`, and with or without the requirement of a client certificate.
struct TlsRedis {
    redis: Redis,
    port: u16,
}

impl TlsRedis {
    fn start(name: &str, auth_clients: &str) -> Self {
        Self::start_with(name, auth_clients, &[])
    }

    fn start_with(name: &str, auth_clients: &str, options: &[&str]) -> Self {
        let [port] = ports::free();
        let (number, ca) = (port.to_string(), file("ca.pem"));
        let (certificate, key) = (file(&format!("{name}.pem")), file(&format!("{name}.key")));
        let tls = [
            &["--tls-port", &number][..],
            &["--tls-ca-cert-file", &ca],
            &["--tls-cert-file", &certificate],
            &["--tls-key-file", &key],
            &["--tls-auth-clients", auth_clients],
        ];
        Self {
            redis: Redis::start_with(&[&tls.concat()[..], options].concat()),
            port,
        }
    }

    fn url(&self) -> String {
        format!("rediss://localhost:{}", self.port)
    }
}

/// The URL of the test's vhost by TLS, where a client certificate is required.
fn amqps(setup: &Setup) -> String {
    let (port, vhost) = (setup.vhost.tls_port(), setup.vhost.name());
    format!("amqps://guest:guest@localhost:{port}/{vhost}")
}

/// Trusts the CA of the run.
fn trusting(program: Program) -> Program {
    program.env("RPCACHE_TLS_CA", &file("ca.pem"))
}

/// Uses this client certificate.
fn showing(program: Program, name: &str) -> Program {
    program
        .env("RPCACHE_TLS_CERT", &file(&format!("{name}.pem")))
        .env("RPCACHE_TLS_KEY", &file(&format!("{name}.key")))
}

/// `rpcache` with everything that both servers require.
fn encrypted(setup: &Setup, redis: &TlsRedis, arguments: &[&str]) -> Program {
    let program = Program::rpcache(arguments)
        .env("AMQP_URL", &amqps(setup))
        .env("REDIS_URL", &redis.url());
    showing(trusting(program), "client")
}

#[tokio::test]
async fn worker_and_calls_use_tls_with_client_certificates() {
    let setup = Setup::new().await;
    let redis = TlsRedis::start("server", "yes");
    let worker = setup.serving(encrypted(&setup, &redis, &["worker"])).await;
    let call = encrypted(&setup, &redis, &["call", "30"]).run().await;
    call.answers("832040\n");
    assert_eq!(call.stderr, "");
    assert_eq!(redis.redis.get("fib:30").await.as_deref(), Some("832040"));
    let hit = encrypted(&setup, &redis, &["call", "30", "--json"]);
    let hit = hit.run().await;
    assert!(hit.stdout.contains(r#""source":"cache""#), "{hit:#?}");
    // A long-lived client: two connections, and a callback queue.
    let many = encrypted(&setup, &redis, &["call", "100000..100020", "--json"]);
    let many = many.run().await;
    assert_eq!((many.code, many.stdout.lines().count()), (Some(0), 21));
    let get = encrypted(&setup, &redis, &["cache", "get", "30"]);
    get.run().await.answers("832040\n");
    let ended = setup.assert_settled(worker).await;
    assert!(!ended.stderr.contains("WARN"), "{ended:#?}");
    let shown = format!("amqps://guest@localhost:{}", setup.vhost.tls_port());
    assert!(ended.stderr.contains(&shown), "{ended:#?}");
}

/// The options do what the variables do, and a client certificate is needed only where it is required.
#[tokio::test]
async fn options_do_what_variables_do() {
    let setup = Setup::new().await;
    let redis = TlsRedis::start("server", "no");
    let worker = setup
        .rpcache(&["worker"])
        .env("REDIS_URL", &redis.redis.url());
    let _worker = setup.serving(worker).await;
    let front = in_front_of(setup.vhost.port(), "server").await;
    let amqp = format!("amqps://localhost:{front}/{}", setup.vhost.name());
    let (redis, ca) = (redis.url(), file("ca.pem"));
    for source in ["computed", "cache"] {
        let arguments = [
            &["call", "30", "--json", "--tls-ca", &ca][..],
            &["--amqp-url", &amqp, "--redis-url", &redis],
        ];
        let call = Program::rpcache(&arguments.concat()).run().await;
        let expected = format!(r#""source":"{source}""#);
        assert!(call.stdout.contains(&expected), "{call:#?}");
        assert_eq!(call.stderr, "");
    }
}

/// The system's CAs are trusted if no other one is named.
#[tokio::test]
async fn system_cas_are_trusted() {
    let redis = TlsRedis::start("server", "no");
    redis.redis.set("fib:30", "832040").await;
    let get = Program::rpcache(&["cache", "get", "30"]).env("REDIS_URL", &redis.url());
    let get = get.env("SSL_CERT_FILE", &file("ca.pem"));
    get.run().await.answers("832040\n");
}

#[tokio::test]
async fn invalidations_arrive_by_tls() {
    let redis = TlsRedis::start("server", "yes");
    redis.redis.set("fib:30", "832040").await;
    let call = ["call", "-", "--keep-going", "--local-cache", "1MB"];
    let mut call = showing(trusting(Program::rpcache(&call)), "client")
        .env("AMQP_URL", "amqp://127.0.0.1:1")
        .env("REDIS_URL", &redis.url())
        .fed()
        .start();
    let subscribed = async || {
        let counted: (String, i64) = redis
            .redis
            .run(&["PUBSUB", "NUMSUB", "rpcache:removed"])
            .await;
        counted.1 == 1
    };
    wait_until("it is subscribed", subscribed).await;
    // A lookup on a busy machine may exceed the cache budget.
    wait_until("it is answered", async || {
        call.feed("30\n").await;
        call.stdout().contains("30\t832040\n")
    })
    .await;
}

#[tokio::test]
async fn doctor_accepts_tls() {
    let setup = Setup::new().await;
    let redis = TlsRedis::start("server", "yes");
    let _worker = setup.serving(encrypted(&setup, &redis, &["worker"])).await;
    let doctor = encrypted(&setup, &redis, &["doctor"]).run().await;
    assert_eq!(doctor.code, Some(0), "{doctor:#?}");
    for (check, port) in [("amqp", setup.vhost.tls_port()), ("redis", redis.port)] {
        let encryption = format!("{check}-encryption");
        let line = format!("ok       {encryption:<18}localhost:{port} uses TLS 1.3\n");
        assert!(doctor.stdout.contains(&line), "{}", doctor.stdout);
    }
}
