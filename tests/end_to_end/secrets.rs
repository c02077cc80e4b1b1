//! No password appears in output, logs at any level, help, metrics, process list or errors.

use crate::provision::Provisioned;
use crate::support::Setup;
use crate::support::http::{address_of, get};
use crate::support::ports::ClosedPort;
use crate::support::process::{Finished, Program};

/// Variables for the most verbose log.
const EVERYTHING: [(&str, &str); 2] = [
    ("RUST_LOG", "trace,lapin=trace,redis=trace"),
    ("RUST_BACKTRACE", "1"),
];

const HELP: [&[&str]; 13] = [
    &["--help"],
    &["worker", "--help"],
    &["call", "--help"],
    &["warm", "--help"],
    &["cache", "--help"],
    &["cache", "rm", "--help"],
    &["bench", "--help"],
    &["doctor", "--help"],
    &["top", "--help"],
    &["health", "--help"],
    &["completions", "bash"],
    &["man", "worker"],
    &["man", "call"],
];

const COMMANDS: [&[&str]; 9] = [
    &["call", "30", "--json"],
    &["call", "0..20", "--local-cache", "1MB"],
    &["warm", "0..5"],
    &["bench", "--json", "--calls", "20"],
    &["cache", "stats"],
    &["cache", "explain", "30"],
    &["cache", "rm", "--all", "--yes"],
    &["doctor"],
    &["top", "--json"],
];

/// The secrets that must not appear.
struct Secrets<'a> {
    secrets: &'a [String],
}

impl Secrets<'_> {
    #[track_caller]
    fn are_not_in(&self, source: &str, text: &str) {
        for secret in self.secrets {
            assert!(!text.contains(secret.as_str()), "{source}: {text}");
        }
    }

    #[track_caller]
    fn are_not_printed_by(&self, source: &str, finished: &Finished) {
        self.are_not_in(source, &finished.stdout);
        self.are_not_in(source, &finished.stderr);
    }
}

fn verbose(program: Program) -> Program {
    let with = |program: Program, (name, value): (&str, &str)| program.env(name, value);
    EVERYTHING.into_iter().fold(program, with)
}

/// Also in an image, where no service manager sets the limit.
#[tokio::test]
async fn no_core_dump_can_hold_a_password() {
    let setup = Setup::new().await;
    let line = r#"ulimit -c unlimited 2>/dev/null; exec "$RPCACHE" worker"#;
    let worker = setup.serving(setup.knowing(Program::shell(line))).await;
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", worker.id())).unwrap();
    let core = limits
        .lines()
        .find(|line| line.starts_with("Max core file size"));
    let numbers = core.unwrap().split_whitespace().skip(4).take(2);
    assert_eq!(numbers.collect::<Vec<_>>(), ["0", "0"], "{limits}");
}

#[tokio::test]
async fn no_password_is_printed_or_logged() {
    let setup = Provisioned::new("secrets").await;
    let secrets = ["worker", "client"].map(|role| setup.password_of(role));
    let hidden = Secrets { secrets: &secrets };

    for arguments in HELP {
        let help = setup.rpcache("client", arguments).run().await;
        assert_eq!(help.code, Some(0), "{help:#?}");
        hidden.are_not_printed_by(&arguments.join(" "), &help);
    }

    let options = ["worker", "-vv", "--metrics-addr", "127.0.0.1:0"];
    let worker = verbose(setup.rpcache("worker", &options)).start();
    worker.says("serving fib").await;
    let cmdline = std::fs::read_to_string(format!("/proc/{}/cmdline", worker.id())).unwrap();
    hidden.are_not_in("the process list", &cmdline);
    let endpoint = address_of(&worker).await;
    for arguments in COMMANDS {
        let ended = verbose(setup.rpcache("client", arguments)).run().await;
        // This user lacks rights for some of them: errors are checked, too.
        hidden.are_not_printed_by(&arguments.join(" "), &ended);
    }
    for page in ["/metrics", "/readyz"] {
        hidden.are_not_in(page, &get(endpoint, page).await.body);
    }
    let keys = format!("{:?}", setup.redis.keys().await);
    hidden.are_not_in("Redis' keys", &keys);
    hidden.are_not_printed_by("the worker", &worker.terminate().await);

    // Errors name the server, without its password.
    let closed = ClosedPort::reserve();
    let port = closed.port();
    for arguments in COMMANDS {
        let wrong = Program::rpcache(arguments)
            .env(
                "AMQP_URL",
                &format!("amqp://me:{}@127.0.0.1:{port}/%2f", secrets[0]),
            )
            .env(
                "REDIS_URL",
                &format!("redis://me:{}@127.0.0.1:{port}", secrets[1]),
            );
        hidden.are_not_printed_by("without servers", &verbose(wrong).run().await);
    }
    for url in [
        "amqp://me:{}@host:port",
        "amqp:/me:{}@x",
        "{}",
        "redis://:{}@[::1",
        "me:{}@host",
    ] {
        let url = url.replace("{}", &secrets[0]);
        for option in ["--amqp-url", "--redis-url"] {
            let refused = Program::rpcache(&["call", "1", option, &url]).run().await;
            hidden.are_not_printed_by("an invalid URL", &refused);
        }
    }
}
