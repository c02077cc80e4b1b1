//! `rpcache cache ls`, `ttl` and `rm`: they list and remove the keys of the procedure, and no others.

use crate::support::ports::ClosedPort;
use crate::support::process::{Finished, Program};
use crate::support::redis::Redis;

/// Keys that are not answers of the procedure: of other namespaces, leases, attempts, workers, other programs.
const OTHERS: [&str; 8] = [
    "fib:fib:30",
    "fib:rpcache:worker:0",
    "fibs",
    "other",
    "prod:fib:30",
    "rpcache:worker:0",
    "{fib:30}:lease",
    "{fib:30}:starts",
];

async fn with(keys: &[&str]) -> Redis {
    let redis = Redis::start();
    for key in keys {
        redis.set(key, "832040").await;
    }
    redis
}

fn sorted(finished: &Finished) -> Vec<&str> {
    assert_eq!(finished.code, Some(0), "{finished:#?}");
    let mut lines: Vec<&str> = finished.stdout.lines().collect();
    lines.sort_unstable();
    lines
}

#[tokio::test]
async fn keys_are_listed_by_pattern() {
    let redis = with(&["fib:1", "fib:10", "fib:12", "fib:30", "fib:\u{1b}[2J\u{9b}"]).await;
    for other in OTHERS {
        redis.set(other, "1").await;
    }
    for (pattern, keys) in [
        ("1*", &["fib:1", "fib:10", "fib:12"][..]),
        ("1?", &["fib:10", "fib:12"]),
        ("[13]0", &["fib:10", "fib:30"]),
        ("30", &["fib:30"]),
        ("fib:1?", &["fib:10", "fib:12"]),
        ("prod:fib:*", &[]),
        ("*}:lease", &[]),
        ("../*", &[]),
        ("\\", &[]),
        ("\n", &[]),
    ] {
        assert_eq!(sorted(&redis.rpcache(&["ls", pattern]).await), keys);
    }
    let all = redis.rpcache(&["ls"]).await;
    let keys = [
        "fib:1",
        "fib:10",
        "fib:12",
        "fib:30",
        "fib:\\u{1b}[2J\\u{9b}",
    ];
    assert_eq!(sorted(&all), keys);
    let prod = redis.program(&["ls"]).env("RPCACHE_NAMESPACE", "prod");
    prod.run().await.answers("prod:fib:30\n");
    for pattern in ["3*", "fib:3*", "prod:fib:3*"] {
        let prod = redis.program(&["ls", pattern]);
        let prod = prod.env("RPCACHE_NAMESPACE", "prod").run().await;
        prod.answers("prod:fib:30\n");
    }
}

#[tokio::test]
async fn long_list_has_ttl_and_size() {
    let redis = with(&["fib:30"]).await;
    redis
        .rpcache(&["ls", "--long"])
        .await
        .answers("none\t6\tfib:30\n");
    redis
        .rpcache(&["ls", "--json", "--long"])
        .await
        .answers("{\"key\":\"fib:30\",\"ttl_ms\":null,\"size\":6}\n");
    redis
        .rpcache(&["ls", "--json"])
        .await
        .answers("{\"key\":\"fib:30\"}\n");

    redis.run::<()>(&["EXPIRE", "fib:30", "1000"]).await;
    let long = redis.rpcache(&["ls", "--long"]).await;
    assert!(
        ["1000\t6\tfib:30\n", "999\t6\tfib:30\n"].contains(&long.stdout.as_str()),
        "{long:#?}"
    );
    redis.run::<()>(&["DEL", "fib:30"]).await;
    redis.run::<()>(&["LPUSH", "fib:30", "x"]).await;
    redis
        .rpcache(&["ls", "--long"])
        .await
        .answers("none\t-\tfib:30\n");
}

#[tokio::test]
async fn ttl_is_printed() {
    let redis = with(&["fib:30", "fib:31"]).await;
    redis.run::<()>(&["EXPIRE", "fib:31", "100000"]).await;
    redis.rpcache(&["ttl", "30"]).await.answers("none\n");
    let json = redis.rpcache(&["ttl", "30", "--json"]).await;
    json.answers("{\"argument\":\"30\",\"ttl_ms\":null}\n");

    let some = redis.rpcache(&["ttl", "30..32"]).await;
    assert_eq!(some.code, Some(1));
    let lines: Vec<&str> = some.stdout.lines().collect();
    assert_eq!((lines.len(), lines[0]), (2, "30\tnone"));
    let left: u64 = lines[1].strip_prefix("31\t").unwrap().parse().unwrap();
    assert!((99_000..=100_000).contains(&left), "{some:#?}");
    some.has_one_clear_line("32: not in the cache");

    let missing = redis.rpcache(&["ttl", "40", "--json"]).await;
    assert_eq!((missing.code, missing.stderr.as_str()), (Some(1), ""));
    assert_eq!(
        missing.stdout,
        "{\"argument\":\"40\",\"error\":\"not in the cache\"}\n"
    );
}

#[tokio::test]
async fn get_prints_json() {
    let redis = with(&["fib:30", "fib:31"]).await;
    let got = redis.rpcache(&["get", "30..32", "--json"]).await;
    assert_eq!((got.code, got.stderr.as_str()), (Some(1), ""));
    assert_eq!(
        got.stdout,
        "{\"argument\":\"30\",\"answer\":\"832040\"}\n\
         {\"argument\":\"31\",\"error\":\"what is stored is not the answer: 832040\"}\n\
         {\"argument\":\"32\",\"error\":\"not in the cache\"}\n"
    );
}

#[tokio::test]
async fn removal_without_a_terminal_needs_the_option_yes() {
    let redis = with(&["fib:10", "fib:11", "fib:30"]).await;
    for arguments in [&["rm", "--all"][..], &["rm", "--pattern", "1*"]] {
        redis.rpcache(arguments).await.refuses(2, "--yes");
    }
    let dry = ["rm", "--pattern", "fib:1*", "--dry-run"];
    let dry = redis.rpcache(&dry).await;
    assert_eq!(sorted(&dry), ["fib:10", "fib:11"]);
    assert_eq!(dry.stderr, "would remove 2\n");
    let dry = redis
        .rpcache(&["rm", "30..40", "--dry-run", "--json"])
        .await;
    dry.answers("{\"key\":\"fib:30\"}\n{\"would_remove\":1}\n");
    assert_eq!(redis.keys().await, ["fib:10", "fib:11", "fib:30"]);

    let some = redis.rpcache(&["rm", "--pattern", "1*", "--yes"]).await;
    some.answers("removed 2\n");
    assert_eq!(redis.keys().await, ["fib:30"]);
    redis
        .rpcache(&["rm", "0..2500", "--json"])
        .await
        .answers("{\"removed\":1}\n");
    assert!(redis.keys().await.is_empty());
}

#[tokio::test]
async fn removal_of_all_stays_in_its_namespace() {
    let redis = with(&OTHERS).await;
    let others = redis.run::<Vec<String>>(&["KEYS", "*"]).await.len();
    redis.set("fib:30", "832040").await;
    redis.set("fib:garbage", "1").await;
    redis.run::<()>(&["LPUSH", "fib:31", "x"]).await;
    redis
        .rpcache(&["rm", "--all", "-y"])
        .await
        .answers("removed 3\n");
    redis
        .rpcache(&["rm", "--pattern", "*", "-y"])
        .await
        .answers("removed 0\n");
    assert_eq!(redis.run::<Vec<String>>(&["KEYS", "*"]).await.len(), others);
    let prod = redis
        .program(&["rm", "--all", "-y"])
        .env("RPCACHE_NAMESPACE", "prod");
    prod.run().await.answers("removed 1\n");
    assert_eq!(redis.get("prod:fib:30").await, None);
    assert_eq!(redis.get("fib:fib:30").await.as_deref(), Some("832040"));
}

#[tokio::test]
async fn many_pages_are_listed_and_removed() {
    let redis = Redis::start();
    let fill = "for n = 1, 25000 do redis.call('SET', 'fib:' .. n, n) end";
    redis.run::<()>(&["EVAL", fill, "0"]).await;
    redis.set("other", "1").await;
    let listed = redis.rpcache(&["ls"]).await;
    let mut keys = sorted(&listed);
    keys.dedup();
    assert_eq!(keys.len(), 25_000);
    redis
        .rpcache(&["rm", "--all", "--yes"])
        .await
        .answers("removed 25000\n");
    assert_eq!(redis.keys().await, ["other"]);
}

/// Runs a command on a terminal, answers its question, and prints its output.
const ON_A_TERMINAL: &str = r#"
import os, pty, sys
process, terminal = pty.fork()
if process == 0:
    os.execv(sys.argv[2], sys.argv[2:])
seen = b""
while b"[y/N]" not in seen:
    seen += os.read(terminal, 1024)
os.write(terminal, sys.argv[1].encode() + b"\n")
try:
    while piece := os.read(terminal, 1024):
        seen += piece
except OSError:
    pass
sys.stdout.buffer.write(seen)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]))
"#;

#[tokio::test]
async fn removal_on_a_terminal_asks() {
    let redis = with(&["fib:30", "fib:31", "other"]).await;
    let answer = async |answer| {
        let command = [env!("CARGO_BIN_EXE_rpcache"), "cache", "rm", "--all"];
        let arguments = [&["-c", ON_A_TERMINAL, answer], &command[..]].concat();
        let program = Program::new("python3", &arguments).env("REDIS_URL", &redis.url());
        program.run().await
    };
    for no in ["", "n", "yep", "\u{4}"] {
        let finished = answer(no).await;
        assert_eq!(finished.code, Some(1), "{finished:#?}");
        assert!(
            finished.stdout.contains("remove 2 answers of fib? [y/N]"),
            "{finished:#?}"
        );
        assert_eq!(redis.keys().await.len(), 3);
    }
    let finished = answer("y").await;
    assert_eq!(finished.code, Some(0), "{finished:#?}");
    assert!(finished.stdout.contains("removed 2"), "{finished:#?}");
    assert_eq!(redis.keys().await, ["other"]);
}

#[tokio::test]
async fn unreachable_redis_is_reported() {
    let closed = ClosedPort::reserve();
    let url = format!("redis://:s3cret@127.0.0.1:{}", closed.port());
    for arguments in [
        &["get", "30"][..],
        &["ls", "--long"],
        &["ttl", "30"],
        &["rm", "30"],
        &["rm", "--all", "--yes"],
        &["verify"],
        &["verify", "--sample", "5", "--json"],
        &["stats"],
        &["stats", "--json"],
        &["explain", "30"],
    ] {
        let program = Program::rpcache(&[&["cache"], arguments].concat());
        let finished = program.env("REDIS_URL", &url).run().await;
        finished.refuses(3, "is it running?");
        assert!(!finished.stderr.contains("s3cret"), "{finished:#?}");
    }
}

#[tokio::test]
async fn wrong_options_are_refused() {
    for (arguments, reason) in [
        (&["rm"][..], "ARGUMENT"),
        (&["rm", "30", "--all"], "--all"),
        (&["rm", "30", "--pattern", "1*"], "--pattern"),
        (&["rm", "--all", "--pattern", "1*"], "--pattern"),
        (&["rm", "--pattern", ""], "--pattern"),
        (&["ls", ""], "pattern"),
        (&["ls", &"x".repeat(101)], "pattern"),
        (&["ttl", "-5"], "-5"),
        (&["ttl", "5..1"], "5..1"),
        (&["explain", "abc"], "abc"),
        (&["explain", "1..5"], "1..5"),
        (&["verify", "--sample", "some"], "--sample"),
        (&["stats", "30"], "30"),
    ] {
        let program = Program::rpcache(&[&["cache"], arguments].concat());
        program.run().await.refuses(2, reason);
    }
}
