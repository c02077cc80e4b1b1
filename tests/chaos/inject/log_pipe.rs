//! The fault of a log pipe that is not read: the worker must still answer, and end on SIGTERM.

use std::io::Write as _;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use tokio::io::AsyncReadExt as _;
use tokio::net::unix::pipe;
use tokio::time::{Instant, sleep, timeout};

use super::{Injector, POLL_INTERVAL};
use crate::fault::Skipped;
use crate::plan::Event;
use crate::worker::Worker;

/// A worker has stopped answering if it sends no reply for this long while worker 0 sends [`MEANWHILE`].
const ANSWERS_WITHIN: Duration = Duration::from_secs(4);
const MEANWHILE: u64 = 100;
/// Fills the pipe before the worker writes to it.
const FILLING: u8 = b'.';

impl Injector {
    /// Replaces the worker by one whose stderr is a full pipe, checks that it answers, and ends it.
    pub(super) async fn log_pipe(
        &self,
        event: &Event,
        worker: &mut Worker,
        number: usize,
    ) -> Result<(), Skipped> {
        let code = worker.terminate().await;
        self.ledger.worker_ended(code);
        let (full, unread) = full_pipe().await.map_err(|error| error.to_string())?;
        worker.start_verbose(full)?;
        if !self.goes_on_answering(event, number).await {
            self.ledger.broken(format!(
                "worker {number}, whose log is not read, has stopped answering"
            ));
        }
        let asked = Instant::now();
        let code = worker.terminate().await;
        self.ledger.worker_ended(code);
        if code.is_none() && !self.broker_is_disturbed(event) {
            self.ledger.broken(format!(
                "worker {number}, whose log is not read, has not ended {:.1} s after SIGTERM",
                asked.elapsed().as_secs_f64()
            ));
        }
        let (_, log) = &self.fleet.logs()[number];
        Ok(read(unread, log).await.map_err(|error| error.to_string())?)
    }

    /// Whether the worker sends replies as long as the fault lasts. Worker 0 consumes from the same queue, and its
    /// log is read.
    async fn goes_on_answering(&self, event: &Event, number: usize) -> bool {
        let replies = || [number, 0].map(|number| self.fleet.taps[number].replies());
        let end = Instant::now() + event.lasts;
        let (mut since, mut last) = (Instant::now(), replies());
        while Instant::now() < end && !self.stop.is_cancelled() {
            sleep(POLL_INTERVAL).await;
            let now = replies();
            if now[0] > last[0] || self.broker_is_disturbed(event) {
                (since, last) = (Instant::now(), now);
            } else if since.elapsed() > ANSWERS_WITHIN && now[1] > last[1] + MEANWHILE {
                return false;
            }
        }
        true
    }
}

/// A full pipe: its blocking write end for another process, and its read end.
async fn full_pipe() -> std::io::Result<(OwnedFd, pipe::Receiver)> {
    let (full, unread) = pipe::pipe()?;
    full.writable().await?;
    for size in [4096, 1] {
        while full.try_write(&vec![FILLING; size]).is_ok() {}
    }
    Ok((full.into_blocking_fd()?, unread))
}

/// Appends what the worker wrote to the pipe to its log.
async fn read(mut unread: pipe::Receiver, log: &Path) -> std::io::Result<()> {
    let mut bytes = Vec::new();
    // The worker, which has the write end, has ended.
    let read = timeout(Duration::from_secs(1), unread.read_to_end(&mut bytes));
    read.await??;
    let mut log = std::fs::File::options().append(true).open(log)?;
    let filling = bytes.iter().take_while(|byte| **byte == FILLING).count();
    log.write_all(&bytes[filling..])
}
