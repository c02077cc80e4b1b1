//! Wrong arguments and options: exit code 2 and one clear line, before any connection.

use crate::support::ports::ClosedPort;
use crate::support::process::Program;
use std::time::Duration;

/// Limit for parsing, which waits for no server.
const AT_ONCE: Duration = Duration::from_secs(2);

async fn is_refused(arguments: &[&str], reason: &str) {
    eprintln!("rpcache {arguments:?}");
    let finished = Program::rpcache(arguments).run().await;
    finished.refuses(2, reason);
    assert!(finished.took < AT_ONCE, "{finished:#?}");
}

#[tokio::test]
async fn invalid_arguments_are_refused() {
    let words = [
        "abc",
        "-5",
        "+5",
        "1.5",
        "30abc",
        "1e3",
        "0x1e",
        "1_000",
        " 30",
        "３０",
        "18446744073709551616",
        "\u{1b}[31m",
    ];
    for word in words {
        is_refused(&["call", word], &word.escape_debug().to_string()).await;
    }
    for blank in ["", " ", "\t", "\n"] {
        is_refused(&["call", blank], "").await;
    }
    is_refused(&["call", "30", "abc"], "abc").await;
    is_refused(&["cache", "get", "abc"], "abc").await;
    is_refused(&["cache", "rm", "-5"], "-5").await;
}

#[tokio::test]
async fn invalid_ranges_are_refused() {
    for range in [
        "5..1", "1..", "..5", "..", "a..b", "1..b", "1...5", "1..2..3", "-1..5", "1..-5", "1..=5",
    ] {
        is_refused(&["call", range], range).await;
    }
}

#[tokio::test]
async fn invalid_durations_are_refused() {
    for duration in [
        "",
        "abc",
        "-1s",
        "1 week",
        "1e9s",
        "5ss",
        "ms",
        "99999999999999999999s",
    ] {
        is_refused(
            &["call", "30", &format!("--timeout={duration}")],
            "--timeout",
        )
        .await;
    }
    is_refused(&["call", "30", "--ttl", "sometimes"], "--ttl").await;
    is_refused(&["call", "30", "--timeout", "none"], "--timeout").await;
}

#[tokio::test]
async fn invalid_options_are_refused() {
    is_refused(&["call"], "").await;
    is_refused(&["worker", "30"], "30").await;
    is_refused(&["call", "30", "--nonsense"], "--nonsense").await;
    is_refused(&["call", "30", "--no-cache", "--refresh"], "--refresh").await;
    is_refused(&["worker", "--concurrency", "0"], "--concurrency").await;
    is_refused(&["worker", "--prefetch", "0"], "--prefetch").await;
    is_refused(&["worker", "--prefetch", "65536"], "--prefetch").await;
    is_refused(&["worker", "--algorithm", "guess"], "guess").await;
    is_refused(&["worker", "--declare", "stream"], "stream").await;
    is_refused(&["worker", "--queue", &"q".repeat(256)], "--queue").await;
    is_refused(
        &["worker", "--max-reply-size", "0"],
        "must be greater than 0",
    )
    .await;
}

#[tokio::test]
async fn a_refusal_names_the_help_of_the_subcommand() {
    for (arguments, help) in [
        (&["30"][..], "see rpcache --help"),
        (&["call", "abc"], "see rpcache call --help"),
        (
            &["-v", "cache", "explain", "30", "31"],
            "see rpcache cache explain --help",
        ),
        (
            &["cache", "explain", "30..31"],
            "see rpcache cache explain --help",
        ),
        (&["cache", "lost"], "see rpcache cache --help"),
    ] {
        is_refused(arguments, help).await;
    }
}

/// Scripts write `RPCACHE_TTL= rpcache ...`.
#[tokio::test]
async fn an_empty_variable_counts_as_not_set() {
    let closed = ClosedPort::reserve();
    let [amqp, redis] = ["amqp", "redis"].map(|s| format!("{s}://127.0.0.1:{}", closed.port()));
    let call = ["call", "30", "--amqp-url", &amqp, "--redis-url", &redis];
    let get = ["cache", "get", "30", "--redis-url", &redis];
    for arguments in [&call[..], &get[..]] {
        let variables = ["RPCACHE_TTL", "RPCACHE_NAMESPACE", "RPCACHE_TLS_CA"];
        let set = |program: Program, name: &str| program.env(name, "");
        let finished = variables.into_iter().fold(Program::rpcache(arguments), set);
        let finished = finished.run().await;
        // The options are valid; only the servers are missing.
        assert_eq!(finished.code, Some(3), "{finished:#?}");
    }
}

#[tokio::test]
async fn url_that_is_malformed_is_refused() {
    let urls = [
        "",
        "localhost",
        "localhost:5672",
        "http://localhost/",
        "amqp:",
        "amqp://",
        "amqp://localhost:99999",
        "amqp://localhost:port",
        "amqp://[::1",
        "amqp://localhost/a/b",
    ];
    for url in urls {
        is_refused(&["call", "30", "--amqp-url", url], "").await;
        is_refused(&["worker", "--amqp-url", url], "").await;
    }
    for url in [
        "",
        "localhost",
        "http://localhost/",
        "redis://",
        "redis://localhost:99999",
        "redis://localhost/x",
        "unix://localhost/x",
    ] {
        is_refused(&["call", "30", "--redis-url", url], "").await;
        is_refused(&["cache", "ls", "--redis-url", url], "").await;
    }
}

/// A URL is refused without showing the password in it.
#[tokio::test]
async fn password_in_a_malformed_url_is_not_shown() {
    for url in [
        "amqp://user:s3cret@localhost:99999",
        "http://user:s3cret@localhost",
        "user:s3cret@localhost",
        "amqp://user:s3cret@",
    ] {
        for (flag, variable) in [("--amqp-url", "AMQP_URL"), ("--redis-url", "REDIS_URL")] {
            let by_flag = Program::rpcache(&["call", "30", flag, url]).run().await;
            let by_variable = Program::rpcache(&["call", "30"])
                .env(variable, url)
                .run()
                .await;
            for finished in [by_flag, by_variable] {
                finished.refuses(2, "");
                assert!(!finished.stderr.contains("s3cret"), "{finished:#?}");
            }
        }
    }
}

#[tokio::test]
async fn help_shows_no_password() {
    for arguments in [
        &["--help"][..],
        &["call", "--help"],
        &["worker", "--help"],
        &["cache", "--help"],
        &["cache", "get", "--help"],
        &["call", "-h"],
    ] {
        let help = Program::rpcache(arguments)
            .env("AMQP_URL", "amqp://user:s3cret@localhost")
            .env("REDIS_URL", "redis://user:s3cret@localhost")
            .run()
            .await;
        assert_eq!(help.code, Some(0), "{help:#?}");
        assert!(help.stdout.contains("Usage"), "{help:#?}");
        assert!(!format!("{help:?}").contains("s3cret"), "{help:#?}");
    }
}

#[tokio::test]
async fn version_is_printed() {
    Program::rpcache(&["--version"])
        .run()
        .await
        .answers(concat!("rpcache ", env!("CARGO_PKG_VERSION"), "\n"));
}
