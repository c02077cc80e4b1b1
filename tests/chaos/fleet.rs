//! The processes of a run: servers, a link for each process to each server, workers, clients.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;

use tokio::process::{Child, Command};
use tokio::sync::Mutex;

use crate::args::{Args, Load};
use crate::broker::{Broker, VHOST};
use crate::fault::Fault;
use crate::proxy::Link;
use crate::redis_server::Redis;
use crate::support::lifetime;
use crate::support::wait::wait_until;
use crate::tap::{Protocol, Tap};
use crate::trap_seat::TrapSeat;
use crate::worker::Worker;

pub(crate) struct Fleet {
    pub(crate) broker: Mutex<Broker>,
    pub(crate) redis: Mutex<Redis>,
    pub(crate) workers: Vec<Mutex<Worker>>,
    /// Of the workers.
    pub(crate) taps: Vec<Arc<Tap>>,
    /// They serve the procedure with traps.
    pub(crate) trap_seats: Mutex<Vec<TrapSeat>>,
    /// Of the workers first, then of the clients, then of the trap seats; so are the logs, each with
    /// the name of whose it is.
    pub(crate) links: Vec<Links>,
    logs: Vec<(String, PathBuf)>,
    load: Load,
}

/// By which one process reaches the servers. The broker has two addresses.
pub(crate) struct Links {
    pub(crate) amqp: [Arc<Link>; 2],
    pub(crate) redis: Arc<Link>,
}

/// Enough for one to serve while the other is dead.
const TRAP_SEATS: u32 = 2;

impl Fleet {
    pub(crate) fn start(args: &Args) -> Result<Self, String> {
        let broker = Broker::start()?;
        if args.faults.0.contains(&Fault::HostilePublisher) {
            // Before the workers, who look for it when they connect.
            broker.declare_dead_letters()?;
        }
        let redis = Redis::start()?;
        let taps: Vec<_> = (0..args.workers)
            .map(|_| Arc::new(Tap::default()))
            .collect();
        let mut links = Vec::new();
        for number in 0..(args.workers + args.clients + TRAP_SEATS) as usize {
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
        let seat =
            |who: &str, number| (format!("{who}-{number}"), lifetime::folder(who).join("log"));
        let logs: Vec<_> = (0..args.workers)
            .map(|number| seat("worker", number))
            .chain((0..args.clients).map(|number| seat("client", number)))
            .chain((0..TRAP_SEATS).map(|number| seat("trap", number)))
            .collect();
        let workers = (0..args.workers as usize).map(|seat| {
            let (amqp, redis) = links[seat].urls();
            Mutex::new(Worker::start(
                (amqp, redis),
                args.load.ttl_ms,
                &logs[seat].1,
            ))
        });
        let first_trap = (args.workers + args.clients) as usize;
        let trap_seat = |seat: usize| {
            let (amqp, redis) = links[seat].urls();
            TrapSeat::start(&amqp, &redis, args.load.ttl_ms, &logs[seat].1)
        };
        let trap_seats: std::io::Result<_> = (first_trap..links.len()).map(trap_seat).collect();
        Ok(Self {
            workers: workers.collect(),
            broker: Mutex::new(broker),
            redis: Mutex::new(redis),
            trap_seats: Mutex::new(trap_seats.map_err(|error| format!("no trap: {error}"))?),
            links,
            taps,
            logs,
            load: args.load.clone(),
        })
    }

    /// A client of the given number; its lines come by its stdout.
    pub(crate) fn start_client(
        &self,
        number: usize,
        seed: u64,
        oracle: &Path,
    ) -> std::io::Result<Child> {
        let seat = self.workers.len() + number;
        let Load {
            callers,
            rate,
            hits,
            traps,
            ttl_ms,
        } = &self.load;
        let (amqp, redis) = self.links[seat].urls();
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
            .args(["--hits", &hits.to_string(), "--traps", &traps.to_string()])
            .args(["--ttl-ms", &ttl_ms.to_string()])
            .process_group(lifetime::group())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(std::fs::File::create(&self.logs[seat].1)?)
            .kill_on_drop(true)
            .spawn()
    }

    /// Waits until every worker takes requests, those with traps included.
    pub(crate) async fn serving(&self) {
        let workers = self.logs.iter();
        for (_, log) in workers.filter(|(name, _)| !name.starts_with("client")) {
            let serves =
                async || std::fs::read_to_string(log).is_ok_and(|log| log.contains("serving "));
            wait_until("a worker serves", serves).await;
        }
    }

    /// One of the clients.
    pub(crate) fn client(&self, draw: u64) -> usize {
        let seats = self.logs.iter();
        let clients = seats.filter(|(name, _)| name.starts_with("client")).count();
        usize::try_from(draw % clients as u64).expect("a few")
    }

    /// Whether the process with these links is neither replaced nor stopped by faults.
    pub(crate) fn is_steady(&self, seat: usize) -> bool {
        seat == 0 || self.logs[seat].0.starts_with("client")
    }

    /// Whose log is where.
    pub(crate) fn logs(&self) -> Vec<(String, PathBuf)> {
        self.logs.clone()
    }

    /// Connections that links still carry.
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
    /// Of the broker and of Redis.
    fn urls(&self) -> (String, String) {
        // The heartbeat that rpcache has by itself.
        let node = |link: &Link| format!("amqp://guest:guest@127.0.0.1:{}/{VHOST}", link.port);
        let [a, b] = &self.amqp;
        let amqp = format!("{},{}", node(a), node(b));
        (amqp, format!("redis://127.0.0.1:{}/", self.redis.port))
    }
}
