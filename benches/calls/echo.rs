//! A procedure that costs nothing, with a new argument for every call, so that every call is a miss.

use rpcache::{Cancel, ComputeError, Procedure, ProcedureName};

pub(crate) struct Echo;

impl Procedure for Echo {
    type Argument = u64;
    type Answer = u64;

    fn name(&self) -> &ProcedureName {
        const { &ProcedureName::new("echo") }
    }

    fn compute(&self, argument: &u64, _cancel: &Cancel) -> Result<u64, ComputeError> {
        Ok(*argument)
    }

    fn verify(&self, argument: &u64, answer: &u64) -> bool {
        argument == answer
    }

    fn is_cheap(&self, _argument: &u64) -> bool {
        true
    }
}
