//! The log: its lines and levels as text and as JSON, without passwords, and a reader that does not read.

use std::io::{BufRead as _, BufReader};

use serde_json::Value;

use crate::support::http::{self, address_of};
use crate::support::ports::ClosedPort;
use crate::support::process::{Finished, Program};
use crate::support::redis::Redis;
use crate::support::{EXPENSIVE, Setup, wait};

/// The passwords of Redis and of the broker.
const SECRETS: [&str; 2] = ["s3cretredis", "s3cretbroker"];

/// All lines, parsed as JSON.
fn parsed(finished: &Finished) -> Vec<Value> {
    let parse = |line| serde_json::from_str(line).unwrap_or_else(|_| panic!("no JSON: {line}"));
    finished.stderr.lines().map(parse).collect()
}

/// The lines whose message contains these words.
fn saying<'a>(lines: &'a [Value], words: &str) -> Vec<&'a Value> {
    let says = |line: &&Value| {
        line["message"]
            .as_str()
            .is_some_and(|text| text.contains(words))
    };
    lines.iter().filter(says).collect()
}

/// Fails if a password is in the log, as text or as the list of bytes that a library may print.
fn assert_no_secret(finished: &Finished, secrets: &[&str]) {
    for secret in secrets {
        let bytes: Vec<_> = secret.bytes().map(|byte| byte.to_string()).collect();
        for shown in [(*secret).to_owned(), bytes.join(", ")] {
            assert!(!finished.stderr.contains(&shown), "{shown}: {finished:#?}");
        }
    }
}

#[tokio::test]
async fn worker_without_a_terminal_logs_json_without_passwords() {
    let setup = Setup::new().await;
    let redis = Redis::start_with(&["--requirepass", SECRETS[0]]);
    let forwarder = ClosedPort::reserve().forward_to(setup.vhost.port());
    let program = setup
        .rpcache(&["worker", "--metrics-addr", "127.0.0.1:0"])
        .env("AMQP_URL", &setup.vhost.url_by(forwarder.port()))
        .env("REDIS_URL", &redis.url_with(&format!(":{}@", SECRETS[0])));
    let worker = setup.serving(program).await;
    let address = address_of(&worker).await;
    forwarder.close();
    worker.says("lost RabbitMQ").await;
    forwarder.open();
    worker.says("RabbitMQ is back").await;
    drop(redis);
    worker.says("calls go on without the cache").await;
    assert_eq!(http::get(address, "/readyz").await.status, 200);
    let finished = worker.terminate().await;
    assert_eq!(finished.code, Some(0), "{finished:#?}");

    let lines = parsed(&finished);
    for line in &lines {
        for field in ["timestamp", "level", "message", "target"] {
            assert!(line[field].is_string(), "{line}");
        }
    }
    for (words, level, times) in [
        ("metrics at http://127.0.0.1:", "INFO", 1),
        (
            "serving fib from rpc_queue at amqp://guest@127.0.0.1:",
            "INFO",
            2,
        ),
        ("lost RabbitMQ at amqp://guest@127.0.0.1:", "WARN", 1),
        ("RabbitMQ is back: serving", "INFO", 1),
        ("calls go on without the cache", "WARN", 1),
        ("stopping", "INFO", 1),
        ("stopped: all requests are answered", "INFO", 1),
    ] {
        let found = saying(&lines, words);
        assert_eq!(found.len(), times, "{words}: {lines:#?}");
        assert!(
            found.iter().all(|line| line["level"] == level),
            "{lines:#?}"
        );
    }
    assert!(lines.len() < 12, "one line each: {lines:#?}");
    assert_no_secret(&finished, &SECRETS[..1]);
    assert!(!finished.stderr.contains("guest:guest"), "{finished:#?}");
}

/// Also at the most verbose levels, lapin's included.
#[tokio::test]
async fn no_level_shows_a_password() {
    let setup = Setup::new().await;
    // A right password, which is sent, and a wrong one.
    for url in [
        setup.vhost.url_of("worker"),
        setup.vhost.url_with("guest", SECRETS[1]),
    ] {
        let everything = "trace,lapin=trace";
        let call = setup.rpcache(&["call", "30", "--log-format", "json"]);
        let call = call
            .env("AMQP_URL", &url)
            .env("RUST_LOG", everything)
            .run()
            .await;
        assert!(
            saying(&parsed(&call), "create channel").len() + usize::from(call.code == Some(3)) > 0
        );
        // The first password equals the user's name, which may be shown; as bytes it appears in the login only.
        let sent = [0]
            .into_iter()
            .chain("worker".bytes())
            .chain([0])
            .chain("worker".bytes());
        let sent: Vec<_> = sent.map(|byte: u8| byte.to_string()).collect();
        assert!(!call.stderr.contains(&sent.join(", ")), "{call:#?}");
        assert_no_secret(&call, &SECRETS);
    }
}

#[tokio::test]
async fn error_that_ends_a_worker_has_the_format_of_its_log() {
    let setup = Setup::new().await;
    let url = setup.vhost.url_with("guest", SECRETS[1]);
    let refused = async |options: &[&str]| {
        let program = setup.rpcache(&[&["worker"], options].concat());
        let finished = program.env("AMQP_URL", &url).run().await;
        assert_eq!(finished.code, Some(3), "{finished:#?}");
        assert_no_secret(&finished, &SECRETS);
        finished
    };
    let lines = parsed(&refused(&[]).await);
    assert_eq!(saying(&lines, "refuses")[0]["level"], "ERROR", "{lines:#?}");
    let text = refused(&["--log-format", "text"]).await;
    let last = text.stderr.lines().last().unwrap();
    assert!(last.starts_with("rpcache: amqp://guest@"), "{text:#?}");
}

#[tokio::test]
async fn other_commands_log_text_unless_asked() {
    let setup = Setup::new().await;
    let closed = ClosedPort::reserve();
    let redis = format!("redis://127.0.0.1:{}", closed.port());
    let _worker = setup.worker(&[]).await;
    let call = async |options: &[&str]| {
        let program = setup.rpcache(&[&["call", "30"], options].concat());
        let finished = program.env("REDIS_URL", &redis).run().await;
        assert_eq!(
            (finished.code, finished.stdout.as_str()),
            (Some(0), "832040\n")
        );
        finished
    };
    let text = call(&[]).await;
    text.has_one_clear_line(" WARN cannot reach redis://");
    let lines = parsed(&call(&["--log-format", "json"]).await);
    assert_eq!(saying(&lines, "without the cache").len(), 1, "{lines:#?}");
    for invalid in ["rpcache=loud", "inof"] {
        let call = setup.rpcache(&["call", "30"]).env("RUST_LOG", invalid);
        let call = call.run().await;
        assert_eq!((call.code, call.stdout.as_str()), (Some(0), "832040\n"));
        call.has_one_clear_line(&format!("{invalid:?}"));
    }
}

#[tokio::test]
async fn each_call_is_a_line_at_debug_in_client_and_worker() {
    let setup = Setup::new().await;
    let worker = setup.serving(setup.rpcache(&["worker", "-v"])).await;
    let expensive = EXPENSIVE.to_string();
    let call = setup
        .call(&["30", &expensive, "-v", "--log-format", "json"])
        .await;
    let again = setup.call(&["30", "-v"]).await;
    again.has_one_clear_line("DEBUG answered key=fib:30 source=\"cache\" elapsed_ms=");
    let too_large = setup.call(&["1000001", "-v"]).await;
    assert!(
        too_large
            .stderr
            .contains("DEBUG not answered key=fib:1000001 error=\"too-large\"")
    );
    let mut caller = setup.caller().await;
    caller.ask("\u{1b}[2J").await.fails_as("bad-argument");

    let outcomes = |lines: &[Value]| {
        let calls = saying(lines, "answered")
            .into_iter()
            .filter(|line| line["level"] == "DEBUG");
        let mut calls: Vec<_> = calls.cloned().collect();
        calls.sort_by_key(|line| line["key"].as_str().unwrap().len());
        for call in &calls {
            assert!(call["elapsed_ms"].as_f64().unwrap() >= 0.0, "{call}");
        }
        let outcome = |call: &Value| {
            let what = call["source"].as_str().or(call["error"].as_str()).unwrap();
            format!("{} {what}", call["key"].as_str().unwrap())
        };
        calls.iter().map(outcome).collect::<Vec<_>>()
    };
    let computed = [
        String::from("fib:30 computed"),
        format!("fib:{expensive} computed"),
    ];
    assert_eq!(outcomes(&parsed(&call)), computed);
    wait::wait_until("the worker has logged it", async || {
        worker.stderr().contains("none")
    })
    .await;
    let served = outcomes(&parsed(&setup.assert_settled(worker).await));
    let refused = [
        "none bad-argument".to_owned(),
        "fib:1000001 too-large".to_owned(),
    ];
    for line in computed.iter().chain(&refused) {
        assert_eq!(
            served.iter().filter(|served| served == &line).count(),
            1,
            "{served:?}"
        );
    }
    assert_eq!(served.len(), 4, "{served:?}");
}

/// More lines than the pipe and the queue before it hold.
const MANY_CALLS: usize = 8_000;

#[tokio::test]
async fn a_log_that_is_not_read_delays_nothing_and_counts_dropped_lines() {
    let setup = Setup::new().await;
    let (reader, writer) = std::io::pipe().unwrap();
    let program = setup.rpcache(&["worker", "-v"]).stderr_to(writer);
    let worker = setup.serving(program).await;
    let numbers = format!("0..{}", MANY_CALLS - 1);
    let calls = setup.call(&[&numbers, "--no-cache"]).await;
    assert_eq!(calls.code, Some(0), "{calls:#?}");

    // The reader goes on: the log says how many lines were dropped.
    let (sender, lines) = std::sync::mpsc::channel::<Value>();
    std::thread::spawn(move || {
        for line in BufReader::new(reader).lines() {
            let line = line.unwrap();
            let parsed = serde_json::from_str(&line);
            let parsed = parsed.unwrap_or_else(|_| panic!("no JSON: {line}"));
            if sender.send(parsed).is_err() {
                return;
            }
        }
    });
    let mut read = Vec::new();
    wait::wait_until("the dropped lines are counted", async || {
        read.extend(lines.try_iter());
        !saying(&read, "lines were dropped").is_empty()
    })
    .await;
    setup.caller().await.is_served().await;
    assert_eq!(worker.terminate().await.code, Some(0));
    read.extend(lines);
    let counts = saying(&read, "lines were dropped");
    let dropped: u64 = counts
        .iter()
        .filter_map(|line| line["dropped"].as_u64())
        .sum();
    let answered = saying(&read, "answered").len();
    assert!(dropped > 0 && answered > 100, "{dropped} {answered}");
    let total = usize::try_from(dropped).unwrap() + answered;
    assert!(total >= MANY_CALLS, "{dropped} + {answered}");
    // The last line was not dropped.
    let last = read.last().unwrap();
    assert!(
        last["message"].as_str().unwrap().starts_with("stopped"),
        "{last}"
    );
}

#[tokio::test]
async fn a_log_that_is_not_read_does_not_keep_a_worker_from_ending() {
    let setup = Setup::new().await;
    for format in ["json", "text"] {
        let (_unread, writer) = std::io::pipe().unwrap();
        let options = ["worker", "-v", "--log-format", format];
        let program = setup.rpcache(&options).stderr_to(writer);
        let worker = setup.serving(program).await;
        assert_eq!(setup.call(&["0..999", "--no-cache"]).await.code, Some(0));
        worker.signal("TERM");
        let ended = std::time::Instant::now();
        let finished = worker.finish().await;
        assert_eq!(finished.code, Some(0), "{finished:#?}");
        assert!(ended.elapsed().as_secs() < 5, "{:?}", ended.elapsed());
    }
}

/// Answers go to a file, and the terminal that shows the progress is stopped by Ctrl-S.
#[tokio::test]
async fn a_stopped_terminal_does_not_delay_calls() {
    const CTRL_S: &str = "\x13";
    let setup = Setup::new().await;
    let _worker = setup.worker(&[]).await;
    let line = r#"exec script -qec '"$RPCACHE" call 0..4999 --no-cache --timeout 30s >"$OUT"
        echo $? >"$OUT.code"' /dev/null"#;
    let out = crate::support::lifetime::folder("progress").join("out");
    let program = setup.knowing(Program::shell(line)).fed();
    let mut terminal = program.env("OUT", &out.display().to_string()).start();
    wait::wait_until("progress is shown", async || {
        terminal.stdout().contains("/5000")
    })
    .await;
    terminal.feed(CTRL_S).await;
    let code = out.with_extension("code");
    wait::wait_until("the calls have ended", async || {
        std::fs::read_to_string(&code).is_ok_and(|code| code == "0\n")
    })
    .await;
    assert_eq!(std::fs::read_to_string(&out).unwrap().lines().count(), 5000);
}
