//! `rpcache cache verify`: it names wrong entries, removes them with `--repair`, and leaves right ones.

use num_bigint::BigUint;

use crate::support::redis::Redis;

/// An argument whose answer is larger than one read.
const LARGE: u64 = 1_300_000;

/// Wrong values under keys of `fib`: key, value, code and message.
const WRONG: [(&str, &[u8], &str, &str); 7] = [
    (
        "fib:41",
        b"832040",
        "not-the-answer",
        "not the answer: \"832040\"",
    ),
    (
        "fib:42",
        b"",
        "unreadable",
        "not readable as an answer: \"\"",
    ),
    (
        "fib:43",
        b"0433494437",
        "unreadable",
        "not readable as an answer: \"0433494437\"",
    ),
    (
        "fib:44",
        b"1\x1b[2J\n",
        "unreadable",
        "not readable as an answer: \"1\\u{1b}[2J\\n\"",
    ),
    ("fib:45", b"\xff\xfe", "not-utf8", "not UTF-8"),
    (
        "fib:046",
        b"1836311903",
        "no-argument",
        "the key is no argument's",
    ),
    ("fib:\x1b", b"1", "no-argument", "the key is no argument's"),
];

async fn with_wrong_ones() -> Redis {
    let redis = Redis::start();
    for (key, value, ..) in WRONG {
        let set = redis::cmd("SET").arg(key).arg(value).to_owned();
        redis.command::<()>(&set).await;
    }
    redis.run::<()>(&["RPUSH", "fib:47", "1", "2"]).await;
    redis.set("fib:30", "832040").await;
    redis.set("fib:31", "1346269").await;
    redis.set("fib:fib:30", "1").await;
    redis.set("other", "1").await;
    redis
}

/// The lines that name the wrong entries, sorted.
fn named() -> Vec<String> {
    let of = |key: &str, what: &str| format!("{}\t{what}", key.escape_debug());
    let mut lines: Vec<_> = WRONG
        .iter()
        .map(|(key, _, _, what)| of(key, what))
        .collect();
    lines.push(of("fib:47", "a value that is no string"));
    lines.sort();
    lines
}

fn lines(stdout: &str) -> Vec<&str> {
    let mut lines: Vec<&str> = stdout.lines().collect();
    lines.sort_unstable();
    lines
}

#[tokio::test]
async fn wrong_entries_are_named_and_not_removed() {
    let redis = with_wrong_ones().await;
    let before = redis.keys().await;
    let finished = redis.rpcache(&["verify"]).await;
    assert_eq!(finished.code, Some(1), "{finished:#?}");
    assert_eq!(lines(&finished.stdout), named());
    finished.has_one_clear_line("checked 10 answers: 8 wrong; --repair");
    assert_eq!(redis.keys().await, before);
}

#[tokio::test]
async fn wrong_entries_are_printed_as_json() {
    let redis = with_wrong_ones().await;
    let finished = redis.rpcache(&["verify", "--json", "--repair"]).await;
    assert_eq!((finished.code, finished.stderr.as_str()), (Some(0), ""));
    let objects = finished
        .stdout
        .lines()
        .map(serde_json::from_str::<serde_json::Value>);
    let mut objects: Vec<_> = objects.map(Result::unwrap).collect();
    let summary = objects.pop().unwrap();
    assert_eq!(
        summary,
        serde_json::json!({"checked": 10, "wrong": 8, "removed": 8})
    );
    for (key, _, code, _) in WRONG {
        let key = key.escape_debug().to_string();
        let named = |object: &&serde_json::Value| object["key"] == key.as_str();
        let object = objects.iter().find(named).expect(&key);
        assert_eq!(object["wrong"], code);
        assert_eq!(object["removed"], true);
    }
}

#[tokio::test]
async fn repair_removes_wrong_entries_only() {
    let redis = with_wrong_ones().await;
    let finished = redis.rpcache(&["verify", "--repair"]).await;
    assert_eq!(finished.code, Some(0), "{finished:#?}");
    assert_eq!(lines(&finished.stdout), named());
    finished.has_one_clear_line("8 wrong, 8 removed");
    assert_eq!(
        redis.keys().await,
        ["fib:30", "fib:31", "fib:fib:30", "other"]
    );

    let finished = redis.rpcache(&["verify"]).await;
    finished.answers("");
    finished.has_one_clear_line("checked 2 answers: none is wrong");
}

/// A right answer and wrong ones that are read in several pieces.
#[tokio::test]
async fn large_entries_are_verified() {
    let redis = Redis::start();
    let right = large();
    let key = format!("fib:{LARGE}");
    redis.set(&key, &right).await;
    redis.rpcache(&["verify"]).await.answers("");

    let last = if right.ends_with('1') { "2" } else { "1" };
    let other_end = format!("{}{last}", &right[..right.len() - 1]);
    for (wrong, said) in [
        (other_end, "not the answer"),
        (format!("{right}0"), "not the answer"),
        ("9".repeat(1_000_000), "not the answer"),
        ("x".repeat(1_000_000), "not readable"),
    ] {
        redis.set(&key, &wrong).await;
        let finished = redis.rpcache(&["verify", "--repair"]).await;
        assert_eq!(finished.code, Some(0), "{finished:#?}");
        assert!(
            finished.stdout.starts_with(&format!("{key}\t{said}")),
            "{finished:#?}"
        );
        assert_eq!(redis.get(&key).await, None);
    }
}

/// F(LARGE) by fast doubling.
fn large() -> String {
    let (mut this, mut next) = (BigUint::ZERO, BigUint::from(1_u32));
    for bit in (0..u64::BITS).rev() {
        let double = &this * (2_u32 * &next - &this);
        let after = &this * &this + &next * &next;
        (this, next) = if LARGE >> bit & 1 == 0 {
            (double, after)
        } else {
            (after.clone(), double + after)
        };
    }
    this.to_string()
}

#[tokio::test]
async fn sample_has_the_requested_size_or_all_keys() {
    let redis = Redis::start();
    let fill = "for n = 1, 3000 do redis.call('SET', 'fib:' .. n, 'x') end";
    redis.run::<()>(&["EVAL", fill, "0"]).await;
    let checked = async |sample| {
        let finished = redis.rpcache(&["verify", "--sample", sample]).await;
        assert_eq!(finished.code, Some(1), "{finished:#?}");
        let mut keys: Vec<String> = finished.stdout.lines().map(str::to_owned).collect();
        keys.sort();
        keys.dedup();
        keys
    };
    let (some, others) = (checked("50").await, checked("50").await);
    assert_eq!((some.len(), others.len()), (50, 50));
    assert_ne!(some, others, "not drawn at random");
    assert_eq!(checked("5000").await.len(), 3000);
}
