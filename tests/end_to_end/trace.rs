//! `rpcache call --trace`: the steps of one call and their times, with a worker, with a foreign worker, and with
//! none; and the headers for it.

use lapin::protocol::basic::AMQPProperties;
use serde_json::Value;

use crate::support::amqp::{headers, long_strings};
use crate::support::http::{get, scraped};
use crate::support::process::{Finished, Program};
use crate::support::{EXPENSIVE, ONE_AT_A_TIME, Setup, VERY_SLOW, wait};

/// The header of a reply with the steps, and of a request that asks for them.
const HEADER: &str = "x-rpcache-trace";

/// The steps that are shown, without their times.
#[track_caller]
fn steps(finished: &Finished) -> Vec<&str> {
    finished.stderr.lines().filter_map(step).collect()
}

/// The step in this line, which must be plain text of at most 80 columns; `None` for another line.
#[track_caller]
fn step(line: &str) -> Option<&str> {
    let (step, _) = line.split_once(" ms ")?;
    assert!(line.chars().count() <= 80, "too long: {line:?}");
    assert!(!line.contains(char::is_control), "not plain: {line:?}");
    let step = step.trim_end_matches(|c: char| c.is_ascii_digit() || c == '.');
    Some(step.trim_end())
}

#[tokio::test]
async fn miss_shows_its_steps_and_the_worker_s() {
    let setup = Setup::new().await;
    let _worker = setup.worker(&[]).await;
    let call = setup.call(&["--trace", "30"]).await;
    call.answers("832040\n");
    assert_eq!(
        steps(&call),
        [
            "fib:30: computed",
            "  connect to Redis",
            "  look in Redis: miss",
            "  request",
            "    connect to RabbitMQ",
            "    publish, until confirmed",
            "    queue and network",
            "    worker",
            "      look in Redis",
            "      compute",
            "      store in Redis",
        ]
    );
    let hit = setup.call(&["--trace", "30"]).await;
    hit.answers("832040\n");
    let shown = [
        "fib:30: cache",
        "  connect to Redis",
        "  look in Redis: hit",
    ];
    assert_eq!(steps(&hit), shown);
}

#[tokio::test]
async fn wait_for_a_slot_for_another_call_and_for_another_worker_is_shown() {
    let setup = Setup::new().await;
    let (_worker, address) = scraped(&setup, &ONE_AT_A_TIME).await;
    let (slow, expensive) = (VERY_SLOW.to_string(), EXPENSIVE.to_string());
    let _first = setup.start_call(&[&slow, "--timeout", "25s"]);
    let lease = format!("{{fib:{slow}}}:lease");
    wait::wait_until("it is computed", async || {
        setup.redis.keys().await.contains(&lease)
    })
    .await;
    let waits = setup.start_call(&["--trace", "--timeout", "25s", &expensive]);
    let joins = setup.start_call(&["--trace", "--timeout", "25s", &slow]);
    wait::wait_until("both wait", async || {
        let page = get(address, "/metrics").await;
        page.number("rpcache_requests_held{procedure=\"fib\"}") > 2.5
    })
    .await;
    let _other = setup.worker(&ONE_AT_A_TIME).await;
    // The broker delivers in turn: one of these goes to the other worker.
    let in_turn = [(); 2].map(|()| setup.start_call(&["--trace", "--timeout", "25s", &slow]));
    let waits = waits.finish().await;
    assert!(
        steps(&waits).contains(&"      wait for a slot"),
        "{waits:#?}"
    );
    let joins = joins.finish().await;
    assert!(
        steps(&joins).contains(&"      wait for another call"),
        "{joins:#?}"
    );
    let mut shown = String::new();
    for call in in_turn {
        shown += &call.finish().await.stderr;
    }
    assert!(shown.contains("      wait for another worker"), "{shown}");
}

#[tokio::test]
async fn json_has_the_steps_in_the_same_object() {
    let setup = Setup::new().await;
    let _worker = setup.worker(&[]).await;
    let call = setup.call(&["--trace", "--json", "--no-cache", "30"]).await;
    assert_eq!(
        (call.code, call.stderr.as_str()),
        (Some(0), ""),
        "{call:#?}"
    );
    let line: Value = serde_json::from_str(&call.stdout).unwrap();
    assert_eq!(line["answer"], "832040");
    let rows = line["trace"].as_array().unwrap();
    let steps: Vec<&str> = rows.iter().filter_map(|row| row["step"].as_str()).collect();
    let expected = [
        "call",
        "call.request",
        "call.request.connect-rabbitmq",
        "call.request.send",
        "call.request.queue",
        "call.request.worker",
        "call.request.worker.compute",
    ];
    assert_eq!(steps, expected);
    let whole = rows[0]["took_ms"].as_f64().unwrap();
    for row in rows {
        let (start, took) = (
            row["start_ms"].as_f64().unwrap(),
            row["took_ms"].as_f64().unwrap(),
        );
        assert!(
            start >= 0.0 && took >= 0.0 && start + took <= whole + 0.01,
            "{line}"
        );
    }
    assert_eq!(rows[0]["result"], "computed");

    let failed = setup.call(&["--trace", "--json", "1000001"]).await;
    let line: Value = serde_json::from_str(&failed.stdout).unwrap();
    assert_eq!(
        (line["trace"][0]["result"].as_str(), failed.code),
        (Some("too-large"), Some(1))
    );
}

#[tokio::test]
async fn foreign_worker_reports_no_steps_and_a_second_attempt_is_shown() {
    let setup = Setup::new().await;
    let mut worker = setup.raw_worker().await;
    let call = setup.start_call(&["--trace", "30"]);
    for (answer, hostile) in [
        ("832041", "compute=1+1 total=\u{1b}[31m"),
        ("832040", "c\u{1b}[31m=1+1 total=1"),
    ] {
        let request = worker.take().await;
        assert_eq!(long_strings(&request.properties)[HEADER], "steps");
        let trace = AMQPProperties::default().with_headers(headers(&[(HEADER, hostile)]));
        worker.reply_with(&request, answer, trace).await;
    }
    let call = call.finish().await;
    call.answers("832040\n");
    assert_eq!(
        steps(&call),
        [
            "fib:30: computed",
            "  connect to Redis",
            "  look in Redis: miss",
            "  request",
            "    connect to RabbitMQ",
            "    publish, until confirmed",
            "    queue and worker (not reported)",
            "  request",
            "    publish, until confirmed",
            "    queue and worker (not reported)",
            "  store in Redis",
        ]
    );
}

#[tokio::test]
async fn deadline_shows_the_step_that_was_waited_for() {
    let setup = Setup::new().await;
    let mut worker = setup.raw_worker().await;
    let call = setup.start_call(&["--trace", "30", "--timeout", "700ms"]);
    worker.take().await;
    let call = call.finish().await;
    assert_eq!(
        (call.code, call.stdout.as_str()),
        (Some(124), ""),
        "{call:#?}"
    );
    let steps = steps(&call);
    assert_eq!(steps[0], "fib:30: deadline", "{call:#?}");
    assert_eq!(steps.last(), Some(&"    no reply"), "{call:#?}");
    let last = call.stderr.lines().last().unwrap();
    assert!(
        last.starts_with("rpcache: no answer within 700 ms"),
        "{call:#?}"
    );
}

#[tokio::test]
async fn other_steps_are_shown_without_redis() {
    let setup = Setup::new().await;
    let _worker = setup.worker(&[]).await;
    let call = setup.rpcache(&["call", "--trace", "30"]);
    let call = call.env("REDIS_URL", "redis://127.0.0.1:1").run().await;
    call.answers("832040\n");
    let steps = steps(&call);
    for step in ["  look in Redis: unanswered", "    worker", "      compute"] {
        assert!(steps.contains(&step), "no {step:?}: {call:#?}");
    }
}

#[tokio::test]
async fn terminal_shows_the_timeline() {
    let setup = Setup::new().await;
    let _worker = setup.worker(&[]).await;
    let line = r#"script -qec '"$RPCACHE" call --trace 30' /dev/null"#;
    let shown = setup.knowing(Program::shell(line)).run().await;
    for text in ["832040", "queue and network", "compute"] {
        assert!(shown.stdout.contains(text), "no {text}: {shown:#?}");
    }
}

#[tokio::test]
async fn many_calls_have_no_timeline() {
    let refused = Program::rpcache(&["call", "--trace", "30", "31"])
        .run()
        .await;
    refused.refuses(2, "--trace");
}

/// Without `--trace`, a request has no such header.
#[tokio::test]
async fn headers_are_sent_on_request_only() {
    let setup = Setup::new().await;
    let mut worker = setup.raw_worker().await;
    let call = setup.start_call(&["30"]);
    let request = worker.take().await;
    assert_eq!(*request.properties.headers(), None);
    worker.reply(&request, "832040").await;
    call.finish().await.answers("832040\n");
    let asks = setup.start_call(&["--trace", "--refresh", "30"]);
    let request = worker.take().await;
    let asked: Vec<_> = long_strings(&request.properties).into_iter().collect();
    let expected = [("x-rpcache-cache", "refresh"), (HEADER, "steps")];
    assert_eq!(
        asked,
        expected.map(|(name, value)| (name.to_owned(), value.to_owned()))
    );
    worker.reply(&request, "832040").await;
    asks.finish().await.answers("832040\n");
}

#[tokio::test]
async fn worker_reports_steps_on_request_and_ignores_invalid_traces() {
    let setup = Setup::new().await;
    let worker = setup.worker(&[]).await;
    let mut caller = setup.caller().await;
    let n = EXPENSIVE.to_string();
    let asked = caller
        .properties()
        .with_headers(headers(&[(HEADER, "steps")]));
    let reply = caller.ask_with(n.as_bytes(), asked).await;
    let steps = reply.header(HEADER).unwrap();
    let names: Vec<&str> = steps
        .split(' ')
        .filter_map(|word| Some(word.split_once('=')?.0))
        .collect();
    assert_eq!(
        names,
        ["lookup", "slot-wait", "compute", "fill", "total"],
        "{steps}"
    );
    for (name, value) in [
        (HEADER, "step"),
        (HEADER, ""),
        (
            "traceparent",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        ),
        ("traceparent", "00-zz"),
        ("traceparent", "\u{1b}[31m"),
        ("tracestate", "a=b"),
    ] {
        let asked = caller.properties().with_headers(headers(&[(name, value)]));
        let reply = caller.ask_with(b"30", asked).await;
        reply.answers("832040");
        let names: Vec<_> = reply.headers.keys().collect();
        assert_eq!(
            names,
            ["x-rpcache-filled", "x-rpcache-source"],
            "{name}: {value:?}"
        );
    }
    setup.assert_settled(worker).await;
}
