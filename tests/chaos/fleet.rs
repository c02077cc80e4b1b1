//! The processes of a run: servers, a link for each process to each server, workers, clients.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;

use tokio::process::{Child, Command};
use tokio::sync::Mutex;

use crate::args::{Args, Load};
use crate::broker::{Broker, VHOST};
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
    /// Of the workers first, then of the clients.
    pub(crate) amqp_links: Vec<Arc<Link>>,
    pub(crate) redis_links: Vec<Arc<Link>>,
    /// Of the workers.
    pub(crate) taps: Vec<Arc<Tap>>,
    /// Of the workers first, then of the clients, each with the name of whose it is.
    logs: Vec<(String, PathBuf)>,
    load: Load,
}

impl Fleet {
    pub(crate) async fn start(args: &Args) -> Result<Self, String> {
        let broker = Broker::start()?;
        let redis = Redis::start()?;
        let (mut amqp_links, mut redis_links) = (Vec::new(), Vec::new());
        let taps: Vec<_> = (0..args.workers)
            .map(|_| Arc::new(Tap::default()))
            .collect();
        for number in 0..(args.workers + args.clients) as usize {
            let tap = |protocol| Some((Arc::clone(taps.get(number)?), protocol));
            let amqp = Link::to(broker.port(), tap(Protocol::Amqp)).await;
            amqp_links.push(Arc::new(amqp));
            let redis = Link::to(redis.port(), tap(Protocol::Redis)).await;
            redis_links.push(Arc::new(redis));
        }
        let seat =
            |who: &str, number| (format!("{who}-{number}"), lifetime::folder(who).join("log"));
        let logs: Vec<_> = (0..args.workers)
            .map(|number| seat("worker", number))
            .chain((0..args.clients).map(|number| seat("client", number)))
            .collect();
        let workers = (0..args.workers as usize).map(|seat| {
            let urls = (amqp_url(&amqp_links[seat]), redis_url(&redis_links[seat]));
            Mutex::new(Worker::start(urls, args.load.ttl_ms, &logs[seat].1))
        });
        Ok(Self {
            workers: workers.collect(),
            broker: Mutex::new(broker),
            redis: Mutex::new(redis),
            amqp_links,
            redis_links,
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
            ttl_ms,
        } = &self.load;
        Command::new(std::env::current_exe()?)
            .arg("client")
            .args(["--amqp-url", &amqp_url(&self.amqp_links[seat])])
            .args(["--redis-url", &redis_url(&self.redis_links[seat])])
            .arg("--oracle")
            .arg(oracle)
            .args(["--seed", &(seed ^ (number as u64) << 40).to_string()])
            .args([
                "--callers",
                &callers.to_string(),
                "--rate",
                &rate.to_string(),
            ])
            .args(["--hits", &hits.to_string(), "--ttl-ms", &ttl_ms.to_string()])
            .process_group(lifetime::group())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(std::fs::File::create(&self.logs[seat].1)?)
            .kill_on_drop(true)
            .spawn()
    }

    /// Waits until every worker takes requests.
    pub(crate) async fn serving(&self) {
        for (_, log) in &self.logs[..self.workers.len()] {
            let serves =
                async || std::fs::read_to_string(log).is_ok_and(|log| log.contains("serving "));
            wait_until("a worker serves", serves).await;
        }
    }

    /// Whose log is where.
    pub(crate) fn logs(&self) -> Vec<(String, PathBuf)> {
        self.logs.clone()
    }

    /// Connections that links still carry.
    pub(crate) fn open_links(&self) -> usize {
        self.amqp_links
            .iter()
            .chain(&self.redis_links)
            .map(|link| link.open())
            .sum()
    }
}

fn amqp_url(link: &Link) -> String {
    // The heartbeat that rpcache has by itself.
    format!("amqp://guest:guest@127.0.0.1:{}/{VHOST}", link.port)
}

fn redis_url(link: &Link) -> String {
    format!("redis://127.0.0.1:{}/", link.port)
}
