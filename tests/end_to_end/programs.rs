//! Programs in any language as procedures: `rpcache worker --procedure NAME -- COMMAND`.

mod documented;
mod hostile;
mod killed;
mod processes;

use crate::support::process::{Finished, Process, Program};
use crate::support::{Setup, lifetime, wait};
use processes::descendants;
use serde_json::{Value, json};
use std::os::unix::fs::PermissionsExt as _;

const QUEUE: &str = "rpc_queue.p";

/// For messages as a terminal shows them.
const TEXT: [&str; 2] = ["--log-format", "text"];

/// A worker that serves a program as the procedure `p`, one answer at a time.
struct Served {
    setup: Setup,
    worker: Process,
}

impl Served {
    async fn by(options: &[&str], command: &[&str]) -> Self {
        let setup = Setup::new().await;
        let worker = start(&setup, setup.rpcache(&words(options, command))).await;
        Self { setup, worker }
    }

    fn start_call(&self, argument: &str) -> Process {
        self.setup
            .start_call(&["--procedure", "p", "--timeout", "25s", "--", argument])
    }

    async fn call(&self, argument: &str) -> Finished {
        self.start_call(argument).finish().await
    }

    /// Waits until guard and worker are the only processes, and no zombie is left.
    async fn nothing_is_left(&self) {
        wait::wait_until("no process is left", async || {
            descendants(self.worker.id()).len() == 1
        })
        .await;
        let log = self.worker.stderr();
        assert!(!log.contains("panic"), "{log}");
    }
}

fn words<'a>(options: &[&'a str], command: &[&'a str]) -> Vec<&'a str> {
    let fixed = ["worker", "--procedure", "p", "--concurrency", "1"];
    [&fixed, options, &["--"], command].concat()
}

async fn start(setup: &Setup, program: Program) -> Process {
    let worker = program.start();
    wait::wait_until("it serves", async || setup.consumers(QUEUE).await == 1).await;
    worker
}

/// Writes a program into a folder of its own.
fn script(text: &str) -> String {
    let path = lifetime::folder("program").join("program");
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path.to_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_filter_gets_a_line_and_its_answer_is_cached() {
    let served = Served::by(&[], &["sha256sum"]).await;
    let answer = "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03  -\n";
    served.call("hello").await.answers(answer);
    let call = ["--procedure", "p", "hello", "--json"];
    let again: Value = serde_json::from_str(&served.setup.call(&call).await.stdout).unwrap();
    assert_eq!(again["source"], "cache");
    let stored = served.setup.redis.get("p:hello").await;
    assert_eq!(stored.as_deref(), Some(answer.trim_end()));
    served.nothing_is_left().await;
    let stopped = served.worker.terminate().await;
    assert_eq!(stopped.code, Some(0), "{stopped:?}");
}

#[tokio::test]
async fn an_argument_is_one_word_of_the_command_and_never_code() {
    let served = Served::by(&[], &["printf", "%s|", "a {} b", "{}"]).await;
    served
        .call("$(id); '\"*")
        .await
        .answers("a $(id); '\"* b|$(id); '\"*|\n");
    let option = served.call("-n").await;
    option.refuses(1, "-- before {} allows it");
    // An answer of any bytes, such as an image.
    let bytes = Served::by(&["--argument", "integer"], &["printf", r"\377\0%s", "{}"]).await;
    let call = ["--procedure", "p", "--argument", "integer", "007", "--json"];
    let answer: Value = serde_json::from_str(&bytes.setup.call(&call).await.stdout).unwrap();
    assert_eq!(
        (&answer["argument"], &answer["answer_base64"]),
        (&json!("7"), &json!("/wA3"))
    );
}

#[tokio::test]
async fn exit_codes_and_the_last_line_of_stderr_say_what_is_wrong() {
    let program = script(
        "#!/bin/sh\nread -r code message\nprintf 'a trace\\n%s\\n' \"$message\" >&2\necho answer\nexit $code\n",
    );
    let served = Served::by(&[], &[&program]).await;
    served.call("0 a warning").await.answers("answer\n");
    for (argument, code, message) in [
        ("65 no s3cret-image", "bad-argument", "no s3cret-image"),
        ("64 s3cret-usage", "bad-argument", "s3cret-usage"),
        ("3 \u{1b}[2J s3cret", "failed", "\\u{1b}[2J s3cret"),
        ("127 s3cret: not found", "failed", "s3cret: not found"),
    ] {
        let call = ["--procedure", "p", "--json", argument];
        let refused = served.setup.call(&call).await;
        let line: Value = serde_json::from_str(&refused.stdout).unwrap();
        assert_eq!(line["error"]["code"], code, "{line}");
        let shown = line["error"]["message"].as_str().unwrap();
        assert!(shown.contains(message), "{line}");
    }
    // Only at debug: an argument may hold anything.
    let log = served.worker.stderr();
    assert!(!log.contains("s3cret"), "{log}");
    served.nothing_is_left().await;
}

#[tokio::test]
async fn a_program_inherits_nothing_that_was_not_named() {
    let program = script("#!/bin/sh\nenv | sort\nls /proc/self/fd\n");
    let setup = Setup::new().await;
    let line = format!(
        "exec 9</dev/null; \"$RPCACHE\" worker --procedure p --env MODEL --env ABSENT -- {program}"
    );
    let shell = setup.knowing(Program::shell(&line));
    let shell = shell
        .env("MODEL", "small")
        .env("SECRET", "s3cret")
        .env("LC_TIME", "C");
    let worker = start(&setup, shell).await;
    let found = setup.call(&["--procedure", "p", "x"]).await;
    let lines: Vec<&str> = found.stdout.lines().collect();
    let names = lines
        .iter()
        .filter_map(|line| Some(line.split_once('=')?.0));
    let names: Vec<_> = names
        .filter(|name| !["PWD", "_", "SHLVL", "OLDPWD"].contains(name))
        .collect();
    assert_eq!(
        names,
        ["LC_TIME", "MODEL", "PATH", "PYTHONUNBUFFERED"],
        "{found:?}"
    );
    assert!(
        !found.stdout.contains("amqp") && !found.stdout.contains("s3cret"),
        "{found:?}"
    );
    // The fourth is the folder that ls reads.
    let descriptors: Vec<_> = lines.iter().filter(|line| line.len() == 1).collect();
    assert_eq!(descriptors, [&"0", &"1", &"2", &"3"], "{found:?}");
    drop(worker);
    let own = setup.rpcache(&words(&["--env", "AMQP_URL"], &["cat"]));
    let refused = own.run().await;
    refused.refuses(2, "may hold a password of rpcache's");
}

#[tokio::test]
async fn what_cannot_be_started_is_refused_at_the_start_with_a_remedy() {
    let plain = lifetime::folder("program").join("plain.py");
    std::fs::write(&plain, "print(1)").unwrap();
    let plain = plain.to_str().unwrap();
    let folder = lifetime::folder("program");
    let cases: [(&[&str], &str); 8] = [
        (&["no-such-program"], "not found in PATH; install it"),
        (&["./no-such-program"], "there is no such file"),
        (&[folder.to_str().unwrap()], "is a directory"),
        (&[plain], "chmod +x"),
        (&[&script("echo 1\n")], "has no #! line"),
        (&[&script("#!/no/such/python\n")], "names /no/such/python"),
        (&["{}"], "must not choose the program"),
        (&["sh", "-c", "echo {}"], "write \"$1\" there"),
    ];
    for (command, reason) in cases {
        let refused = Program::rpcache(&[&TEXT, &words(&[], command)[..]].concat());
        refused.run().await.refuses(2, reason);
    }
    let nothing = [&TEXT[..], &["worker", "--procedure", "p"]].concat();
    let nothing = Program::rpcache(&nothing).run().await;
    nothing.refuses(2, "Write its program behind --");
    let gone = lifetime::folder("gone").join("x");
    let line = r#"mkdir "$X" && cd "$X" && rmdir "$X" && exec "$RPCACHE" --log-format text worker --procedure p -- ./x"#;
    let gone = Program::shell(line)
        .env("X", gone.to_str().unwrap())
        .run()
        .await;
    gone.refuses(2, "change to one that exists");
}

#[tokio::test]
async fn one_answer_is_tried_without_any_server() {
    let try_it = async |options: &[&str], command: &[&str]| {
        let line = [&["worker", "--procedure", "p"], options, &["--"], command].concat();
        Program::rpcache(&line).run().await
    };
    try_it(&["--try", "hello"], &["tr", "a-z", "A-Z"])
        .await
        .answers("HELLO\n");
    let json = ["--argument", "json", "--try", r#"{"b":1, "a":2}"#];
    try_it(&json, &["cat"]).await.answers("{\"a\":2,\"b\":1}\n");
    let failed = try_it(&["--try", "x"], &["sh", "-c", "echo why >&2; exit 1"]).await;
    failed.refuses(1, "failed: why");
    let slow = ["--try", "x", "--exec-timeout", "200ms"];
    try_it(&slow, &["sleep", "1000"])
        .await
        .refuses(1, "did not end within 200 ms");
    let large = ["--try", "x", "--max-reply-size", "5"];
    try_it(&large, &["printf", "12345\\n"])
        .await
        .answers("12345\n");
    try_it(&large, &["printf", "123456"])
        .await
        .refuses(1, "too-large");
}

#[tokio::test]
async fn a_directory_that_is_gone_later_fails_calls_only() {
    let program = script("#!/bin/sh\ncat\n");
    let served = Served::by(&[], &[&program]).await;
    served.call("1").await.answers("1\n");
    std::fs::remove_file(&program).unwrap();
    served.call("2").await.refuses(1, "cannot be started");
    std::fs::write(&program, "no script").unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    served.call("3").await.refuses(1, "cannot be started");
    served.nothing_is_left().await;
}
