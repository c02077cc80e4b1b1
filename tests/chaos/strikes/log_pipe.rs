//! A worker whose log nobody reads.

use std::io::Write as _;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use tokio::io::AsyncReadExt as _;
use tokio::net::unix::pipe;
use tokio::time::{Instant, sleep, timeout};

use super::{BETWEEN_LOOKS, Striker};
use crate::fault::Miss;
use crate::plan::Event;
use crate::worker::Worker;

/// How long a worker may be without a reply while worker 0 sends so many.
const ANSWERS_WITHIN: Duration = Duration::from_secs(4);
const MEANWHILE: u64 = 100;
/// What the pipe holds before the worker writes to it.
const FILLING: u8 = b'.';

impl Striker {
    /// Another worker in the seat, until it is asked to end; it answers meanwhile, and ends.
    pub(super) async fn log_pipe(
        &self,
        event: &Event,
        worker: &mut Worker,
        seat: usize,
    ) -> Result<(), Miss> {
        let code = worker.terminate().await;
        self.ledger.worker_ended(code);
        let (full, unread) = full_pipe().await.map_err(|error| error.to_string())?;
        worker.start_verbose(full)?;
        if !self.goes_on_answering(event, seat).await {
            self.ledger.broken(format!(
                "worker {seat}, whose log is not read, has stopped answering"
            ));
        }
        let asked = Instant::now();
        let code = worker.terminate().await;
        self.ledger.worker_ended(code);
        if code.is_none() && !self.broker_is_disturbed(event) {
            self.ledger.broken(format!(
                "worker {seat}, whose log is not read, has not ended {:.1} s after SIGTERM",
                asked.elapsed().as_secs_f64()
            ));
        }
        let (_, log) = &self.fleet.logs()[seat];
        Ok(read(unread, log).await.map_err(|error| error.to_string())?)
    }

    /// As long as the event lasts. Worker 0 has the same queue and reads its own log.
    async fn goes_on_answering(&self, event: &Event, seat: usize) -> bool {
        let replies = || [seat, 0].map(|seat| self.fleet.taps[seat].replies());
        let end = Instant::now() + event.lasts;
        let (mut since, mut last) = (Instant::now(), replies());
        while Instant::now() < end && !self.stop.is_cancelled() {
            sleep(BETWEEN_LOOKS).await;
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

/// The end that takes no more, for another process, and the other one.
async fn full_pipe() -> std::io::Result<(OwnedFd, pipe::Receiver)> {
    let (full, unread) = pipe::pipe()?;
    full.writable().await?;
    for size in [4096, 1] {
        while full.try_write(&vec![FILLING; size]).is_ok() {}
    }
    Ok((full.into_blocking_fd()?, unread))
}

/// What has been written, to the log of the seat.
async fn read(mut unread: pipe::Receiver, log: &Path) -> std::io::Result<()> {
    let mut bytes = Vec::new();
    // Its writer has ended.
    let read = timeout(Duration::from_secs(1), unread.read_to_end(&mut bytes));
    read.await??;
    let mut log = std::fs::File::options().append(true).open(log)?;
    let filling = bytes.iter().take_while(|byte| **byte == FILLING).count();
    log.write_all(&bytes[filling..])
}
