//! `stampede`: a thousand callers of one missing key, from eight processes, with four workers. Counts how often it
//! is computed, also when the computing worker is killed, and how often each key of a cold Zipf load is.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::servers::Servers;
use crate::support::process::{Process, signal};
use crate::support::wait::wait_until;
use crate::table::Table;

const CLIENTS: usize = 8;
const CALLERS: usize = 125;
const WORKERS: usize = 4;
const SLOWLY: [&str; 2] = ["--algorithm", "iterative"];

const FIRST: u64 = 400_000;
const SECOND: u64 = FIRST + 1;

pub(crate) async fn run(table: &mut Table) {
    let servers = Servers::start();
    let workers = servers.workers(WORKERS, &SLOWLY).await;

    let before = computed_by_workers(&servers, 1).await;
    let start = Instant::now();
    let computed = by_answers(clients(&servers, FIRST)).await;
    let took = start.elapsed();
    let counted = computed_by_workers(&servers, before + 1).await - before;
    table.at_most(
        "1000 callers: computations, by the answers",
        "",
        &[computed],
        1.0,
    );
    #[expect(clippy::cast_precision_loss, reason = "a few")]
    table.at_most("by the workers' own count", "", &[counted as f64], 1.0);
    table.info("until all are answered", "s", &[took.as_secs_f64()]);

    let start = Instant::now();
    let asking = clients(&servers, SECOND);
    kill_the_one_computing(&servers, SECOND, took / 2).await;
    // The killed worker has not answered.
    let computed = by_answers(asking).await + 1.0;
    table.at_most(
        "1000 callers, computing worker killed",
        "",
        &[computed],
        2.0,
    );
    table.info(
        "until all are answered",
        "s",
        &[start.elapsed().as_secs_f64()],
    );
    drop(workers);

    zipf(table, &Servers::start()).await;
}

fn clients(servers: &Servers, n: u64) -> Vec<Process> {
    let n = n.to_string();
    let mut arguments = vec!["call", "--json", "--timeout", "25s"];
    arguments.extend([n.as_str()].repeat(CALLERS));
    let start = || servers.rpcache(&arguments).start();
    (0..CLIENTS).map(|_| start()).collect()
}

/// Fails unless all callers are answered; returns how many answers have the source `computed`.
async fn by_answers(clients: Vec<Process>) -> f64 {
    let (mut answered, mut computed) = (0, 0_u32);
    for client in clients {
        let ended = client.finish().await;
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        for line in ended.stdout.lines() {
            let line: Value = serde_json::from_str(line).expect("JSON");
            answered += 1;
            computed += u32::from(line["source"] == "computed");
        }
    }
    assert_eq!(answered, CLIENTS * CALLERS, "not all callers are answered");
    f64::from(computed)
}

/// The number of computations that the workers have announced, once it is at least `fewest`. Workers announce every
/// two seconds: then all have the time to announce more.
async fn computed_by_workers(servers: &Servers, fewest: u64) -> u64 {
    let announced = async || {
        let statuses = servers.statuses().await;
        let computed = |status: &Value| status["counts"]["computed"].as_u64().expect("a number");
        statuses.iter().map(computed).sum::<u64>()
    };
    wait_until("the workers have announced it", async || {
        announced().await >= fewest
    })
    .await;
    tokio::time::sleep(Duration::from_millis(2500)).await;
    announced().await
}

async fn kill_the_one_computing(servers: &Servers, n: u64, halfway: Duration) {
    let mut holder = None;
    wait_until("a worker computes it", async || {
        let lease = servers.redis.get(&format!("{{fib:{n}}}:lease")).await;
        holder = lease.and_then(|token| token.split_once('@').map(|(_, id)| id.to_owned()));
        holder.is_some()
    })
    .await;
    tokio::time::sleep(halfway).await;
    let statuses = servers.statuses().await;
    let holding = |status: &&Value| status["id"].as_str() == holder.as_deref();
    let pid = statuses
        .iter()
        .find(holding)
        .and_then(|status| status["pid"].as_u64());
    signal(
        "KILL",
        u32::try_from(pid.expect("the worker has announced its process")).expect("a process id"),
    );
}

/// 100,000 calls for 1,000 keys.
async fn zipf(table: &mut Table, servers: &Servers) {
    let _workers = servers.workers(WORKERS, &[]).await;
    let bench = |seed: usize| {
        let seed = seed.to_string();
        // Cheaper ones are computed without a lease.
        let keys = [
            "--first",
            "1001",
            "--keys",
            "1000",
            "--distribution",
            "zipf",
        ];
        let calls = ["--calls", "12500", "--concurrency", "32", "--seed", &seed];
        let arguments = [&["bench", "--json"][..], &keys, &calls].concat();
        servers.rpcache(&arguments).start()
    };
    let clients: Vec<_> = (0..CLIENTS).map(bench).collect();
    let mut computed = 0;
    for client in clients {
        let ended = client.finish().await;
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        let report: Value = serde_json::from_str(&ended.stdout).expect("JSON");
        computed += report["sources"]["computed"].as_u64().expect("a number");
    }
    let keys = servers.redis.keys().await.len();
    #[expect(clippy::cast_precision_loss, reason = "some thousand")]
    let each = computed as f64 / keys as f64;
    table.at_most(
        format!("cold Zipf load: computations of each of {keys}"),
        "",
        &[each],
        1.0,
    );
}
