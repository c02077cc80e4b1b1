//! The private Redis, and what can be done to it.

use std::path::PathBuf;
use std::process::{Child, Command};
use std::time::Duration;

use redis::FromRedisValue;
use redis::aio::MultiplexedConnection;
use tokio::task::block_in_place;
use tokio::time::timeout;

use crate::support::process::signal;
use crate::support::{lifetime, ports};

/// For a command of the driver's, on a loaded machine.
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
            // Another process may have taken the port: once more with another.
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
        self.server =
            block_in_place(|| lifetime::start_server(command(self.port), &self.folder, self.port))?;
        Ok(())
    }

    pub(crate) fn signal(&self, name: &str) {
        signal(name, self.server.id());
    }

    /// A connection of the driver's own, not by any link.
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
    /// One command, its words as one would type them.
    pub(crate) async fn run<T: FromRedisValue>(&mut self, words: &[&str]) -> Result<T, String> {
        let mut command = redis::cmd(words[0]);
        command.arg(&words[1..]);
        match timeout(PATIENCE, command.query_async(&mut self.0)).await {
            Ok(answer) => answer.map_err(|error| format!("{words:?}: {error}")),
            Err(_) => Err(format!("{words:?}: no answer")),
        }
    }

    /// The same when only its success matters.
    pub(crate) async fn order(&mut self, words: &[&str]) -> Result<(), String> {
        self.run::<redis::Value>(words).await.map(drop)
    }
}
