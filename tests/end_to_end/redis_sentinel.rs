//! Redis behind Sentinels: the primary is found, and followed when it is another one.

use crate::support::Setup;
use crate::support::process::Program;
use crate::support::sentinel_set::SentinelSet;
use crate::support::wait::wait_until;
use std::time::{Duration, Instant};

fn rpcache(setup: &Setup, set: &SentinelSet, arguments: &[&str]) -> Program {
    setup.rpcache(arguments).env("REDIS_URL", &set.url())
}

/// The source of an answer, by a fresh command.
async fn source(setup: &Setup, set: &SentinelSet, n: u64) -> String {
    let n = n.to_string();
    let call = rpcache(setup, set, &["call", &n, "--json"]).run().await;
    assert_eq!(call.code, Some(0), "{call:#?}");
    let line: serde_json::Value = serde_json::from_str(&call.stdout).unwrap();
    line["source"].as_str().unwrap().to_owned()
}

/// Waits until all replicas have as many keys as the primary.
async fn is_replicated(set: &SentinelSet) {
    wait_until("the replicas have all keys", async || {
        let count = set.nodes[0].keys().await.len();
        for replica in &set.nodes[1..] {
            if replica.keys().await.len() != count {
                return false;
            }
        }
        true
    })
    .await;
}

/// What becomes of the primary.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Fate {
    Killed,
    Frozen,
    Switched,
}

#[tokio::test]
async fn the_primary_is_followed_when_it_is_another_one() {
    for fate in [Fate::Killed, Fate::Frozen, Fate::Switched] {
        let setup = Setup::new().await;
        let mut set = SentinelSet::start(2).await;
        let program = rpcache(&setup, &set, &["worker"]);
        let worker = setup.serving(program).await;
        assert_eq!(source(&setup, &set, 30).await, "computed");
        assert_eq!(source(&setup, &set, 30).await, "cache");
        is_replicated(&set).await;
        let load = [
            "bench",
            "--rate",
            "200",
            "--duration",
            "10s",
            "--keys",
            "50",
            "--hits",
            "1",
        ];
        let load = [&load[..], &["--json", "--concurrency", "16"]].concat();
        let load = rpcache(&setup, &set, &load).start();
        wait_until("the answers are stored", async || {
            set.nodes[0].keys().await.len() >= 50
        })
        .await;
        is_replicated(&set).await;
        match fate {
            Fate::Killed => set.nodes[0].kill(),
            Fate::Frozen => set.nodes[0].freeze(),
            Fate::Switched => set.fail_over().await,
        }
        let promoted = set.promoted().await;
        let since = Instant::now();
        // The worker fills there as well.
        let mut n = 100;
        wait_until("the new primary is used", async || {
            n += 1;
            source(&setup, &set, n).await;
            set.nodes[promoted].get(&format!("fib:{n}")).await.is_some()
        })
        .await;
        let took = since.elapsed();
        assert!(took < Duration::from_secs(4), "{fate:?}: {took:?}");
        assert_eq!(source(&setup, &set, 30).await, "cache", "{fate:?}");
        let finished = load.finish().await;
        assert_eq!(finished.code, Some(0), "{fate:?}: {finished:#?}");
        let report: serde_json::Value = serde_json::from_str(&finished.stdout).unwrap();
        assert_eq!(report["failed"], 0, "{report}");
        if fate == Fate::Frozen {
            set.nodes[0].thaw();
        }
        let log = setup.assert_settled(worker).await.stderr;
        assert!(
            log.matches("calls go on without the cache").count() <= 2,
            "{log}"
        );
    }
}

#[tokio::test]
async fn sentinels_have_a_login_of_their_own_and_a_frozen_one_holds_nothing_up() {
    let setup = Setup::new().await;
    let options = ["--requirepass", "of-redis", "--masterauth", "of-redis"];
    let lines = "requirepass sentinel\nsentinel sentinel-pass sentinel\n\
                 sentinel auth-pass fleet of-redis\n";
    let set = SentinelSet::start_with(0, &options, lines).await;
    let url = set.url_with(":of-redis@", "?sentinel-password=sentinel");
    let call = async || {
        let call = setup.rpcache(&["call", "30"]).env("REDIS_URL", &url);
        call.run().await
    };
    let _worker = setup
        .serving(setup.rpcache(&["worker"]).env("REDIS_URL", &url))
        .await;
    let first = call().await;
    first.answers("832040\n");
    assert_eq!(first.stderr, "");
    set.freeze_sentinel(0);
    let again = setup
        .rpcache(&["call", "30", "--json"])
        .env("REDIS_URL", &url);
    let again = again.run().await;
    assert!(again.stdout.contains("\"source\":\"cache\""), "{again:#?}");
    let without = set.url_with(":of-redis@", "");
    let refused = setup.rpcache(&["call", "30"]).env("REDIS_URL", &without);
    let refused = refused.run().await;
    refused.answers("832040\n");
    refused.has_one_clear_line("NOAUTH");
    assert!(!refused.stderr.contains("of-redis"), "{refused:#?}");
}

#[tokio::test]
async fn an_unknown_name_and_what_is_no_sentinel_are_refused_with_what_there_is() {
    let setup = Setup::new().await;
    let set = SentinelSet::start(0).await;
    let told = async |url: &str| {
        let call = Program::rpcache(&["cache", "ls"]).env("REDIS_URL", url);
        call.run().await.stderr
    };
    let unknown = set.url().replace("/fleet", "/flet");
    let stderr = told(&unknown).await;
    assert!(
        stderr.contains("watches no primary \"flet\"; it watches fleet"),
        "{stderr}"
    );
    let none = format!("redis+sentinel://127.0.0.1:{}/fleet", setup.redis.port());
    let stderr = told(&none).await;
    assert!(stderr.contains("it is no Sentinel"), "{stderr}");
    let plain = format!("redis://127.0.0.1:{}", set.sentinel(0));
    let stderr = told(&plain).await;
    let expected = format!("write redis+sentinel://127.0.0.1:{}/fleet", set.sentinel(0));
    assert!(stderr.contains(&expected), "{stderr}");
}
