//! A Redis Cluster: answers, leases and invalidations over all shards, and what a shard costs that is dead,
//! frozen, replaced or on its way.

use crate::support::process::{Finished, Process, Program};
use crate::support::redis::Redis;
use crate::support::redis_cluster::RedisCluster;
use crate::support::wait::wait_until;
use crate::support::{EXPENSIVE, Setup, fibonacci};
use serde_json::Value;
use std::time::{Duration, Instant};

/// `rpcache` with these arguments, knowing the broker and the cluster.
fn rpcache(setup: &Setup, cluster: &RedisCluster, arguments: &[&str]) -> Program {
    setup.rpcache(arguments).env("REDIS_URL", &cluster.url())
}

async fn worker(setup: &Setup, cluster: &RedisCluster) -> Process {
    setup.serving(rpcache(setup, cluster, &["worker"])).await
}

/// `rpcache cache` with these arguments.
async fn cache(cluster: &RedisCluster, arguments: &[&str]) -> Finished {
    let program = Program::rpcache(&[&["cache"], arguments].concat());
    program.env("REDIS_URL", &cluster.url()).run().await
}

fn from_cache(finished: &Finished) -> usize {
    assert_eq!(finished.code, Some(0), "{finished:#?}");
    finished.stdout.matches("\"source\":\"cache\"").count()
}

/// A long-lived caller that is fed one number at a time.
struct Caller {
    process: Process,
    asked: usize,
}

impl Caller {
    fn start(program: Program) -> Self {
        Self {
            process: program.fed().start(),
            asked: 0,
        }
    }

    /// Asks, and returns the source of the answer, which is right; the error's code where there is none.
    async fn source(&mut self, n: u64) -> String {
        self.process.feed(&format!("{n}\n")).await;
        self.asked += 1;
        wait_until("it is answered", async || {
            self.process.stdout().matches('\n').count() == self.asked
        })
        .await;
        let stdout = self.process.stdout();
        let line: Value = serde_json::from_str(stdout.lines().last().unwrap()).unwrap();
        match line["source"].as_str() {
            Some(source) => {
                assert_eq!(line["answer"], fibonacci(n), "{line}");
                source.to_owned()
            }
            None => line["error"].to_string(),
        }
    }
}

/// A number whose key is on the node at this position, by another node's word.
async fn number_on(cluster: &RedisCluster, node: usize, by: usize) -> u64 {
    for n in 0..1000 {
        if cluster.owner(&format!("fib:{n}"), by).await == node {
            return n;
        }
    }
    panic!("no key of a thousand is on node {node}");
}

#[tokio::test]
async fn answers_of_all_shards_are_stored_found_and_managed() {
    let setup = Setup::new().await;
    let cluster = RedisCluster::start(3, 0).await;
    let worker = worker(&setup, &cluster).await;
    let call = async |arguments: &[&str]| {
        let arguments = [&["call", "--cache-budget", "5s"], arguments].concat();
        rpcache(&setup, &cluster, &arguments).run().await
    };
    let first = call(&["0..99"]).await;
    assert_eq!((first.code, first.stderr.as_str()), (Some(0), ""));
    let again = call(&["0..99", "--json"]).await;
    assert_eq!((from_cache(&again), again.stderr.as_str()), (100, ""));
    for node in 0..3 {
        let keys = cluster.keys(&[node]).await;
        assert!((15..60).contains(&keys.len()), "node {node}: {keys:?}");
    }
    wait_until("the worker is seen", async || {
        let top = rpcache(&setup, &cluster, &["top", "--json", "--interval", "200ms"]);
        top.run().await.stdout.contains("\"workers\":1")
    })
    .await;
    let listed = cache(&cluster, &["ls", "--json"]).await;
    assert_eq!(listed.stdout.lines().count(), 100, "{listed:#?}");
    let stats = cache(&cluster, &["stats", "--json"]).await;
    let stats: Value = serde_json::from_str(&stats.stdout).unwrap();
    let answers = &stats["survey"]["answers"];
    assert_eq!(answers["count"], 100, "{stats}");
    assert_eq!(answers["precision"], "exact", "{stats}");
    let owner = cluster.owner("fib:7", 0).await;
    cluster.nodes[owner].set("fib:7", "14").await;
    let verified = cache(&cluster, &["verify", "--repair"]).await;
    assert!(verified.stdout.contains("fib:7"), "{verified:#?}");
    assert_eq!(cluster.keys(&[0, 1, 2]).await.len(), 99);
    let removed = cache(&cluster, &["rm", "--all", "--yes"]).await;
    removed.answers("removed 99\n");
    assert!(cluster.keys(&[0, 1, 2]).await.is_empty());
    let log = setup.assert_settled(worker).await.stderr;
    assert!(
        !log.contains("CROSSSLOT") && !log.contains("MOVED"),
        "{log}"
    );
}

#[tokio::test]
async fn a_costly_key_is_computed_once_on_whichever_shard_it_is() {
    let setup = Setup::new().await;
    let cluster = RedisCluster::start(3, 0).await;
    let _workers = [
        worker(&setup, &cluster).await,
        worker(&setup, &cluster).await,
    ];
    let range = format!("{EXPENSIVE}..{}", EXPENSIVE + 11);
    let call = || {
        rpcache(
            &setup,
            &cluster,
            &["call", &range, "--json", "--cache-budget", "10s"],
        )
    };
    let (one, other) = (call().start(), call().start());
    let (one, other) = (one.finish().await, other.finish().await);
    for finished in [&one, &other] {
        assert_eq!(finished.code, Some(0), "{finished:#?}");
    }
    let computed = |finished: &Finished| finished.stdout.matches("\"computed\"").count();
    let sources = computed(&one) + computed(&other);
    assert_eq!(sources, 12, "{one:#?} {other:#?}");
    assert_eq!(cluster.keys(&[0, 1, 2]).await.len(), 12);
}

#[tokio::test]
async fn a_dead_shard_costs_its_own_keys_alone() {
    let setup = Setup::new().await;
    // The others of a cluster go on where that is asked for.
    let options = ["--cluster-require-full-coverage", "no"];
    let mut cluster = RedisCluster::start_with(3, 0, &options).await;
    let worker = worker(&setup, &cluster).await;
    let fill = rpcache(&setup, &cluster, &["call", "0..59"]).run().await;
    assert_eq!(fill.code, Some(0), "{fill:#?}");
    let dead = cluster.owner("fib:7", 0).await;
    let other = (dead + 1) % 3;
    cluster.nodes[dead].kill();
    let arguments = ["call", "0..59", "--json"];
    let again = rpcache(&setup, &cluster, &arguments).run().await;
    let alive: Vec<_> = (0..3).filter(|&node| node != dead).collect();
    let held = cluster.keys(&alive).await.len();
    assert!((20..60).contains(&held), "{held}");
    assert_eq!(from_cache(&again), held, "{again:#?}");
    let share = "% of the keys are there); calls go on without the cache";
    again.has_one_clear_line(share);
    let n = number_on(&cluster, other, other).await;
    cluster.nodes[other]
        .run::<()>(&["DEL", &format!("fib:{n}")])
        .await;
    let call = rpcache(&setup, &cluster, &["call", &n.to_string()])
        .run()
        .await;
    call.answers(&format!("{}\n", fibonacci(n)));
    assert!(
        cluster.nodes[other]
            .get(&format!("fib:{n}"))
            .await
            .is_some()
    );
    let log = setup.assert_settled(worker).await.stderr;
    assert!(log.contains(share), "{log}");
}

/// What becomes of the primary of a key.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Fate {
    Killed,
    Frozen,
}

#[tokio::test]
async fn hits_are_back_as_soon_as_a_replica_has_taken_the_place_of_a_primary() {
    for fate in [Fate::Killed, Fate::Frozen] {
        let setup = Setup::new().await;
        let mut cluster = RedisCluster::start(3, 1).await;
        let _worker = worker(&setup, &cluster).await;
        let fill = rpcache(&setup, &cluster, &["call", "0..59"]).run().await;
        assert_eq!(fill.code, Some(0), "{fill:#?}");
        let primary = cluster.owner("fib:7", 0).await;
        let (replica, n) = (primary + 3, 7);
        wait_until("the replica has it", async || {
            let readonly = cluster.nodes[replica].run::<u64>(&["DBSIZE"]).await;
            readonly == cluster.nodes[primary].run::<u64>(&["DBSIZE"]).await
        })
        .await;
        let by = (primary + 1) % 3;
        let others = number_on(&cluster, by, by).await;
        let arguments = ["call", "-", "--json", "--keep-going"];
        let mut caller = Caller::start(rpcache(&setup, &cluster, &arguments));
        assert_eq!(caller.source(n).await, "cache");
        match fate {
            Fate::Killed => cluster.nodes[primary].kill(),
            Fate::Frozen => cluster.nodes[primary].freeze(),
        }
        assert_eq!(caller.source(others).await, "cache");
        cluster.is_primary(replica).await;
        let promoted = Instant::now();
        wait_until("it is a hit again", async || {
            caller.source(n).await == "cache"
        })
        .await;
        let took = promoted.elapsed();
        assert!(took < Duration::from_secs(2), "{fate:?}: {took:?}");
        if fate == Fate::Frozen {
            cluster.nodes[primary].thaw();
        }
    }
}

/// Runs calls at an even rate while `change` goes on; what the report says.
async fn under_load(
    setup: &Setup,
    cluster: &RedisCluster,
    change: impl Future<Output = ()>,
) -> Value {
    let load = [
        "bench",
        "--rate",
        "300",
        "--duration",
        "8s",
        "--keys",
        "300",
        "--hits",
        "1",
    ];
    let load = [
        &load[..],
        &["--json", "--concurrency", "32", "--cache-budget", "1s"],
    ]
    .concat();
    let load = rpcache(setup, cluster, &load).start();
    change.await;
    let finished = load.finish().await;
    assert_eq!(finished.code, Some(0), "{finished:#?}");
    serde_json::from_str(&finished.stdout).unwrap()
}

#[tokio::test]
async fn resharding_and_a_failover_fail_no_call() {
    let setup = Setup::new().await;
    let cluster = RedisCluster::start(2, 1).await;
    let fresh = RedisCluster::node(&[]);
    cluster.meet(&fresh).await;
    wait_until("it is known", async || {
        let info: String = fresh.run(&["CLUSTER", "INFO"]).await;
        info.contains("cluster_known_nodes:5") && info.contains("cluster_state:ok")
    })
    .await;
    let program = rpcache(&setup, &cluster, &["worker", "--cache-budget", "1s"]);
    let _worker = setup.serving(program).await;
    let report = under_load(&setup, &cluster, async {
        wait_until("the answers are stored", async || {
            cluster.keys(&[0, 1]).await.len() == 300
        })
        .await;
        cluster.reshard(0..200, &cluster.nodes[0], &fresh).await;
        cluster.promote(3).await;
    })
    .await;
    assert_eq!(report["failed"], 0, "{report}");
    let sources = &report["sources"];
    let hits = sources["cache"].as_u64().unwrap_or(0);
    let calls: u64 = sources
        .as_object()
        .unwrap()
        .values()
        .filter_map(Value::as_u64)
        .sum();
    assert!(hits * 10 >= calls * 9, "{report}");
    assert!(!fresh.keys().await.is_empty());
}

#[tokio::test]
async fn a_removal_reaches_the_near_copies_of_clients_at_any_node() {
    let setup = Setup::new().await;
    let cluster = RedisCluster::start(3, 0).await;
    let _worker = worker(&setup, &cluster).await;
    let arguments = ["call", "-", "--json", "--local-cache", "1MB"];
    for n in [30, 31, 32] {
        let mut caller = Caller::start(rpcache(&setup, &cluster, &arguments));
        wait_until("it has a copy", async || caller.source(n).await == "local").await;
        cache(&cluster, &["rm", &n.to_string()])
            .await
            .answers("removed 1\n");
        wait_until("the copy is gone", async || {
            caller.source(n).await == "computed"
        })
        .await;
    }
}

/// What the doctor says of Redis, without what the broker is in the way of.
async fn doctor(redis_url: &str) -> String {
    let doctor = Program::rpcache(&["doctor"])
        .env("AMQP_URL", "amqp://127.0.0.1:1")
        .env("REDIS_URL", redis_url);
    let finished = doctor.run().await;
    let (_, of_redis) = finished.stdout.split_once("redis-protocol").unwrap();
    let words = of_redis.lines().skip(1).flat_map(str::split_whitespace);
    words.collect::<Vec<_>>().join(" ")
}

#[tokio::test]
async fn what_is_no_cluster_s_address_is_refused_with_what_to_write() {
    let cluster = RedisCluster::start(2, 0).await;
    let node = format!("127.0.0.1:{}", cluster.nodes[0].port());
    let told = doctor(&format!("redis://{node}")).await;
    let expected =
        format!("it is a node of a Redis Cluster of 2 shards: write redis+cluster://{node}");
    assert!(told.contains(&expected), "{told}");
    let single = Redis::start();
    let told = doctor(&format!("redis+cluster://127.0.0.1:{}", single.port())).await;
    assert!(told.contains("cluster support disabled"), "{told}");
    assert!(told.contains("begins with redis://"), "{told}");
    for node in &cluster.nodes {
        let user = [
            "ACL", "SETUSER", "u", "on", ">pw", "~*", "+@all", "-cluster",
        ];
        node.run::<()>(&user).await;
    }
    let told = doctor(&cluster.url_with("u:pw@")).await;
    assert!(told.contains("takes the right +cluster|slots"), "{told}");
    let told = doctor(&cluster.url()).await;
    assert!(!told.contains("FAILURE redis"), "{told}");
    let expected = "redis-login as default, to a Redis Cluster of 2 primaries, 127.0.0.1:";
    assert!(told.contains(expected), "{told}");
}
