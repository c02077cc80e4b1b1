//! Passwords and certificates from files: they are not shown, and contradictions are refused.

use super::TlsRedis;
use crate::support::certificates::file;
use crate::support::process::Program;
use crate::support::redis::Redis;
use crate::support::{Setup, lifetime};

const SECRET: &str = "s3cret";

/// A file with this content.
fn holding(content: &str) -> String {
    let path = lifetime::folder("secret").join("file");
    std::fs::write(&path, content).unwrap();
    path.display().to_string()
}

/// Servers that require passwords, which the addresses do not contain.
struct Locked {
    setup: Setup,
    redis: Redis,
}

impl Locked {
    async fn new() -> Self {
        Self {
            setup: Setup::new().await,
            redis: Redis::start_with(&["--requirepass", SECRET]),
        }
    }

    fn rpcache(&self, arguments: &[&str]) -> Program {
        let amqp = self.setup.vhost.url_of("worker");
        Program::rpcache(arguments)
            .env("AMQP_URL", &amqp.replace("worker:worker@", "worker@"))
            .env("REDIS_URL", &self.redis.url())
    }
}

#[tokio::test]
async fn passwords_are_read_from_files_and_variables() {
    let locked = Locked::new().await;
    let _worker = locked.setup.worker(&[]).await;
    let (amqp, redis) = (holding("worker\n"), holding(&format!("{SECRET}\r\n")));
    let options = [
        "--amqp-password-file",
        &amqp,
        "--redis-password-file",
        &redis,
    ];
    let by_options = locked.rpcache(&[&["call", "30", "--json", "-vv"], &options[..]].concat());
    let by_variables = locked
        .rpcache(&["call", "30", "--json", "-vv"])
        .env("AMQP_PASSWORD", "worker")
        .env("REDIS_PASSWORD", SECRET);
    let by_file_variables = locked
        .rpcache(&["call", "30", "--json", "-vv"])
        .env("AMQP_PASSWORD_FILE", &amqp)
        .env("REDIS_PASSWORD_FILE", &redis);
    // The worker has another Redis, so the first call alone computes, and stores by itself.
    for program in [by_options, by_variables, by_file_variables] {
        let call = program.run().await;
        assert_eq!(call.code, Some(0), "{call:#?}");
        assert!(!call.stderr.contains("WARN"), "{call:#?}");
        assert!(!call.stderr.contains(SECRET), "{call:#?}");
    }
    let get = locked.rpcache(&["doctor", "--redis-password-file", &redis]);
    let doctor = get.env("AMQP_PASSWORD", "worker").run().await;
    assert!(
        doctor.stdout.contains("ok       redis-login"),
        "{doctor:#?}"
    );
    assert!(!format!("{doctor:?}").contains(SECRET), "{doctor:#?}");
}

#[tokio::test]
async fn different_passwords_are_refused_and_equal_ones_accepted() {
    let locked = Locked::new().await;
    let with_another = locked.redis.url_with(":other@");
    let file = holding(SECRET);
    let get = ["cache", "get", "30"];
    let from_file = [&get[..], &["--redis-password-file", &file]].concat();
    let refused = [
        locked.rpcache(&from_file).env("REDIS_URL", &with_another),
        locked
            .rpcache(&get)
            .env("REDIS_URL", &with_another)
            .env("REDIS_PASSWORD", SECRET),
        locked.rpcache(&from_file).env("REDIS_PASSWORD", "other"),
        locked
            .rpcache(&["worker"])
            .env("AMQP_URL", &locked.setup.vhost.url_with("worker", "other"))
            .env("AMQP_PASSWORD", SECRET),
        locked
            .rpcache(&["doctor"])
            .env("REDIS_URL", &with_another)
            .env("REDIS_PASSWORD", SECRET),
    ];
    for program in refused {
        let finished = program.run().await;
        finished.refuses(2, "leave one out");
        let is_hidden = !finished.stderr.contains(SECRET) && !finished.stderr.contains("other@");
        assert!(is_hidden, "{finished:#?}");
    }
    let same = locked.redis.url_with(&format!(":{SECRET}@"));
    let twice = locked.rpcache(&from_file).env("REDIS_URL", &same);
    let twice = twice.env("REDIS_PASSWORD", SECRET).run().await;
    twice.refuses(1, "not in the cache");
}

#[tokio::test]
async fn wrong_password_is_refused_without_being_shown() {
    let locked = Locked::new().await;
    let file = holding("s3cret-but-wrong");
    let get = ["cache", "get", "30", "--redis-password-file", &file];
    let get = locked.rpcache(&get).run().await;
    get.refuses(3, "authentication failed");
    assert!(!get.stderr.contains("s3cret"), "{get:#?}");
}

#[tokio::test]
async fn file_without_a_password_is_refused() {
    let long = "x".repeat(5000);
    for (content, reason) in [
        ("", "must be one line with the password"),
        ("\n", "must be one line with the password"),
        ("one\ntwo\n", "must be one line with the password"),
        (&long, "larger than"),
    ] {
        let file = holding(content);
        for flag in ["--redis-password-file", "--amqp-password-file"] {
            let refused = Program::rpcache(&["call", "30", flag, &file]).run().await;
            refused.refuses(2, reason);
            refused.has_one_clear_line(flag);
        }
    }
    let missing = ["call", "30", "--redis-password-file", "/nowhere/at/all"];
    let refused = Program::rpcache(&missing).run().await;
    refused.refuses(2, "No such file");
}

#[tokio::test]
async fn invalid_certificates_are_refused() {
    let text = holding("no certificate");
    let [ca, client, client_key, server_key] =
        ["ca.pem", "client.pem", "client.key", "server.key"].map(file);
    for (arguments, reason) in [
        (&["--tls-ca", &text][..], "--tls-ca"),
        (
            &["--tls-ca", &client_key],
            "invalid CA certificates, expected PEM",
        ),
        (&["--tls-ca", "/nowhere"], "No such file"),
        (&["--tls-cert", &client], "--tls-key"),
        (&["--tls-key", &client_key], "--tls-cert"),
        (
            &["--tls-cert", &text, "--tls-key", &client_key],
            "--tls-cert",
        ),
        (&["--tls-cert", &client, "--tls-key", &ca], "--tls-key"),
        (
            &["--tls-cert", &client, "--tls-key", &server_key],
            "not for this private key",
        ),
    ] {
        for command in [&["call", "30"][..], &["cache", "get", "30"], &["doctor"]] {
            let refused = Program::rpcache(&[command, arguments].concat()).run().await;
            refused.refuses(2, reason);
            assert!(!refused.stderr.contains("BEGIN"), "{refused:#?}");
        }
    }
}

#[tokio::test]
async fn help_shows_no_password() {
    let redis = TlsRedis::start_with("server", "no", &["--requirepass", SECRET]);
    let help = Program::rpcache(&["call", "--help"])
        .env("REDIS_URL", &redis.url())
        .env("REDIS_PASSWORD", SECRET)
        .env("AMQP_PASSWORD", SECRET)
        .run()
        .await;
    assert_eq!(help.code, Some(0));
    assert!(!help.stdout.contains(SECRET), "{}", help.stdout);
    for option in [
        "--tls-ca",
        "--tls-cert",
        "--tls-key",
        "--redis-password-file",
    ] {
        assert!(help.stdout.contains(option), "{}", help.stdout);
    }
}
