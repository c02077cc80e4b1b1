//! A procedure whose computation is a sleep, so that any number of workers compute at the same time on any
//! machine.

use std::thread;
use std::time::Duration;

use rpcache::{Cancel, ComputeError, Procedure, ProcedureName};

/// How long each computation takes. Callers need not know it.
#[derive(Default)]
pub(crate) struct Slow(pub(crate) Duration);

impl Procedure for Slow {
    type Argument = u64;
    type Answer = u64;

    fn name(&self) -> &ProcedureName {
        const { &ProcedureName::new("slow") }
    }

    fn compute(&self, argument: &u64, _cancel: &Cancel) -> Result<u64, ComputeError> {
        thread::sleep(self.0);
        Ok(*argument)
    }

    fn verify(&self, argument: &u64, answer: &u64) -> bool {
        argument == answer
    }
}
