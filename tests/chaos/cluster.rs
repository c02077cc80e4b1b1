//! One fault of a RabbitMQ cluster: what it costs callers, as one row of a table.
//!
//! Three nodes, a worker connected to each, two clients connected to the node that is struck. Every process reaches
//! the nodes by links of its own: at first only the one to its node is open, later all are.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use clap::ValueEnum;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::ChildStdout;
use tokio::task::{block_in_place, spawn_blocking};
use tokio::time::{sleep, timeout};

use crate::args::{Args, Load};
use crate::call::{Batch, Call, Clock, Outcome};
use crate::client_process::ClientProcess;
use crate::haproxy::Proxy;
use crate::links::Links;
use crate::oracle::Oracle;
use crate::proxy::Mode;
use crate::redis_server::Redis;
use crate::support::lifetime;
use crate::support::rabbit_cluster::{NODES, RabbitCluster, url};
use crate::support::wait::wait_until;
use crate::worker::Worker;

const QUEUE: &str = "rpc_queue";
const WORKERS: usize = 3;
const CLIENTS: usize = 2;
/// Of each client; so many callers that calls go on while others wait.
const LOAD: Load = Load {
    callers: 1500,
    rate: 100,
    hits: 50.0,
    crashers: 0.0,
    ttl_ms: 10_000,
};

/// Until every process has connected to its node; with all links open, before the fault; after it.
const CONNECTING: Duration = Duration::from_secs(3);
const BEFORE: Duration = Duration::from_secs(8);
const AFTER: Duration = Duration::from_secs(25);
/// A client ends once its last call has.
const ENDS_WITHIN: Duration = Duration::from_secs(60);

/// What is done to the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ClusterFault {
    None,
    /// SIGKILL of the node that leads the queue; started again after `--lasts`.
    LeaderKilled,
    /// The same behind `HAProxy`.
    LeaderKilledHaproxy,
    /// SIGKILL of the leader while the clients are connected to another node.
    LeaderElsewhereKilled,
    /// SIGSTOP of a node that does not lead the queue.
    FollowerFrozen,
    /// SIGSTOP of the leader.
    LeaderFrozen,
    /// What a node that does not lead the queue sends to the others is dropped.
    FollowerCut,
    /// The same for the leader.
    LeaderCut,
    /// SIGTERM and a start of each node in turn.
    AllRestarted,
}

impl ClusterFault {
    /// Whether another node must lead the queue.
    fn elects(self) -> bool {
        !matches!(self, Self::None | Self::AllRestarted)
    }
}

/// What a fault has cost.
pub(crate) struct Row {
    fault: ClusterFault,
    calls: usize,
    /// By code.
    failed: BTreeMap<String, usize>,
    /// By the second after the fault in which the call began.
    failed_at: BTreeMap<i64, usize>,
    example: String,
    /// Between two computed answers.
    longest_pause: Duration,
    /// When the queue had another leader.
    elected_after: Option<Duration>,
    /// After the fault: the end of the last pause above a second, or of the last failure.
    back_after: Duration,
    slowest: Duration,
    slowest_hit: Duration,
    wrong: usize,
}

type Calls = Arc<Mutex<Vec<Call>>>;

/// Lets one process reach only this node, or all.
fn lead(links: &Links, only: Option<usize>) {
    for (n, link) in links.amqp.iter().enumerate() {
        let is_open = only.is_none_or(|only| n == only);
        link.set(if is_open { Mode::Pass } else { Mode::Refuse });
    }
}

pub(crate) async fn run(args: &Args, fault: ClusterFault, seed: u64) -> Result<Row, String> {
    let answers = lifetime::folder("oracle").join("answers");
    let written = Oracle::compute().write(&answers);
    written.map_err(|error| error.to_string())?;
    let mut cluster = block_in_place(|| RabbitCluster::start(args.net_ticktime))?;
    let redis = Redis::start()?;
    let redis_url = format!("redis://127.0.0.1:{}/", redis.port());
    let proxy = match fault {
        ClusterFault::LeaderKilledHaproxy => Some(Proxy::start(&cluster)?),
        _ => None,
    };
    let mut ways = Vec::new();
    let mut url_at = |node| {
        if let Some(proxy) = &proxy {
            return url(proxy.port());
        }
        let ports = [0, 1, 2].map(|n| cluster.port(n));
        let way = Links::to((&ports, "%2f"), &[], None);
        lead(&way, Some(node));
        let url = way.amqp_url();
        ways.push(way);
        url
    };
    let mut workers = Vec::new();
    for seat in 0..WORKERS {
        let log = log_of(args, &format!("worker-{seat}"));
        let servers = (url_at(seat), redis_url.clone());
        workers.push(Worker::start(servers, LOAD.ttl_ms, &log));
        // The first one declares the queue; its node leads it.
        let is_serving =
            async || std::fs::read_to_string(&log).is_ok_and(|log| log.contains("serving "));
        wait_until("a worker serves", is_serving).await;
    }
    let leader = block_in_place(|| cluster.leader(QUEUE, 0))?;
    let follower = (leader + 1) % NODES;
    let (struck, place) = match fault {
        ClusterFault::FollowerFrozen | ClusterFault::FollowerCut => (follower, follower),
        ClusterFault::LeaderElsewhereKilled => (leader, follower),
        _ => (leader, leader),
    };
    let calls = Calls::default();
    let mut clients = Vec::new();
    for number in 0..CLIENTS {
        let log = log_of(args, &format!("client-{number}"));
        let client = ClientProcess {
            amqp: url_at(place),
            redis: redis_url.clone(),
            oracle: &answers,
            seed: seed + number as u64,
            load: &LOAD,
            timeout_ms: Some(args.timeout_ms),
        };
        let started = client.start(&log);
        let mut client = started.map_err(|error| format!("no client: {error}"))?;
        let stdout = client.stdout.take().expect("it is piped");
        clients.push((client, tokio::spawn(read(stdout, Arc::clone(&calls)))));
    }
    let clock = Clock::new();
    sleep(CONNECTING).await;
    for way in &ways {
        lead(way, None);
    }
    let next_leader = cluster.next_leader(QUEUE, follower);
    let next_leader = (struck == leader && fault.elects()).then(|| spawn_blocking(next_leader));
    sleep(BEFORE).await;
    let at = clock.now();
    eprintln!("{fault:?} strikes node {struck}; node {leader} leads");
    block_in_place(|| strike(&mut cluster, fault, struck, Duration::from_secs(args.lasts)))?;
    sleep(AFTER).await;
    for (mut client, reading) in clients {
        drop(client.stdin.take());
        let ended = timeout(ENDS_WITHIN, client.wait()).await;
        ended
            .map_err(|_| "a client does not end")?
            .map_err(|error| error.to_string())?;
        reading.await.map_err(|error| error.to_string())?;
    }
    for mut worker in workers {
        let code = worker.terminate().await;
        if code != Some(0) {
            eprintln!("a worker ended with {code:?}");
        }
    }
    let elected = match next_leader {
        Some(next) => next.await.map_err(|error| error.to_string())??,
        None => None,
    };
    let elected = elected.map(|elected| Duration::from_micros(elected.saturating_sub(at)));
    let calls = std::mem::take(&mut *calls.lock().expect("no holder of the lock panics"));
    Ok(Row::of(fault, at, elected, calls))
}

/// Does what the fault is, waits as long as it lasts, and repairs it.
fn strike(
    cluster: &mut RabbitCluster,
    fault: ClusterFault,
    struck: usize,
    lasts: Duration,
) -> Result<(), String> {
    let lasts = || std::thread::sleep(lasts);
    match fault {
        ClusterFault::None => lasts(),
        ClusterFault::LeaderKilled
        | ClusterFault::LeaderKilledHaproxy
        | ClusterFault::LeaderElsewhereKilled => {
            cluster.kill(struck);
            lasts();
            cluster.launch(struck)?;
        }
        ClusterFault::FollowerFrozen | ClusterFault::LeaderFrozen => {
            cluster.freeze(struck);
            lasts();
            cluster.thaw(struck);
        }
        ClusterFault::FollowerCut | ClusterFault::LeaderCut => {
            let cut = cluster.cut(struck)?;
            lasts();
            drop(cut);
        }
        ClusterFault::AllRestarted => {
            for n in 0..NODES {
                cluster.stop(n);
                cluster.launch(n)?;
            }
        }
    }
    Ok(())
}

fn log_of(args: &Args, name: &str) -> std::path::PathBuf {
    match &args.logs {
        Some(folder) => {
            std::fs::create_dir_all(folder).expect("--logs names a folder");
            folder.join(format!("{name}.log"))
        }
        None => lifetime::folder(name).join("log"),
    }
}

async fn read(stdout: ChildStdout, calls: Calls) {
    let mut lines = BufReader::new(stdout).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        let batch: Batch = serde_json::from_str(&line).expect("the client's own");
        let mut calls = calls.lock().expect("no holder of the lock panics");
        calls.extend(batch.calls);
    }
}

impl Row {
    fn of(
        fault: ClusterFault,
        at: u64,
        elected_after: Option<Duration>,
        mut calls: Vec<Call>,
    ) -> Self {
        let micros = Duration::from_micros;
        calls.sort_by_key(|call| call.end);
        let mut row = Self {
            fault,
            calls: calls.len(),
            failed: BTreeMap::new(),
            failed_at: BTreeMap::new(),
            example: String::new(),
            longest_pause: Duration::ZERO,
            elected_after,
            back_after: Duration::ZERO,
            slowest: Duration::ZERO,
            slowest_hit: Duration::ZERO,
            wrong: 0,
        };
        let mut answered = None;
        for call in &calls {
            let took = micros(call.end.saturating_sub(call.start));
            let after = micros(call.end.saturating_sub(at));
            match &call.outcome {
                Outcome::Answered(source) if source == "cache" => {
                    row.slowest_hit = row.slowest_hit.max(took);
                }
                Outcome::Answered(_) => {
                    row.slowest = row.slowest.max(took);
                    let pause = answered.map_or(Duration::ZERO, |last| micros(call.end - last));
                    answered = Some(call.end);
                    if call.end > at {
                        row.longest_pause = row.longest_pause.max(pause);
                    }
                    if pause > Duration::from_secs(1) || took > Duration::from_secs(1) {
                        row.back_after = after;
                    }
                }
                Outcome::Failed(code, message) => {
                    *row.failed.entry(code.clone()).or_default() += 1;
                    let began = call.start.cast_signed() - at.cast_signed();
                    let second = began.div_euclid(1_000_000);
                    *row.failed_at.entry(second).or_default() += 1;
                    if row.example.is_empty() {
                        row.example.clone_from(message);
                    }
                    row.back_after = after;
                }
                Outcome::Wrong | Outcome::Lost => row.wrong += 1,
            }
        }
        row
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.fault.to_possible_value();
        let name = name.map_or(String::new(), |name| name.get_name().to_owned());
        let failed: usize = self.failed.values().sum();
        let codes: Vec<_> = self
            .failed
            .iter()
            .map(|(code, count)| format!("{count} {code}"))
            .collect();
        write!(
            f,
            "{name}: {} calls, {failed} failed ({}), {} wrong or lost; longest pause {:.1} s, slow or failing until \
             +{:.1} s, slowest answer {:.1} s, slowest hit {} ms",
            self.calls,
            codes.join(", "),
            self.wrong,
            self.longest_pause.as_secs_f64(),
            self.back_after.as_secs_f64(),
            self.slowest.as_secs_f64(),
            self.slowest_hit.as_millis(),
        )?;
        if let Some(elected) = self.elected_after {
            write!(f, "; another leader after {:.1} s", elected.as_secs_f64())?;
        }
        match self.example.as_str() {
            "" => Ok(()),
            example => write!(
                f,
                "\n  began in second after the fault: {:?}\n  first failure: {example}",
                self.failed_at
            ),
        }
    }
}
