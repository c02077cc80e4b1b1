//! `fleet`: what workers cost that do nothing, and what announcements cost with 4,000 of them.
//!
//! Idle workers are processes. Of the 4,000 announcements all but one are copies of a real one, written as a worker
//! does every two seconds; `rpcache top` reads all of them at every refresh.

use std::time::{Duration, Instant};

use rpcache::{Cache, CacheOptions};

use crate::capacity::{info, pids, redis_pids};
use crate::cpu::Processes;
use crate::processes::memory;
use crate::role;
use crate::servers::Servers;
use crate::support::process::Process;
use crate::support::wait::wait_until;
use crate::table::Table;

const IDLE: Duration = Duration::from_secs(10);
const WORKERS: u32 = 16;
const ANNOUNCED: u32 = 4000;
/// How often all announcements are written, and read.
const ROUNDS: u32 = 5;
const HOUR: &str = "3600000";

pub(crate) async fn run(table: &mut Table) {
    let servers = Servers::start();
    let mut processes = Processes {
        worker: Vec::new(),
        rabbitmq: pids(&servers),
        redis: redis_pids(&servers).await,
    };
    idle(&servers, &mut processes, table).await;

    let _worker = servers.workers(1, &[]).await;
    let load = ["bench", "--no-cache", "--duration", "3s", "--first", "0"];
    let loaded = servers.rpcache(&[&load[..], &["--keys", "20000"]].concat());
    assert_eq!(loaded.run().await.code, Some(0), "the worker serves");
    // The announcement after the load: workers announce themselves every two seconds.
    let key = slot(0);
    let before = servers.redis.get(&key).await;
    wait_until("the worker announces itself again", async || {
        servers.redis.get(&key).await != before
    })
    .await;
    let announcement = servers.redis.get(&key).await.expect("an announcement");
    #[expect(clippy::cast_precision_loss, reason = "some kilobytes")]
    table.info("an announcement", "B", &[announcement.len() as f64]);
    write(&servers, &processes, &announcement, table).await;
    read(&servers, &processes, table).await;
    start(&servers, table).await;
}

/// Workers that wait for requests, against servers alone.
async fn idle(servers: &Servers, processes: &mut Processes, table: &mut Table) {
    let used = async |processes: &Processes| {
        let before = processes.read();
        tokio::time::sleep(IDLE).await;
        let (used, seconds) = processes.since(before);
        [used.worker, used.rabbitmq].map(|used| used / seconds * 1e6)
    };
    let rabbitmq = processes.rabbitmq[0];
    let memory_mb = || memory(rabbitmq, "VmRSS").expect("RabbitMQ lives");
    let alone = used(processes).await;
    let memory_alone = memory_mb();
    let worker = ["slow-worker", "rpc_queue.slow", "0", "66"];
    let workers: Vec<_> = (0..WORKERS)
        .map(|_| role::start(servers, &worker))
        .collect();
    let last = slot(WORKERS - 1);
    wait_until("all workers have announced themselves", async || {
        servers.redis.get(&last).await.is_some()
    })
    .await;
    processes.worker = workers.iter().map(Process::id).collect();
    let with = used(processes).await;
    for (place, what) in ["worker", "RabbitMQ"].into_iter().enumerate() {
        let each = (with[place] - alone[place]) / f64::from(WORKERS);
        table.info(format!("an idle worker: {what}"), "µs/s", &[each]);
    }
    let each = (memory_mb() - memory_alone) / f64::from(WORKERS);
    table.info("an idle worker: memory of RabbitMQ", "MB", &[each]);
    processes.worker.clear();
    drop(workers);
    servers.redis.run::<()>(&["FLUSHALL"]).await;
}

/// Announces 4,000 workers, each by a command of its own.
async fn write(servers: &Servers, processes: &Processes, announcement: &str, table: &mut Table) {
    let redis = redis::Client::open(servers.redis.url()).expect("a URL");
    let connection = redis.get_multiplexed_async_connection().await;
    let mut connection = connection.expect("Redis answers");
    let before = processes.read();
    for _ in 0..ROUNDS {
        // The first slot is the worker's.
        for number in 1..ANNOUNCED {
            let mut set = redis::cmd("SET");
            set.arg(slot(number)).arg(announcement);
            set.arg("PX").arg(HOUR).arg("GET");
            let written: Result<Option<String>, _> = set.query_async(&mut connection).await;
            written.expect("Redis stores it");
        }
    }
    let (used, _) = processes.since(before);
    let each = used.redis / f64::from(ROUNDS * (ANNOUNCED - 1)) * 1e6;
    table.info("writing an announcement: Redis", "µs", &[each]);
}

/// Reads all announcements as `rpcache top` does.
async fn read(servers: &Servers, processes: &Processes, table: &mut Table) {
    let cache = Cache::open(CacheOptions::new(
        servers.redis.url().parse().expect("a URL"),
    ));
    let sent = output(servers).await;
    let before = processes.read();
    let mut took = Vec::new();
    for _ in 0..ROUNDS {
        let started = Instant::now();
        let workers = cache.workers().await.expect("Redis answers");
        took.push(started.elapsed().as_secs_f64() * 1e3);
        assert_eq!(u32::try_from(workers.len()), Ok(ANNOUNCED));
    }
    let (used, _) = processes.since(before);
    let sent = (output(servers).await - sent) / f64::from(ROUNDS);
    let each = |seconds: f64| [seconds / f64::from(ROUNDS) * 1e3];
    table.info("reading 4,000 announcements", "ms", &took);
    table.info("that: CPU time of Redis", "ms", &each(used.redis));
    table.info("that: CPU time of the reader", "ms", &each(used.own));
    table.info("that: bytes read", "MB", &[sent / 1e6]);
}

/// Starts one more worker, which looks for a free slot.
async fn start(servers: &Servers, table: &mut Table) {
    let sent = output(servers).await;
    let last = slot(ANNOUNCED);
    let _worker = servers.rpcache(&["worker"]).start();
    wait_until("the worker has found a slot", async || {
        servers.redis.run::<bool>(&["EXISTS", &last]).await
    })
    .await;
    let sent = output(servers).await - sent;
    table.info("a worker that starts: bytes read", "MB", &[sent / 1e6]);
}

async fn output(servers: &Servers) -> f64 {
    let stats: String = servers.redis.run(&["INFO", "stats"]).await;
    info(&stats, "total_net_output_bytes:")
}

fn slot(number: u32) -> String {
    format!("rpcache:worker:{number}")
}
