//! Computing: a few at once, on threads where blocking is allowed, panics contained.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use tokio::sync::Semaphore;
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
    /// Cancelled when the computer is dropped: a thread cannot be stopped from outside.
    cancel: Cancel,
}

impl<P: Procedure> Computer<P> {
    pub(super) fn new(procedure: P, slots: u16) -> Self {
        Self {
            procedure: Arc::new(procedure),
            slots: Arc::new(Semaphore::new(usize::from(slots.max(1)))),
            cancel: Cancel::new(),
        }
    }

    pub(super) fn procedure(&self) -> &Arc<P> {
        &self.procedure
    }

    /// Waits for a slot and computes; a cheap argument takes none. Once begun, a computation is finished even if the session is
    /// lost meanwhile: its answer is worth storing. `None` if it did not begin for that reason, or
    /// was cancelled.
    pub(super) async fn compute(
        &self,
        argument: &Arc<P::Argument>,
        lost: &CancellationToken,
        may_start: impl FnOnce() -> bool,
    ) -> Option<Result<P::Answer, Failure>> {
        let expired = || Failure {
            code: ErrorCode::Expired,
            message: "the request's time ran out before its turn came".to_owned(),
        };
        let computed = if self.procedure.is_cheap(argument) {
            if !may_start() {
                return Some(Err(expired()));
            }
            compute_now(&*self.procedure, argument, &self.cancel)
        } else {
            let slot = tokio::select! {
                slot = Arc::clone(&self.slots).acquire_owned() => slot.ok()?,
                () = lost.cancelled() => return None,
            };
            if !may_start() {
                return Some(Err(expired()));
            }
            let (procedure, argument) = (Arc::clone(&self.procedure), Arc::clone(argument));
            let cancel = self.cancel.clone();
            // The slot goes with the thread: a task that is dropped does not end it.
            let on_thread = move || {
                let _slot = slot;
                compute_now(&*procedure, &argument, &cancel)
            };
            tokio::task::spawn_blocking(on_thread).await.ok()?
        };
        let (code, message) = match computed {
            Ok(answer) => return Some(Ok(answer)),
            Err(ComputeError::Cancelled) => return None,
            Err(ComputeError::BadArgument(message)) => (ErrorCode::BadArgument, message),
            Err(ComputeError::TooLarge(message)) => (ErrorCode::TooLarge, message),
            Err(ComputeError::Failed(message)) => (ErrorCode::Failed, message),
        };
        Some(Err(Failure { code, message }))
    }
}

impl<P> Drop for Computer<P> {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

fn compute_now<P: Procedure>(
    procedure: &P,
    argument: &P::Argument,
    cancel: &Cancel,
) -> Result<P::Answer, ComputeError> {
    // The panic's own message has gone to stderr; the caller learns no internals.
    catch_unwind(AssertUnwindSafe(|| procedure.compute(argument, cancel))).unwrap_or_else(|_| {
        error!("{} panicked; its caller is told that it failed", P::NAME);
        Err(ComputeError::Failed(format!("{} panicked", P::NAME)))
    })
}
