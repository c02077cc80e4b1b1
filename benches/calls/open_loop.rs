//! `open-loop`: the latency of calls at half of the highest rate of client, servers and worker together, by
//! `rpcache bench`.
//!
//! At the highest rate, a call mostly waits in line. So that rate is measured first, and then the latency of
//! calls that are due at even intervals at half of it, whether earlier ones have ended or not. Misses start with
//! an empty cache and the argument 1, and use each argument once: looked up, computed, stored. Most are above
//! 1000, and so take a lease.

use serde_json::Value;

use crate::servers::Servers;
use crate::table::Table;

const ROUNDS: usize = 3;
/// Calls of a run: a few seconds' worth.
const HITS: &str = "500000";
const MISSES: &str = "16000";

pub(crate) async fn run(table: &mut Table) {
    let servers = Servers::start();
    let _worker = servers.workers(1, &[]).await;
    for (what, share, calls) in [("hits", "1", HITS), ("misses", "0", MISSES)] {
        let load = ["--hits", share, "--calls", calls, "--first", "0"];
        let keys = ["--keys", if share == "1" { "1000" } else { "1" }];
        let load = [&load[..], &keys].concat();
        let [mut most, mut half, mut p50, mut p99, mut p99_9] = [(); 5].map(|()| Vec::new());
        for _ in 0..ROUNDS {
            let closed = bench(&servers, &load).await;
            let maximum = number(&closed["per_second"]);
            let rate = format!("{:.0}", maximum / 2.0);
            let open = bench(&servers, &[&load[..], &["--rate", &rate]].concat()).await;
            most.push(maximum);
            half.push(number(&open["per_second"]));
            let latency = &open["latency_ms"];
            p50.push(number(&latency["p50"]));
            p99.push(number(&latency["p99"]));
            p99_9.push(number(&latency["p99_9"]));
        }
        table.info(format!("{what}: highest rate, 256 tasks"), "1/s", &most);
        table.info(format!("{what}: half of it, open loop"), "1/s", &half);
        table.info(format!("{what} at half of it: p50"), "ms", &p50);
        table.info(format!("{what} at half of it: p99"), "ms", &p99);
        table.info(format!("{what} at half of it: p99.9"), "ms", &p99_9);
    }
}

/// The report of one run, which must succeed.
async fn bench(servers: &Servers, load: &[&str]) -> Value {
    servers.redis.run::<()>(&["FLUSHALL"]).await;
    let tasks = ["bench", "--json", "--concurrency", "256"];
    let ended = servers.rpcache(&[&tasks[..], load].concat()).run().await;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    serde_json::from_str(&ended.stdout).expect("JSON")
}

fn number(value: &Value) -> f64 {
    value.as_f64().expect("a number")
}
