//! No password comes out, whatever is asked for, however much is logged, and whatever goes wrong.

use crate::provision::Provisioned;
use crate::support::Setup;
use crate::support::http::{address_of, get};
use crate::support::ports::ClosedPort;
use crate::support::process::{Finished, Program};

/// What the most talkative of logs is asked for with.
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

/// Everything that was said in a test, and the secrets that must not be.
struct Said<'a> {
    secrets: &'a [String],
}

impl Said<'_> {
    #[track_caller]
    fn tells_nothing(&self, whose: &str, text: &str) {
        for secret in self.secrets {
            assert!(!text.contains(secret.as_str()), "{whose}: {text}");
        }
    }

    #[track_caller]
    fn tell_nothing(&self, whose: &str, finished: &Finished) {
        self.tells_nothing(whose, &finished.stdout);
        self.tells_nothing(whose, &finished.stderr);
    }
}

fn talkative(program: Program) -> Program {
    let with = |program: Program, (name, value): (&str, &str)| program.env(name, value);
    EVERYTHING.into_iter().fold(program, with)
}

/// Also in an image, where no service manager says so.
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
async fn no_password_comes_out() {
    let setup = Provisioned::new("secrets").await;
    let secrets = ["worker", "client"].map(|role| setup.password_of(role));
    let said = Said { secrets: &secrets };

    for arguments in HELP {
        let help = setup.rpcache("client", arguments).run().await;
        assert_eq!(help.code, Some(0), "{help:#?}");
        said.tell_nothing(&arguments.join(" "), &help);
    }

    let options = ["worker", "-vv", "--metrics-addr", "127.0.0.1:0"];
    let worker = talkative(setup.rpcache("worker", &options)).start();
    worker.says("serving fib").await;
    let cmdline = std::fs::read_to_string(format!("/proc/{}/cmdline", worker.id())).unwrap();
    said.tells_nothing("the process list", &cmdline);
    let endpoint = address_of(&worker).await;
    for arguments in COMMANDS {
        let ended = talkative(setup.rpcache("client", arguments)).run().await;
        // Some of it, this user may not do: its refusal is looked at, too.
        said.tell_nothing(&arguments.join(" "), &ended);
    }
    for page in ["/metrics", "/readyz"] {
        said.tells_nothing(page, &get(endpoint, page).await.body);
    }
    let keys = format!("{:?}", setup.redis.keys().await);
    said.tells_nothing("Redis' keys", &keys);
    said.tell_nothing("the worker", &worker.terminate().await);

    // What goes wrong names the server, and not how to get into it.
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
        said.tell_nothing("without servers", &talkative(wrong).run().await);
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
            said.tell_nothing("a URL that is none", &refused);
        }
    }
}
