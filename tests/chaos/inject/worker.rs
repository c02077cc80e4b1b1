//! Faults of one worker: killed, also at a chosen point of its work, stopped, or asked to end.

use std::time::Duration;

use tokio::time::timeout;

use super::Injector;
use crate::fault::{Fault, Skipped};
use crate::plan::Event;

/// How long to wait until a worker reaches the point at which it is to be killed.
const REACHES_POINT_WITHIN: Duration = Duration::from_secs(2);

impl Injector {
    pub(super) async fn worker(&self, event: &Event) -> Result<(), Skipped> {
        let number = event.worker.expect("a fault of a worker names it");
        let mut worker = self.fleet.workers[number].lock().await;
        if worker.is_gone() {
            self.ledger
                .leak(format!("worker {number} had ended by itself"));
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
                let tap = &self.fleet.taps[number];
                let process = worker.id().expect("it has not been waited for");
                let mut killed = tap.arm(event.fault, process);
                if timeout(REACHES_POINT_WITHIN, &mut killed).await.is_err() {
                    if tap.disarm() {
                        return Err(Skipped::NoOpportunity);
                    }
                    // It is being killed right now.
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
                self.log_pipe(event, &mut worker, number).await?;
                Ok(worker.start_again()?)
            }
            Fault::WorkerStop => {
                worker.signal("STOP");
                self.last(event).await;
                worker.signal("CONT");
                Ok(())
            }
            fault => Err(Skipped::Failed(format!(
                "{fault} is not a fault of a worker"
            ))),
        }
    }
}
