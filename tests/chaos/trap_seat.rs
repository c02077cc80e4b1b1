//! The processes that serve the procedure with traps: each that was killed by one is followed at
//! once by the next.

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

/// What the kernel says of a process that called `abort`.
const ABORTED: i32 = 6;

pub(crate) struct TrapSeat {
    stop: CancellationToken,
    held: JoinHandle<Held>,
}

/// What became of a seat's processes.
#[derive(Default)]
pub(crate) struct Held {
    /// How many a trap has killed.
    pub(crate) killed: u64,
    /// Other ends than by a trap or by request, in words.
    pub(crate) surprises: Vec<String>,
}

impl TrapSeat {
    pub(crate) fn start(amqp: &str, redis: &str, ttl_ms: u64, log: &Path) -> std::io::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command
            .args(["trap", "--amqp-url", amqp, "--redis-url", redis])
            .args(["--ttl-ms", &ttl_ms.to_string()])
            .process_group(lifetime::group())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(log)?)
            .kill_on_drop(true);
        let first = command.spawn()?;
        let stop = CancellationToken::new();
        let held = tokio::spawn(hold(command, first, stop.clone()));
        Ok(Self { stop, held })
    }

    pub(crate) async fn end(self) -> Held {
        self.stop.cancel();
        self.held.await.unwrap_or_else(|error| Held {
            killed: 0,
            surprises: vec![error.to_string()],
        })
    }
}

async fn hold(mut command: Command, mut child: Child, stop: CancellationToken) -> Held {
    let mut held = Held::default();
    loop {
        tokio::select! {
            ended = child.wait() => held.note(ended, false),
            () = stop.cancelled() => {
                if let Some(process) = child.id() {
                    signal("TERM", process);
                }
                match timeout(ENDS_WITHIN, child.wait()).await {
                    Ok(ended) => held.note(ended, true),
                    Err(_) => held.surprises.push("did not end".to_owned()),
                }
                return held;
            }
        }
        match command.spawn() {
            Ok(next) => child = next,
            Err(error) => {
                held.surprises.push(error.to_string());
                return held;
            }
        }
    }
}

impl Held {
    fn note(&mut self, ended: std::io::Result<ExitStatus>, asked: bool) {
        match ended {
            Ok(status) if status.signal() == Some(ABORTED) => self.killed += 1,
            Ok(status) if asked && status.success() => {}
            Ok(status) => self.surprises.push(format!("ended with {status}")),
            Err(error) => self.surprises.push(error.to_string()),
        }
    }
}
