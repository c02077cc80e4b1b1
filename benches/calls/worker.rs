//! `worker`: the memory of a worker, idle and after a long load.

use std::time::Duration;

use crate::processes::memory;
use crate::servers::Servers;
use crate::table::{Goal, Table};

/// The number of loads, one after another; the first one fills buffers and pools.
const LOADS: usize = 5;

pub(crate) async fn run(table: &mut Table) {
    let servers = Servers::start();
    let _worker = servers.workers(1, &[]).await;
    let pid = servers.statuses().await[0]["pid"]
        .as_u64()
        .expect("a number");
    let pid = u32::try_from(pid).expect("a process id");
    let now = || memory(pid, "VmRSS").expect("the worker lives");
    // Idle means after its first call.
    tokio::time::sleep(Duration::from_secs(2)).await;
    table.at_most("idle", "MB", &[now()], 30.0);

    let load = [
        "bench",
        "--no-cache",
        "--duration",
        "6s",
        "--concurrency",
        "256",
    ];
    let dear = ["--first", "0", "--keys", "20000"];
    let mut after = Vec::new();
    for _ in 0..LOADS {
        let bench = servers.rpcache(&[&load[..], &dear].concat()).run().await;
        assert_eq!(bench.code, Some(0), "{}", bench.stderr);
        after.push(now());
    }
    let first = after.remove(0);
    table.info("after 6 s of load", "MB", &[first]);
    table.add(
        "after more of it, against that",
        "MB",
        (&after, &[first]),
        Goal::AtMost(1.1),
    );
}
