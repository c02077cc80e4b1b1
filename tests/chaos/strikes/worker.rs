//! Faults of one worker.

use std::time::Duration;

use tokio::time::timeout;

use super::Striker;
use crate::fault::{Fault, Miss};
use crate::plan::Event;

/// How long a worker that is to be killed at some point is given to get there.
const CHANCE: Duration = Duration::from_secs(2);

impl Striker {
    pub(super) async fn worker(&self, event: &Event) -> Result<(), Miss> {
        let seat = event.worker.expect("lanes of workers say which");
        let mut worker = self.fleet.workers[seat].lock().await;
        if worker.is_gone() {
            self.ledger
                .leak(format!("worker {seat} had ended by itself"));
            return Ok(worker.start_again()?);
        }
        match event.fault {
            Fault::WorkerKill => {
                worker.kill().await?;
                self.last(event).await;
                Ok(worker.start_again()?)
            }
            Fault::KillBeforeCompute
            | Fault::KillInCompute
            | Fault::KillAfterFill
            | Fault::KillAfterReply
            | Fault::KillBeforeAck => {
                let tap = &self.fleet.taps[seat];
                let process = worker.id().expect("it has not been waited for");
                let mut killed = tap.arm(event.fault, process);
                if timeout(CHANCE, &mut killed).await.is_err() {
                    if tap.disarm() {
                        return Err(Miss::NoChance);
                    }
                    // In this very moment.
                    let _ = killed.await;
                }
                worker.kill().await?;
                tap.disarm();
                self.last(event).await;
                Ok(worker.start_again()?)
            }
            Fault::WorkerTerm => {
                let code = worker.terminate().await;
                self.ledger.worker_ended(code);
                self.last(event).await;
                Ok(worker.start_again()?)
            }
            Fault::LogPipeStalled => {
                self.log_pipe(event, &mut worker, seat).await?;
                Ok(worker.start_again()?)
            }
            Fault::WorkerStop => {
                worker.signal("STOP");
                self.last(event).await;
                worker.signal("CONT");
                Ok(())
            }
            fault => Err(Miss::Problem(format!("{fault} strikes no worker"))),
        }
    }
}
