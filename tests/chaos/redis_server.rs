//! The Redis server of a run, and the faults of its process.

use std::path::PathBuf;
use std::process::{Child, Command};
use std::time::Duration;

use redis::FromRedisValue;
use redis::aio::MultiplexedConnection;
use tokio::task::block_in_place;
use tokio::time::timeout;

use crate::support::process::signal;
use crate::support::{lifetime, ports};

/// Limit for a command of the driver, on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(5);

pub(crate) struct Redis {
    folder: PathBuf,
    port: u16,
    server: Child,
}

impl Redis {
    pub(crate) fn start() -> Result<Self, String> {
        let folder = lifetime::folder("redis");
        let mut failure = String::new();
        for _ in 0..3 {
            // Another process may have taken the port: try again with another one.
            let [port] = ports::free();
            match lifetime::start_server(command(port), &folder, port) {
                Ok(server) => {
                    return Ok(Self {
                        folder,
                        port,
                        server,
                    });
                }
                Err(reason) => failure = reason,
            }
        }
        Err(failure)
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn kill(&mut self) {
        let _ = self.server.kill();
        let _ = block_in_place(|| self.server.wait());
    }

    pub(crate) fn start_again(&mut self) -> Result<(), String> {
        self.start_with(command(self.port))
    }

    /// Starts with the saved data, loading each key for this long; returns while it loads. The option on events
    /// is needed because Redis otherwise serves clients every 2 MB only while it loads.
    pub(crate) fn start_loading(&mut self, each: Duration) -> Result<(), String> {
        let mut command = command(self.port);
        let each = each.as_micros().to_string();
        command.args(["--loading-process-events-interval-bytes", "1024"]);
        command.args(["--key-load-delay", &each]);
        self.start_with(command)
    }

    fn start_with(&mut self, command: Command) -> Result<(), String> {
        self.server = block_in_place(|| lifetime::start_server(command, &self.folder, self.port))?;
        Ok(())
    }

    /// Deletes the saved data, so that the next start is empty.
    pub(crate) fn forget_saved(&self) {
        let _ = std::fs::remove_file(self.folder.join("dump.rdb"));
    }

    pub(crate) fn signal(&self, name: &str) {
        signal(name, self.server.id());
    }

    /// A connection of the driver itself, which bypasses the links.
    pub(crate) async fn connect(&self) -> Result<Connection, String> {
        let client = redis::Client::open(format!("redis://127.0.0.1:{}/", self.port));
        let client = client.map_err(|error| error.to_string())?;
        match timeout(PATIENCE, client.get_multiplexed_async_connection()).await {
            Ok(connected) => connected.map(Connection).map_err(|error| error.to_string()),
            Err(_) => Err("Redis does not answer".to_owned()),
        }
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

fn command(port: u16) -> Command {
    let mut command = Command::new("redis-server");
    let port = port.to_string();
    command.args([
        "--bind",
        "127.0.0.1",
        "--save",
        "",
        "--appendonly",
        "no",
        "--port",
        &port,
    ]);
    command
}

pub(crate) struct Connection(MultiplexedConnection);

impl Connection {
    /// Runs one command and returns its reply.
    pub(crate) async fn run<T: FromRedisValue>(&mut self, words: &[&str]) -> Result<T, String> {
        let mut command = redis::cmd(words[0]);
        command.arg(&words[1..]);
        match timeout(PATIENCE, command.query_async(&mut self.0)).await {
            Ok(answer) => answer.map_err(|error| {
                // The first word of an error of Redis, such as LOADING.
                let code = error.code().unwrap_or("no answer");
                format!("{words:?}: {code}: {error}")
            }),
            Err(_) => Err(format!("{words:?}: no answer")),
        }
    }

    /// A number from INFO.
    pub(crate) async fn info(&mut self, name: &str) -> Result<u64, String> {
        let all: String = self.run(&["INFO"]).await?;
        let mut pairs = all.lines().filter_map(|line| line.split_once(':'));
        let found = pairs.find(|(found, _)| *found == name);
        found
            .and_then(|(_, value)| value.trim().parse().ok())
            .ok_or_else(|| format!("INFO has no {name}"))
    }

    /// Runs one command and discards its reply.
    pub(crate) async fn execute(&mut self, words: &[&str]) -> Result<(), String> {
        self.run::<redis::Value>(words).await.map(drop)
    }
}
