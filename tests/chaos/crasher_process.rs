//! Runs a process that serves the crasher, and starts it again at once whenever it has aborted.

use std::fs::File;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::process::{Child, Command};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::support::lifetime;
use crate::support::process::signal;

/// A worker gives itself 10 s to finish.
const ENDS_WITHIN: Duration = Duration::from_secs(15);

/// SIGABRT.
const ABORTED: i32 = 6;

pub(crate) struct CrasherProcess {
    stop: CancellationToken,
    supervisor: JoinHandle<Exits>,
}

/// How the processes ended.
#[derive(Default)]
pub(crate) struct Exits {
    /// How many aborted.
    pub(crate) aborted: u64,
    /// Descriptions of other exits than by abort or on request.
    pub(crate) unexpected: Vec<String>,
}

impl CrasherProcess {
    pub(crate) fn start(amqp: &str, redis: &str, ttl_ms: u64, log: &Path) -> std::io::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command
            .args(["crasher", "--amqp-url", amqp, "--redis-url", redis])
            .args(["--ttl-ms", &ttl_ms.to_string()])
            .process_group(lifetime::group())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(log)?)
            .kill_on_drop(true);
        let first = command.spawn()?;
        let stop = CancellationToken::new();
        let supervisor = tokio::spawn(supervise(command, first, stop.clone()));
        Ok(Self { stop, supervisor })
    }

    /// Asks the process to end, and waits for it.
    pub(crate) async fn end(self) -> Exits {
        self.stop.cancel();
        self.supervisor.await.unwrap_or_else(|error| Exits {
            aborted: 0,
            unexpected: vec![error.to_string()],
        })
    }
}

async fn supervise(mut command: Command, mut child: Child, stop: CancellationToken) -> Exits {
    let mut exits = Exits::default();
    loop {
        tokio::select! {
            ended = child.wait() => exits.note(ended, false),
            () = stop.cancelled() => {
                if let Some(process) = child.id() {
                    signal("TERM", process);
                }
                match timeout(ENDS_WITHIN, child.wait()).await {
                    Ok(ended) => exits.note(ended, true),
                    Err(_) => exits.unexpected.push("did not end".to_owned()),
                }
                return exits;
            }
        }
        match command.spawn() {
            Ok(next) => child = next,
            Err(error) => {
                exits.unexpected.push(error.to_string());
                return exits;
            }
        }
    }
}

impl Exits {
    fn note(&mut self, ended: std::io::Result<ExitStatus>, asked: bool) {
        match ended {
            Ok(status) if status.signal() == Some(ABORTED) => self.aborted += 1,
            Ok(status) if asked && status.success() => {}
            Ok(status) => self.unexpected.push(format!("ended with {status}")),
            Err(error) => self.unexpected.push(error.to_string()),
        }
    }
}
