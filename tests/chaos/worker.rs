//! One worker process, `rpcache worker` as users start it, and its replacements.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::support::lifetime;
use crate::support::process::signal;

/// A worker gives itself 10 s to finish.
const ENDS_WITHIN: Duration = Duration::from_secs(15);

pub(crate) struct Worker {
    child: Child,
    command: Command,
    /// Starts a worker that logs each request.
    verbose: Command,
}

impl Worker {
    /// The worker and its replacements append to the same log.
    pub(crate) fn start((amqp, redis): (String, String), ttl_ms: u64, log: &Path) -> Self {
        let log = std::fs::File::create(log).expect("the run's folder is ours");
        let new = |verbosity: &[&str]| {
            let mut command = Command::new(env!("CARGO_BIN_EXE_rpcache"));
            command
                .args(["worker", "--concurrency", "2"])
                .args(["--ttl", &format!("{ttl_ms}ms")])
                .args(verbosity)
                .env_clear()
                .env("AMQP_URL", &amqp)
                .env("REDIS_URL", &redis)
                .process_group(lifetime::group())
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .kill_on_drop(true);
            command
        };
        let mut command = new(&[]);
        command.stderr(log);
        let child = command.spawn().expect("the command was built");
        Self {
            child,
            command,
            verbose: new(&["-v"]),
        }
    }

    pub(crate) fn id(&self) -> Option<u32> {
        self.child.id()
    }

    pub(crate) fn signal(&self, name: &str) {
        signal(name, self.id().expect("it has not been waited for"));
    }

    pub(crate) async fn kill(&mut self) -> Result<(), String> {
        self.child.kill().await.map_err(|error| error.to_string())
    }

    /// Sends SIGTERM and waits. Returns the exit code; `None` if the worker had to be killed.
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

    /// Starts a worker that logs each request to this pipe.
    pub(crate) fn start_verbose(&mut self, stderr: OwnedFd) -> Result<(), String> {
        let started = self.verbose.stderr(stderr).spawn();
        // Otherwise the command would keep the pipe open.
        self.verbose.stderr(Stdio::null());
        self.child = started.map_err(|error| error.to_string())?;
        Ok(())
    }

    /// Whether it has ended by itself.
    pub(crate) fn is_gone(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }
}
