//! Computing: the one step of a request that differs by what serves it.
//!
//! Everything around it is the pipeline's ([`super::pipeline`]): lease, fill, attempts of redelivered requests,
//! deadlines, metrics, slots.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use tokio::sync::OwnedSemaphorePermit;
use tokio_util::sync::CancellationToken;
use tracing::error;

use crate::error::ErrorCode;
use crate::message::Failure;
use crate::procedure::{Answer as _, Cancel, ComputeError, Procedure};

/// Computes answers by a [`Procedure`], on threads where blocking is allowed. Panics are contained.
#[derive(Debug)]
pub(super) struct Computer<P> {
    procedure: Arc<P>,
    stop: Stop,
}

/// Ends all computations: for the threads that compute, and for the tasks that wait for them.
#[derive(Debug, Clone)]
struct Stop {
    threads: Cancel,
    waiting: CancellationToken,
}

impl<P: Procedure> Computer<P> {
    pub(super) fn new(procedure: P) -> Self {
        Self {
            procedure: Arc::new(procedure),
            stop: Stop {
                threads: Cancel::new(),
                waiting: CancellationToken::new(),
            },
        }
    }

    pub(super) fn procedure(&self) -> &Arc<P> {
        &self.procedure
    }

    /// Computes on a thread of its own. `None` once the computer is cancelled, at once, even if the thread never
    /// checks its flag.
    ///
    /// `slot` is held until the computation has really ended: dropping this future does not end a thread.
    pub(super) async fn compute(
        &self,
        slot: Option<OwnedSemaphorePermit>,
        argument: &Arc<P::Argument>,
    ) -> Option<Result<Vec<u8>, Failure>> {
        let (procedure, argument) = (Arc::clone(&self.procedure), Arc::clone(argument));
        let cancel = self.stop.threads.clone();
        let on_thread = move || {
            let _slot = slot;
            compute_now(&*procedure, &argument, &cancel)
        };
        let computing = tokio::task::spawn_blocking(on_thread);
        let computed = self.stop.waiting.run_until_cancelled(computing).await?;
        outcome(computed.ok()?)
    }

    /// Computes a cheap argument at once, on this thread. `None` once the computer is cancelled.
    pub(super) fn compute_inline(
        &self,
        argument: &P::Argument,
    ) -> Option<Result<Vec<u8>, Failure>> {
        outcome(compute_now(&*self.procedure, argument, &self.stop.threads))
    }

    /// Cancels all computations, for good.
    pub(super) fn cancel(&self) {
        self.stop.now();
    }

    /// Cancels all computations when the guard is dropped.
    pub(super) fn cancel_on_drop(&self) -> CancelOnDrop {
        CancelOnDrop(self.stop.clone())
    }
}

impl Stop {
    fn now(&self) {
        self.threads.cancel();
        self.waiting.cancel();
    }
}

pub(super) struct CancelOnDrop(Stop);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.now();
    }
}

/// Translates an error to what the caller gets; `None` for a cancelled computation.
fn outcome(computed: Result<Vec<u8>, ComputeError>) -> Option<Result<Vec<u8>, Failure>> {
    let (code, message) = match computed {
        Ok(answer) => return Some(Ok(answer)),
        Err(ComputeError::Cancelled) => return None,
        Err(ComputeError::BadArgument(message)) => (ErrorCode::BadArgument, message),
        Err(ComputeError::TooLarge(message)) => (ErrorCode::TooLarge, message),
        Err(ComputeError::Failed(message)) => (ErrorCode::Failed, message),
    };
    Some(Err(Failure { code, message }))
}

fn compute_now<P: Procedure>(
    procedure: &P,
    argument: &P::Argument,
    cancel: &Cancel,
) -> Result<Vec<u8>, ComputeError> {
    let compute = || {
        let answer = procedure.compute(argument, cancel)?;
        Ok(answer.to_bytes())
    };
    // The panic's own message has gone to stderr; the caller learns no internals.
    catch_unwind(AssertUnwindSafe(compute)).unwrap_or_else(|_| {
        let name = procedure.name();
        error!("{name} panicked: answering `failed`");
        Err(ComputeError::Failed(format!("{name} panicked")))
    })
}
