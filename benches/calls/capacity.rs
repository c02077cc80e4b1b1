//! `capacity`: CPU time for each hit and each miss, by process, with rate and latency. `capacity-cluster`: the same
//! with RabbitMQ on three nodes and Redis on three shards.
//!
//! The client is `rpcache bench`. A miss is looked up twice, takes a lease, goes through a quorum queue and is
//! stored; its computation takes no time, so that all of the worker's time is rpcache's. The loads are one call at a
//! time, 64 in flight (the highest rate), and calls due at even intervals at half and at 0.8 of that rate. RabbitMQ
//! is all of its nodes together. `benches/model/capacity.py` computes with these figures.

use serde_json::Value;

use crate::cpu::{self, Processes};
use crate::role;
use crate::servers::Servers;
use crate::support::wait::wait_until;
use crate::table::Table;

const ROUNDS: usize = 3;
const SECONDS: &str = "3s";
const QUEUE: &str = "rpc_queue.slow";
const PREFETCH: &str = "66";
/// The limit of calls in flight of an open loop, high enough not to delay a call.
const OPEN: &str = "1000";

/// Shares of the highest rate.
const SHARES: [(&str, f64); 2] = [("at half of it", 0.5), ("at 0.8 of it", 0.8)];

/// The figures of a load, and their units: CPU time and bytes are those of one call.
const FIGURES: [(&str, &str); 9] = [
    ("rate", "1/s"),
    ("p50", "ms"),
    ("p99", "ms"),
    ("client", "µs"),
    ("worker", "µs"),
    ("RabbitMQ", "µs"),
    ("Redis", "µs"),
    ("to and from Redis", "B"),
    // What disturbed the run.
    ("other programs", "cores"),
];
const RATE: usize = 0;

type Figures = [f64; FIGURES.len()];

pub(crate) async fn run(servers: &Servers, table: &mut Table) {
    let worker = role::start(servers, &["slow-worker", QUEUE, "0", PREFETCH]);
    let processes = Processes {
        worker: vec![worker.id()],
        rabbitmq: pids(servers),
        redis: redis_pids(servers).await,
    };
    let run = Run { servers, processes };
    let call = [
        "call",
        "--wait",
        "--timeout",
        "25s",
        "--procedure",
        "slow",
        "1",
    ];
    let first = servers.rpcache(&call).run().await;
    assert_eq!(first.code, Some(0), "{}", first.stderr);

    for (what, load) in [
        ("hits", ["--hits", "1", "--keys", "1000"]),
        ("misses", ["--hits", "0", "--keys", "1"]),
    ] {
        // Stores the keys of hits, and connects nothing for the first time afterwards.
        run.measure(&load, &["--concurrency", "64", "--duration", "1s"])
            .await;
        let mut loads: [Vec<Figures>; 4] = Default::default();
        for _ in 0..ROUNDS {
            let closed = |tasks| ["--concurrency", tasks, "--duration", SECONDS];
            loads[0].push(run.measure(&load, &closed("1")).await);
            let highest = run.measure(&load, &closed("64")).await;
            loads[1].push(highest);
            for ((_, share), rounds) in SHARES.iter().zip(&mut loads[2..]) {
                let rate = format!("{:.0}", highest[RATE] * share);
                let open = [&closed(OPEN)[..], &["--rate", &rate]].concat();
                rounds.push(run.measure(&load, &open).await);
            }
        }
        let names = ["1 at a time", "64 in flight"];
        let names = names.into_iter().chain(SHARES.map(|(name, _)| name));
        for (name, rounds) in names.zip(&loads) {
            for (place, (figure, unit)) in FIGURES.into_iter().enumerate() {
                let each: Vec<f64> = rounds.iter().map(|round| round[place]).collect();
                table.info(format!("{what}, {name}: {figure}"), unit, &each);
            }
        }
    }
    let [queue, log] = run.serial_shares().await;
    table.info("misses: share of the queue's process", "", &[queue]);
    table.info("misses: share of the log's process", "", &[log]);
    let bytes = run.worker_bytes().await;
    table.info("misses: worker and RabbitMQ, both ways", "B", &[bytes]);
}

struct Run<'a> {
    servers: &'a Servers,
    processes: Processes,
}

impl Run<'_> {
    /// Runs one load to its end. All calls must be answered, and nearly all from the expected source.
    async fn measure(&self, load: &[&str], pace: &[&str]) -> Figures {
        if load.contains(&"0") {
            // Misses start with the same arguments.
            self.flush().await;
        }
        let command = ["bench", "--json", "--procedure", "slow"];
        let program = self.servers.rpcache(&[&command, load, pace].concat());
        let (sent, before) = (self.redis_bytes().await, self.processes.read());
        let ended = program.run().await;
        let (used, seconds) = self.processes.since(before);
        let sent = self.redis_bytes().await - sent;
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        let report: Value = serde_json::from_str(&ended.stdout).expect("JSON");
        let number = |value: &Value| value.as_f64().expect("a number");
        let calls = number(&report["answered"]);
        // On a busy machine, a lookup may be too late to be a hit.
        let source = if load.contains(&"0") {
            "computed"
        } else {
            "cache"
        };
        assert!(
            number(&report["sources"][source]) > 0.95 * calls,
            "{report}"
        );
        let each = |seconds: f64| seconds * 1e6 / calls;
        let latency = &report["latency_ms"];
        [
            number(&report["per_second"]),
            number(&latency["p50"]),
            number(&latency["p99"]),
            each(used.client),
            each(used.worker),
            each(used.rabbitmq),
            each(used.redis),
            sent / calls,
            used.others() / seconds,
        ]
    }

    async fn flush(&self) {
        for shard in self.servers.shards() {
            shard.run::<()>(&["FLUSHALL"]).await;
        }
    }

    /// Bytes from and to all shards.
    async fn redis_bytes(&self) -> f64 {
        let mut bytes = 0.0;
        for shard in self.servers.shards() {
            let stats: String = shard.run(&["INFO", "stats"]).await;
            for field in ["total_net_input_bytes:", "total_net_output_bytes:"] {
                bytes += info(&stats, field);
            }
        }
        bytes
    }

    /// The shares of RabbitMQ's work that no second core can take: that of the queue, and that of the log in which all
    /// quorum queues of a node write. Erlang counts work in reductions, about as many for each second of CPU time.
    async fn serial_shares(&self) -> [f64; 2] {
        const EXPRESSION: &str = r#"
            Work = fun() -> maps:from_list([{P, R} || P <- processes(), {_, R} <- [process_info(P, reductions)]]) end,
            Name = fun(P) -> case process_info(P, registered_name) of {_, N} -> atom_to_list(N); _ -> "" end end,
            Before = Work(), timer:sleep(1500),
            Done = [{Name(P), R - maps:get(P, Before, 0)} || {P, R} <- maps:to_list(Work())],
            Sum = fun(End) -> integer_to_list(lists:sum([R || {N, R} <- Done, lists:suffix(End, N)])) end,
            lists:join(" ", [Sum("_rpc_queue.slow"), Sum("ra_log_wal"), Sum("")])."#;
        self.flush().await;
        let load = ["bench", "--procedure", "slow", "--hits", "0", "--keys", "1"];
        let pace = ["--concurrency", "64", "--duration", "20s"];
        let _load = self.servers.rpcache(&[&load[..], &pace].concat()).start();
        let worker = self.processes.worker[0];
        let before = cpu::of(worker);
        wait_until("the worker is under load", async || {
            cpu::of(worker) > before + 0.5
        })
        .await;
        let nodes = self.servers.evaluate(EXPRESSION);
        let work: Vec<[f64; 3]> = nodes
            .iter()
            .map(|node| {
                let mut work = node.split(' ').map(|work| work.parse().expect("a number"));
                [(); 3].map(|()| work.next().expect("three numbers"))
            })
            .collect();
        let all: f64 = work.iter().map(|[_, _, all]| all).sum();
        // The queue's leader is where it works most.
        let leader = work.iter().max_by(|one, other| one[0].total_cmp(&other[0]));
        let [queue, log, _] = leader.expect("a node");
        [queue / all, log / all]
    }

    /// The bytes between worker and RabbitMQ for each miss. The client's connections end with it.
    async fn worker_bytes(&self) -> f64 {
        const CALLS: u32 = 2000;
        let octets = || {
            let expression = "integer_to_list(lists:sum([N || [{recv_oct, A}, {send_oct, B}] <- \
                rabbit_networking:connection_info_all([recv_oct, send_oct]), N <- [A, B]])).";
            let all = self.servers.evaluate(expression);
            all[0].parse::<f64>().expect("a number")
        };
        let before = octets();
        let load = ["--hits", "0", "--keys", "1"];
        let calls = CALLS.to_string();
        self.measure(&load, &["--concurrency", "64", "--calls", &calls])
            .await;
        (octets() - before) / f64::from(CALLS)
    }
}

/// A number in the reply to INFO.
pub(crate) fn info(reply: &str, field: &str) -> f64 {
    let value = reply.lines().find_map(|line| line.strip_prefix(field));
    value
        .and_then(|value| value.trim().parse().ok())
        .expect("INFO has it")
}

/// The processes of RabbitMQ's nodes.
pub(crate) fn pids(servers: &Servers) -> Vec<u32> {
    let pids = servers.evaluate("os:getpid().");
    let number = |pid: &String| pid.parse().expect("a process id");
    pids.iter().map(number).collect()
}

pub(crate) async fn redis_pids(servers: &Servers) -> Vec<u32> {
    let mut pids = Vec::new();
    for shard in servers.shards() {
        let server: String = shard.run(&["INFO", "server"]).await;
        let pid = server
            .lines()
            .find_map(|line| line.strip_prefix("process_id:"));
        let pid = pid.and_then(|pid| pid.trim().parse().ok());
        pids.push(pid.expect("INFO has it"));
    }
    pids
}
