//! Starts a client process: this program, in the role of a client.

use std::fs::File;
use std::path::Path;
use std::process::Stdio;

use tokio::process::{Child, Command};

use crate::args::Load;
use crate::support::lifetime;

/// What a client is given.
pub(crate) struct ClientProcess<'a> {
    pub(crate) amqp: String,
    pub(crate) redis: String,
    pub(crate) oracle: &'a Path,
    pub(crate) seed: u64,
    pub(crate) load: &'a Load,
    /// Of every call, in milliseconds; `None`: drawn.
    pub(crate) timeout_ms: Option<u64>,
}

impl ClientProcess<'_> {
    /// Starts it; it reports calls on its stdout, and ends when its stdin is closed.
    pub(crate) fn start(&self, log: &Path) -> std::io::Result<Child> {
        let mut command = Command::new(std::env::current_exe()?);
        command
            .arg("client")
            .args(["--amqp-url", &self.amqp, "--redis-url", &self.redis])
            .arg("--oracle")
            .arg(self.oracle)
            .args(["--seed".to_owned(), self.seed.to_string()])
            .args(self.load.options())
            .args(self.timeout_ms.map(|ms| format!("--timeout-ms={ms}")))
            .process_group(lifetime::group())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(File::create(log)?)
            .kill_on_drop(true)
            .spawn()
    }
}
