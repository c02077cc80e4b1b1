//! The processes of a run: servers, a link for each process to each server, workers, clients.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use tokio::process::{Child, Command};
use tokio::sync::Mutex;
use tokio::time::timeout;

use crate::args::{Args, Load};
use crate::broker::{Broker, VHOST};
use crate::proxy::Link;
use crate::redis_server::Redis;
use crate::support::lifetime;
use crate::support::process::signal;
use crate::support::wait::wait_until;

/// A worker gives itself 10 s to finish.
const ENDS_WITHIN: Duration = Duration::from_secs(15);

pub(crate) struct Fleet {
    pub(crate) broker: Mutex<Broker>,
    pub(crate) redis: Mutex<Redis>,
    pub(crate) workers: Vec<Mutex<Worker>>,
    /// Of the workers first, then of the clients.
    pub(crate) amqp_links: Vec<Arc<Link>>,
    pub(crate) redis_links: Vec<Arc<Link>>,
    load: Load,
}

impl Fleet {
    pub(crate) async fn start(args: &Args) -> Result<Self, String> {
        let broker = Broker::start()?;
        let redis = Redis::start()?;
        let (mut amqp_links, mut redis_links) = (Vec::new(), Vec::new());
        for _ in 0..args.workers + args.clients {
            amqp_links.push(Arc::new(Link::to(broker.port()).await));
            redis_links.push(Arc::new(Link::to(redis.port()).await));
        }
        let workers = (0..args.workers as usize).map(|seat| {
            let log = lifetime::folder("worker").join("log");
            Mutex::new(Worker::start(
                &amqp_links[seat],
                &redis_links[seat],
                &args.load,
                log,
            ))
        });
        Ok(Self {
            workers: workers.collect(),
            broker: Mutex::new(broker),
            redis: Mutex::new(redis),
            amqp_links,
            redis_links,
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
        let link = self.workers.len() + number;
        let Load {
            callers,
            rate,
            hits,
            ttl_ms,
        } = &self.load;
        let log = lifetime::folder("client").join("log");
        Command::new(std::env::current_exe()?)
            .arg("client")
            .args(["--amqp-url", &amqp_url(&self.amqp_links[link])])
            .args(["--redis-url", &redis_url(&self.redis_links[link])])
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
            .stderr(std::fs::File::create(log)?)
            .kill_on_drop(true)
            .spawn()
    }

    /// Waits until every worker takes requests.
    pub(crate) async fn serving(&self) {
        for worker in &self.workers {
            let worker = worker.lock().await;
            wait_until("a worker serves", async || worker.says("serving ") > 0).await;
        }
    }

    /// Workers that panicked: none of them may.
    pub(crate) async fn panics(&self) -> Vec<String> {
        let mut panics = Vec::new();
        for (seat, worker) in self.workers.iter().enumerate() {
            match worker.lock().await.says("panicked") {
                0 => {}
                lines => panics.push(format!("worker {seat} panicked: {lines} lines")),
            }
        }
        panics
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

/// A seat in which one worker follows another.
pub(crate) struct Worker {
    child: Child,
    command: Command,
    /// What all of them have logged.
    log: PathBuf,
}

impl Worker {
    fn start(amqp: &Link, redis: &Link, load: &Load, log: PathBuf) -> Self {
        let file = std::fs::File::create(&log).expect("the run's folder is ours");
        let mut command = Command::new(env!("CARGO_BIN_EXE_rpcache"));
        command
            .args([
                "worker",
                "--concurrency",
                "2",
                "--ttl",
                &format!("{}ms", load.ttl_ms),
            ])
            .env_clear()
            .env("AMQP_URL", amqp_url(amqp))
            .env("REDIS_URL", redis_url(redis))
            .process_group(lifetime::group())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(file)
            .kill_on_drop(true);
        let child = command.spawn().expect("the command was built");
        Self {
            child,
            command,
            log,
        }
    }

    pub(crate) fn id(&self) -> Option<u32> {
        self.child.id()
    }

    pub(crate) fn signal(&self, name: &str) {
        signal(name, self.id().expect("it has not been waited for"));
    }

    /// In how many lines of its log.
    fn says(&self, text: &str) -> usize {
        let log = std::fs::read(&self.log).expect("the run's folder is ours");
        String::from_utf8_lossy(&log)
            .lines()
            .filter(|line| line.contains(text))
            .count()
    }

    pub(crate) async fn kill(&mut self) -> Result<(), String> {
        self.child.kill().await.map_err(|error| error.to_string())
    }

    /// Asks it to end and waits. Its exit code; none when it had to be killed.
    pub(crate) async fn terminate(&mut self) -> Option<i32> {
        self.signal("TERM");
        let Ok(ended) = timeout(ENDS_WITHIN, self.child.wait()).await else {
            let _ = self.child.kill().await;
            return None;
        };
        ended.ok()?.code()
    }

    pub(crate) fn start_again(&mut self) -> Result<(), String> {
        self.child = self.command.spawn().map_err(|error| error.to_string())?;
        Ok(())
    }

    /// Whether it has ended although nobody asked it to.
    pub(crate) fn is_gone(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }
}
