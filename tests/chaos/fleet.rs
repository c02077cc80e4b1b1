//! The processes of a run: servers, workers, clients, crashers, and a link from each process to each server.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::process::Child;
use tokio::sync::Mutex;

use crate::args::{Args, Load};
use crate::client_process::ClientProcess;
use crate::crasher_process::CrasherProcess;
use crate::links::Links;
use crate::servers::{Servers, Several, Single};
use crate::support::lifetime;
use crate::support::wait::wait_until;
use crate::tap::Tap;
use crate::worker::Worker;

pub(crate) struct Fleet {
    pub(crate) servers: Servers,
    pub(crate) workers: Vec<Mutex<Worker>>,
    /// One for each worker.
    pub(crate) taps: Vec<Arc<Tap>>,
    pub(crate) crashers: Mutex<Vec<CrasherProcess>>,
    /// For the workers first, then for the clients, then for the crashers.
    pub(crate) links: Vec<Links>,
    /// The name of each process and its log, in the order of the links.
    logs: Vec<(String, PathBuf)>,
    /// The address of Redis, where no links lead to it.
    redis_url: Option<String>,
    load: Load,
}

/// One serves while the other restarts.
const CRASHERS: u32 = 2;

impl Fleet {
    pub(crate) async fn start(args: &Args) -> Result<Self, String> {
        let (servers, ports) = Servers::start(args).await?;
        let taps: Vec<_> = (0..args.workers)
            .map(|_| Arc::new(Tap::default()))
            .collect();
        let links: Vec<_> = (0..(args.workers + args.clients + CRASHERS) as usize)
            .map(|process| {
                let amqp = (&ports.amqp[..], ports.vhost);
                Links::to(amqp, &ports.redis, taps.get(process))
            })
            .collect();
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
        let mut fleet = Self {
            servers,
            workers: Vec::new(),
            taps,
            crashers: Mutex::default(),
            links,
            logs,
            redis_url: ports.redis_url,
            load: args.load.clone(),
        };
        for process in 0..args.workers as usize {
            let (urls, ttl_ms) = (fleet.urls(process), fleet.load.ttl_ms);
            let worker = Worker::start(urls, ttl_ms, &fleet.logs[process].1);
            fleet.workers.push(Mutex::new(worker));
        }
        let first_crasher = (args.workers + args.clients) as usize;
        let crasher = |process: usize| {
            let (amqp, redis) = fleet.urls(process);
            CrasherProcess::start(&amqp, &redis, fleet.load.ttl_ms, &fleet.logs[process].1)
        };
        let crashers: std::io::Result<Vec<_>> =
            (first_crasher..fleet.links.len()).map(crasher).collect();
        let crashers = crashers.map_err(|error| format!("no crasher: {error}"))?;
        fleet.crashers = Mutex::new(crashers);
        Ok(fleet)
    }

    /// The addresses of the broker and of Redis for this process.
    fn urls(&self, process: usize) -> (String, String) {
        let links = &self.links[process];
        let redis = links.redis_url().or_else(|| self.redis_url.clone());
        let redis = redis.expect("there are links, or an address");
        (links.amqp_url(), redis)
    }

    /// Starts the client with this number; it reports calls on its stdout.
    pub(crate) fn start_client(
        &self,
        number: usize,
        seed: u64,
        oracle: &Path,
    ) -> std::io::Result<Child> {
        let process = self.workers.len() + number;
        let (amqp, redis) = self.urls(process);
        let client = ClientProcess {
            amqp,
            redis,
            oracle,
            seed: seed ^ (number as u64) << 40,
            load: &self.load,
            timeout_ms: None,
        };
        client.start(&self.logs[process].1)
    }

    /// The one broker and the one Redis, which faults of theirs are planned for only.
    pub(crate) fn single(&self) -> &Single {
        match &self.servers {
            Servers::Single(single) => single,
            Servers::Several(_) => panic!("a fault of single servers, of which there are several"),
        }
    }

    /// The several servers, which faults of theirs are planned for only.
    pub(crate) fn several(&self) -> &Several {
        match &self.servers {
            Servers::Several(several) => several,
            Servers::Single(_) => panic!("a fault of several servers, of which there is one"),
        }
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
        let links = self.links.iter().flat_map(Links::all);
        links.map(|link| link.open()).sum()
    }
}
