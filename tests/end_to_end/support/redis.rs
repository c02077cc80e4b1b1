//! A Redis server for one test: starting, commands, freezing.

use super::isolated::{self, Dropped};
use super::process::{Finished, Program};
use super::{lifetime, ports, wait};
use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionInfo, FromRedisValue, IntoConnectionInfo,
};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

pub(crate) struct Redis {
    port: u16,
    folder: PathBuf,
    owner: Owner,
    options: Vec<String>,
    server: Child,
}

/// As whom a server runs.
#[derive(Debug, Clone, Copy)]
enum Owner {
    /// The user of the tests.
    Tests,
    /// A user of its own, whose number is its port.
    Itself,
}

impl Redis {
    pub(crate) fn start() -> Self {
        Self::start_with(&[])
    }

    /// Starts one with further options, such as `--requirepass secret`.
    pub(crate) fn start_with(options: &[&str]) -> Self {
        Self::start_as(Owner::Tests, options)
    }

    /// Starts one that [`Redis::cut`] can cut off.
    pub(crate) fn start_isolated(options: &[&str]) -> Self {
        Self::start_as(Owner::Itself, options)
    }

    fn start_as(owner: Owner, options: &[&str]) -> Self {
        let mut failure = String::new();
        for _ in 0..3 {
            // Another process may have taken the port: try again with another one.
            match Self::try_to_start(owner, options) {
                Ok(redis) => return redis,
                Err(reason) => failure = reason,
            }
        }
        panic!("no Redis for the test: {failure}");
    }

    fn try_to_start(owner: Owner, options: &[&str]) -> Result<Self, String> {
        let folder = lifetime::folder("redis");
        let [port] = ports::free();
        let options: Vec<_> = options.iter().map(|&option| option.to_owned()).collect();
        let command = command(owner, port, &folder, &options);
        let server = lifetime::start_server(command, &folder, port)?;
        Ok(Self {
            port,
            folder,
            owner,
            options,
            server,
        })
    }

    /// Starts it again after [`Redis::kill`], with the files that it had written.
    pub(crate) fn start_again(&mut self) -> Result<(), String> {
        let command = command(self.owner, self.port, &self.folder, &self.options);
        self.server = lifetime::start_server(command, &self.folder, self.port)?;
        Ok(())
    }

    /// Drops all that a server of [`Redis::start_isolated`] sends, until the result is dropped.
    pub(crate) fn cut(&self) -> Result<Dropped, String> {
        Dropped::of(self.port, &[&[]])
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn url(&self) -> String {
        self.url_with("")
    }

    /// `credentials` as they stand in a URL: `:password@`, `user:password@` or nothing.
    pub(crate) fn url_with(&self, credentials: &str) -> String {
        format!("redis://{credentials}127.0.0.1:{}/", self.port)
    }

    /// Runs one command and returns its reply.
    pub(crate) async fn run<T: FromRedisValue>(&self, command: &[&str]) -> T {
        self.run_as("", command).await
    }

    /// Runs a command with arguments of any bytes.
    pub(crate) async fn command<T: FromRedisValue>(&self, command: &Cmd) -> T {
        self.send("", command).await
    }

    pub(crate) async fn run_as<T: FromRedisValue>(&self, credentials: &str, command: &[&str]) -> T {
        let command = redis::cmd(command[0]).arg(&command[1..]).to_owned();
        self.send(credentials, &command).await
    }

    /// The error of a command that Redis refuses this user.
    pub(crate) async fn refusal(&self, credentials: &str, command: &[&str]) -> String {
        let command = redis::cmd(command[0]).arg(&command[1..]).to_owned();
        let refused = self
            .try_to_send::<redis::Value>(credentials, &command)
            .await;
        refused.expect_err("it is refused").to_string()
    }

    async fn send<T: FromRedisValue>(&self, credentials: &str, command: &Cmd) -> T {
        let sent = self.try_to_send(credentials, command).await;
        sent.unwrap_or_else(|error| panic!("{command:?}: {error}"))
    }

    async fn try_to_send<T: FromRedisValue>(
        &self,
        credentials: &str,
        command: &Cmd,
    ) -> redis::RedisResult<T> {
        let address: ConnectionInfo = self
            .url_with(credentials)
            .into_connection_info()
            .expect("a URL of ours");
        let client = Client::open(address).expect("a URL of ours");
        wait::soon("Redis", async {
            // By default, commands of more than 500 ms fail: too short for a busy machine.
            let config = AsyncConnectionConfig::new()
                .set_response_timeout(None)
                .set_connection_timeout(None);
            let mut connection = client
                .get_multiplexed_async_connection_with_config(&config)
                .await?;
            command.query_async(&mut connection).await
        })
        .await
    }

    pub(crate) async fn get(&self, key: &str) -> Option<String> {
        self.run(&["GET", key]).await
    }

    /// Stores `value` without an expiry, so that the TTL shows whether another program writes the key.
    pub(crate) async fn set(&self, key: &str, value: &str) {
        self.run::<()>(&["SET", key, value]).await;
    }

    /// `rpcache cache` with these arguments, and the address of this Redis in its environment.
    pub(crate) fn program(&self, arguments: &[&str]) -> Program {
        Program::rpcache(&[&["cache"], arguments].concat()).env("REDIS_URL", &self.url())
    }

    /// Runs `rpcache cache` with these arguments to its end.
    pub(crate) async fn rpcache(&self, arguments: &[&str]) -> Finished {
        self.program(arguments).run().await
    }

    /// The TTL of the key in milliseconds; -1: none; -2: there is no such key.
    pub(crate) async fn pttl(&self, key: &str) -> i64 {
        self.run(&["PTTL", key]).await
    }

    /// All keys except for announcements of workers.
    pub(crate) async fn keys(&self) -> Vec<String> {
        let mut keys: Vec<String> = self.run(&["KEYS", "*"]).await;
        keys.retain(|key| !key.contains("rpcache:worker:"));
        keys.sort();
        keys
    }

    /// Whether it is a primary now. It closes connections when it becomes one.
    pub(crate) async fn is_primary(&self) -> bool {
        let info = redis::cmd("INFO").arg("replication").to_owned();
        let info = self.try_to_send::<String>("", &info).await;
        info.is_ok_and(|info| info.contains("role:master"))
    }

    /// Whether it is a primary, or has a copy of its primary's data.
    pub(crate) async fn has_its_copy(&self) -> bool {
        let info: String = self.run(&["INFO", "replication"]).await;
        info.contains("role:master") || info.contains("master_link_status:up")
    }

    /// The number of lookups that were hits so far.
    pub(crate) async fn found(&self) -> u64 {
        let stats: String = self.run(&["INFO", "stats"]).await;
        let mut lines = stats.lines();
        let hits = lines.find_map(|line| line.strip_prefix("keyspace_hits:"));
        hits.and_then(|hits| hits.parse().ok())
            .expect("INFO has it")
    }

    /// Ends it at once, like a machine that loses power.
    pub(crate) fn kill(&mut self) {
        self.server.kill().expect("it runs");
        self.server.wait().expect("it has ended");
    }

    /// Stops answering without closing a connection, like a machine that hangs.
    pub(crate) fn freeze(&self) {
        super::process::signal("STOP", self.server.id());
    }

    /// Continues after [`Redis::freeze`].
    pub(crate) fn thaw(&self) {
        super::process::signal("CONT", self.server.id());
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        // Fails if the test has ended the server already.
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

fn command(owner: Owner, port: u16, folder: &Path, options: &[String]) -> Command {
    let program = Path::new("redis-server");
    let mut command = match owner {
        Owner::Tests => Command::new(program),
        Owner::Itself => {
            isolated::give(folder, port);
            isolated::command(program, port)
        }
    };
    command
        .args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
        .args(["--port", &port.to_string()])
        .arg("--dir")
        .arg(folder)
        .args(options);
    command
}
