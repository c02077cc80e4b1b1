//! The processes of a run: servers, workers, clients, crashers, and a link from each process to each server.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;

use tokio::process::{Child, Command};
use tokio::sync::Mutex;

use crate::args::{Args, Load};
use crate::broker::{Broker, VHOST};
use crate::crasher_process::CrasherProcess;
use crate::fault::Fault;
use crate::proxy::Link;
use crate::redis_server::Redis;
use crate::support::lifetime;
use crate::support::wait::wait_until;
use crate::tap::{Protocol, Tap};
use crate::worker::Worker;

pub(crate) struct Fleet {
    pub(crate) broker: Mutex<Broker>,
    pub(crate) redis: Mutex<Redis>,
    pub(crate) workers: Vec<Mutex<Worker>>,
    /// One for each worker.
    pub(crate) taps: Vec<Arc<Tap>>,
    pub(crate) crashers: Mutex<Vec<CrasherProcess>>,
    /// For the workers first, then for the clients, then for the crashers.
    pub(crate) links: Vec<Links>,
    /// The name of each process and its log, in the order of the links.
    logs: Vec<(String, PathBuf)>,
    load: Load,
}

/// The links of one process to the servers. The broker has two addresses.
pub(crate) struct Links {
    pub(crate) amqp: [Arc<Link>; 2],
    pub(crate) redis: Arc<Link>,
}

/// One serves while the other restarts.
const CRASHERS: u32 = 2;

impl Fleet {
    pub(crate) fn start(args: &Args) -> Result<Self, String> {
        let broker = Broker::start()?;
        if args.faults.0.contains(&Fault::HostilePublisher) {
            // Before the workers, which look for the dead-letter queue when they connect.
            broker.declare_dead_letters()?;
        }
        let redis = Redis::start()?;
        let taps: Vec<_> = (0..args.workers)
            .map(|_| Arc::new(Tap::default()))
            .collect();
        let mut links = Vec::new();
        for number in 0..(args.workers + args.clients + CRASHERS) as usize {
            let link = |server, protocol| {
                let tap = taps.get(number).map(|tap| (Arc::clone(tap), protocol));
                Arc::new(Link::to(server, tap))
            };
            links.push(Links {
                amqp: [
                    link(broker.port(), Protocol::Amqp),
                    link(broker.port(), Protocol::Amqp),
                ],
                redis: link(redis.port(), Protocol::Redis),
            });
        }
        let log = |role: &str, number| {
            (
                format!("{role}-{number}"),
                lifetime::folder(role).join("log"),
            )
        };
        let logs: Vec<_> = (0..args.workers)
            .map(|number| log("worker", number))
            .chain((0..args.clients).map(|number| log("client", number)))
            .chain((0..CRASHERS).map(|number| log("crasher", number)))
            .collect();
        let workers = (0..args.workers as usize).map(|process| {
            let (amqp, redis) = links[process].urls();
            Mutex::new(Worker::start(
                (amqp, redis),
                args.load.ttl_ms,
                &logs[process].1,
            ))
        });
        let first_crasher = (args.workers + args.clients) as usize;
        let crasher = |process: usize| {
            let (amqp, redis) = links[process].urls();
            CrasherProcess::start(&amqp, &redis, args.load.ttl_ms, &logs[process].1)
        };
        let crashers: std::io::Result<_> = (first_crasher..links.len()).map(crasher).collect();
        Ok(Self {
            workers: workers.collect(),
            broker: Mutex::new(broker),
            redis: Mutex::new(redis),
            crashers: Mutex::new(crashers.map_err(|error| format!("no crasher: {error}"))?),
            links,
            taps,
            logs,
            load: args.load.clone(),
        })
    }

    /// Starts the client with this number; it reports calls on its stdout.
    pub(crate) fn start_client(
        &self,
        number: usize,
        seed: u64,
        oracle: &Path,
    ) -> std::io::Result<Child> {
        let process = self.workers.len() + number;
        let Load {
            callers,
            rate,
            hits,
            crashers,
            ttl_ms,
        } = &self.load;
        let (amqp, redis) = self.links[process].urls();
        Command::new(std::env::current_exe()?)
            .arg("client")
            .args(["--amqp-url", &amqp, "--redis-url", &redis])
            .arg("--oracle")
            .arg(oracle)
            .args(["--seed", &(seed ^ (number as u64) << 40).to_string()])
            .args([
                "--callers",
                &callers.to_string(),
                "--rate",
                &rate.to_string(),
            ])
            .args([
                "--hits",
                &hits.to_string(),
                "--crashers",
                &crashers.to_string(),
            ])
            .args(["--ttl-ms", &ttl_ms.to_string()])
            .process_group(lifetime::group())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(std::fs::File::create(&self.logs[process].1)?)
            .kill_on_drop(true)
            .spawn()
    }

    /// Waits until every worker and crasher consumes requests.
    pub(crate) async fn serving(&self) {
        let workers = self.logs.iter();
        for (_, log) in workers.filter(|(name, _)| !name.starts_with("client")) {
            let serves =
                async || std::fs::read_to_string(log).is_ok_and(|log| log.contains("serving "));
            wait_until("a worker serves", serves).await;
        }
    }

    /// The number of one of the clients.
    pub(crate) fn client(&self, draw: u64) -> usize {
        let processes = self.logs.iter();
        let clients = processes
            .filter(|(name, _)| name.starts_with("client"))
            .count();
        usize::try_from(draw % clients as u64).expect("a few")
    }

    /// Whether no fault kills or stops this process.
    pub(crate) fn is_steady(&self, process: usize) -> bool {
        process == 0 || self.logs[process].0.starts_with("client")
    }

    /// The name of each process and its log, in the order of the links.
    pub(crate) fn logs(&self) -> Vec<(String, PathBuf)> {
        self.logs.clone()
    }

    /// The number of open connections on all links.
    pub(crate) fn open_links(&self) -> usize {
        let links = self.links.iter();
        links
            .flat_map(
                |Links {
                     amqp: [a, b],
                     redis,
                 }| [a, b, redis],
            )
            .map(|link| link.open())
            .sum()
    }
}

impl Links {
    /// The URLs of the broker and of Redis.
    fn urls(&self) -> (String, String) {
        // Without a heartbeat of its own: rpcache's default applies.
        let node = |link: &Link| format!("amqp://guest:guest@127.0.0.1:{}/{VHOST}", link.port);
        let [a, b] = &self.amqp;
        let amqp = format!("{},{}", node(a), node(b));
        (amqp, format!("redis://127.0.0.1:{}/", self.redis.port))
    }
}
