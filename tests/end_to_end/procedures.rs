//! Procedures that the command knows by name only (`--procedure`, `--argument`), and answers of any bytes.

use crate::support::process::Program;
use crate::support::{Setup, wait};
use serde_json::{Value, json};

/// The procedure that `examples/prime_factors.rs` serves.
const FACTORS: [&str; 2] = ["--procedure", "factors"];

async fn serving_factors() -> (Setup, crate::support::process::Process) {
    let setup = Setup::new().await;
    let worker = Program::example("prime_factors", &["serve"]);
    let worker = setup.knowing(worker).start();
    // A worker serves without Redis, too, and stores nothing then.
    wait::wait_until("it serves, and is connected to Redis", async || {
        setup.consumers("rpc_queue.factors").await == 1
            && setup.redis.get("rpcache:worker:0").await.is_some()
    })
    .await;
    (setup, worker)
}

#[tokio::test]
async fn a_procedure_of_another_program_is_called_and_cached() {
    let (setup, _worker) = serving_factors().await;
    let run = async |words: &[&str]| setup.rpcache(&[words, &FACTORS].concat()).run().await;
    run(&["call", "360"]).await.answers("2 2 2 3 3 5\n");
    assert_eq!(
        setup.redis.get("factors:360").await.as_deref(),
        Some("2 2 2 3 3 5")
    );
    let again = run(&["call", "360", "--json"]).await;
    let line: Value = serde_json::from_str(&again.stdout).unwrap();
    assert_eq!(
        (&line["answer"], &line["source"]),
        (&json!("2 2 2 3 3 5"), &json!("cache"))
    );

    run(&["cache", "ls"]).await.answers("factors:360\n");
    run(&["cache", "get", "360"]).await.answers("2 2 2 3 3 5\n");
    let explained = run(&["cache", "explain", "360", "--json"]).await;
    let explained: Value = serde_json::from_str(&explained.stdout).unwrap();
    assert_eq!(
        (&explained["key"], &explained["stored"]),
        (&json!("factors:360"), &json!(true))
    );
    assert_eq!(run(&["cache", "verify"]).await.code, Some(0));
    assert_eq!(run(&["cache", "ttl", "360"]).await.code, Some(0));
    run(&["cache", "rm", "360"]).await.answers("removed 1\n");
    assert!(setup.redis.keys().await.is_empty());
    let gone = run(&["cache", "get", "360"]).await;
    gone.refuses(1, "360: not in the cache");
}

#[tokio::test]
async fn integers_have_ranges_for_any_procedure() {
    let (setup, _worker) = serving_factors().await;
    let factors = async |words: &[&str]| {
        let words = [words, &FACTORS, &["--argument", "integer"]].concat();
        setup.rpcache(&words).run().await
    };
    let warmed = factors(&["warm", "1..20", "--json"]).await;
    let warmed: Value = serde_json::from_str(&warmed.stdout).unwrap();
    assert_eq!(
        (&warmed["asked"], &warmed["stored"]),
        (&json!(20), &json!(20)),
        "{warmed}"
    );
    factors(&["call", "007..9"])
        .await
        .answers("7\t7\n8\t2 2 2\n9\t3 3\n");
    let wrong = factors(&["call", "seven"]).await;
    wrong.refuses(2, r#""seven" is not a whole number"#);
    // As text, the range is one argument, which the worker refuses.
    let text = setup.call(&["7..9", "--procedure", "factors"]).await;
    text.refuses(1, "invalid digit");
}

#[tokio::test]
async fn doctor_bench_and_top_use_the_procedure_that_the_environment_names() {
    let (setup, _worker) = serving_factors().await;
    let run = async |words: &[&str]| {
        let program = setup.rpcache(words);
        program.env("RPCACHE_PROCEDURE", "factors").run().await
    };
    run(&["call", "97"]).await.answers("97\n");
    let doctor = run(&["doctor", "--json", "12", "13"]).await;
    assert_eq!(doctor.code, Some(0), "{doctor:?}");
    let hit = doctor.stdout.lines().last().unwrap();
    let hit: Value = serde_json::from_str(hit).unwrap();
    assert_eq!(hit["state"], "ok", "{hit}");
    assert_eq!(setup.redis.keys().await, ["factors:12", "factors:97"]);
    let without = run(&["doctor", "--json"]).await;
    let call = without
        .stdout
        .lines()
        .find(|line| line.contains(r#""check":"call""#));
    assert!(call.unwrap().contains("skipped"), "{without:?}");
    let bench = run(&[
        "bench", "--calls", "50", "--keys", "10", "--first", "1", "--json",
    ])
    .await;
    assert_eq!(bench.code, Some(0), "{bench:?}");
    let top = run(&["top", "--json", "--interval", "200ms"]).await;
    let top: Value = serde_json::from_str(&top.stdout).unwrap();
    assert_eq!(top["queue"], "rpc_queue.factors");
}

#[tokio::test]
async fn equal_json_arguments_share_one_key() {
    let setup = Setup::new().await;
    let mut worker = setup.raw_worker().await;
    let options = [
        "--procedure",
        "resize",
        "--argument",
        "json",
        "--queue",
        "rpc_queue",
    ];
    let call =
        setup.start_call(&[&[r#" {"width" : 64.0, "image":"c\u0061t"} "#], &options[..]].concat());
    let request = worker.take().await;
    let canonical = r#"{"image":"cat","width":64.0}"#;
    assert_eq!(String::from_utf8_lossy(&request.data), canonical);
    worker.reply(&request, "small").await;
    call.finish().await.answers("small\n");
    let spelled = format!("{}\n", r#"{"image":"cat","width":64.0}"#);
    let line =
        r#"printf '%s' "$SPELLED" | "$RPCACHE" call - --procedure resize --argument json --json"#;
    let again = setup.knowing(Program::shell(line)).env("SPELLED", &spelled);
    let again: Value = serde_json::from_str(&again.run().await.stdout).unwrap();
    assert_eq!(
        (&again["argument"], &again["source"]),
        (&json!(canonical), &json!("cache"))
    );
    let twice = setup
        .call(&[&[r#"{"a":1,"a":2}"#], &options[..]].concat())
        .await;
    twice.refuses(2, r#"duplicate key "a""#);
}

#[tokio::test]
async fn answers_may_be_any_bytes() {
    const ANSWER: &[u8] = b"\x89PNG\r\n\x1a\n\0\xff";
    let setup = Setup::new().await;
    let mut worker = setup.raw_worker().await;
    let options = ["--procedure", "thumb", "--queue", "rpc_queue"];
    let call = setup.start_call(&[&["cat.png", "--json"], &options[..]].concat());
    let request = worker.take_argument("cat.png").await;
    worker.reply(&request, ANSWER).await;
    let line: Value = serde_json::from_str(&call.finish().await.stdout).unwrap();
    assert_eq!(line["answer_base64"], "iVBORw0KGgoA/w==");
    assert_eq!(line.get("answer"), None);
    let stored: Vec<u8> = setup.redis.run(&["GET", "thumb:cat.png"]).await;
    assert_eq!(stored, ANSWER);
    for command in ["call", "cache get"] {
        let line = format!(r#""$RPCACHE" {command} cat.png --procedure thumb | od -An -tx1"#);
        let shown = setup.knowing(Program::shell(&line)).run().await;
        shown.answers(" 89 50 4e 47 0d 0a 1a 0a 00 ff\n");
    }
}

#[tokio::test]
async fn an_invalid_name_and_an_unsupported_form_are_refused() {
    let setup = Setup::new().await;
    let call = async |options: &[&str]| setup.call(&[&["30"], options].concat()).await;
    call(&["--procedure", "Fib:1"])
        .await
        .refuses(2, "a procedure's name is 1 to 64 of a-z, 0-9");
    call(&["--argument", "json"])
        .await
        .refuses(2, "fib takes an integer");
    let unserved = call(&["--procedure", "factors"]).await;
    unserved.refuses(3, "start a worker that serves factors");
}
