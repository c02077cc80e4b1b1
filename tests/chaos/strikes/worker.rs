//! Faults of one worker.

use super::Striker;
use crate::fault::{Fault, Miss};
use crate::plan::Event;

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
            Fault::WorkerTerm => {
                let code = worker.terminate().await;
                self.ledger.worker_ended(code);
                self.last(event).await;
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
