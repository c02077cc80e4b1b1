//! Computing: a few at once, on threads where blocking is allowed, panics contained.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tracing::error;

use crate::error::ErrorCode;
use crate::message::Failure;
use crate::procedure::{Cancel, ComputeError, Procedure};

/// Runs a procedure's computations, as many at once as it has slots.
#[derive(Debug)]
pub(super) struct Computer<P> {
    procedure: Arc<P>,
    slots: Arc<Semaphore>,
    stop: Stop,
}

/// The end of all that is computed: for the threads that do it, and for those who wait for them.
#[derive(Debug, Clone)]
struct Stop {
    threads: Cancel,
    waiting: CancellationToken,
}

impl<P: Procedure> Computer<P> {
    pub(super) fn new(procedure: P, slots: u16) -> Self {
        Self {
            procedure: Arc::new(procedure),
            slots: Arc::new(Semaphore::new(usize::from(slots.max(1)))),
            stop: Stop {
                threads: Cancel::new(),
                waiting: CancellationToken::new(),
            },
        }
    }

    pub(super) fn procedure(&self) -> &Arc<P> {
        &self.procedure
    }

    /// Waits for a place to compute in.
    pub(super) async fn slot(&self) -> Option<OwnedSemaphorePermit> {
        // Never closed.
        Arc::clone(&self.slots).acquire_owned().await.ok()
    }

    /// Computes in a slot, on a thread where blocking is allowed. `None` if it was cancelled, at once
    /// although the thread may never look at its flag.
    pub(super) async fn compute(
        &self,
        slot: Option<OwnedSemaphorePermit>,
        argument: &Arc<P::Argument>,
    ) -> Option<Result<P::Answer, Failure>> {
        let (procedure, argument) = (Arc::clone(&self.procedure), Arc::clone(argument));
        let cancel = self.stop.threads.clone();
        // The slot goes with the thread: a task that is dropped does not end it.
        let on_thread = move || {
            let _slot = slot;
            compute_now(&*procedure, &argument, &cancel)
        };
        let computing = tokio::task::spawn_blocking(on_thread);
        let computed = self.stop.waiting.run_until_cancelled(computing).await?;
        outcome(computed.ok()?)
    }

    /// Computes at once, on this thread, an argument that the procedure calls cheap.
    pub(super) fn compute_cheap(
        &self,
        argument: &P::Argument,
    ) -> Option<Result<P::Answer, Failure>> {
        outcome(compute_now(&*self.procedure, argument, &self.stop.threads))
    }

    /// Cancels all that is computed, for ever: a thread cannot be stopped from outside.
    pub(super) fn cancel(&self) {
        self.stop.now();
    }

    /// The same when it is dropped.
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

/// As the caller is told; `None` for what was cancelled.
fn outcome<A>(computed: Result<A, ComputeError>) -> Option<Result<A, Failure>> {
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
) -> Result<P::Answer, ComputeError> {
    // The panic's own message has gone to stderr; the caller learns no internals.
    catch_unwind(AssertUnwindSafe(|| procedure.compute(argument, cancel))).unwrap_or_else(|_| {
        let name = procedure.name();
        error!("{name} panicked; its caller is told that it failed");
        Err(ComputeError::Failed(format!("{name} panicked")))
    })
}
