//! Computing: the one step of a request that differs by what serves it.
//!
//! Everything around it is the pipeline's ([`super::pipeline`]): lease, fill, attempts of redelivered requests,
//! deadlines, metrics, slots.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use tokio::sync::OwnedSemaphorePermit;
#[cfg(feature = "programs")]
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tracing::error;

use crate::error::ErrorCode;
use crate::message::Failure;
use crate::procedure::{Answer as _, Cancel, ComputeError, Procedure};
#[cfg(feature = "programs")]
use crate::program::{Limits, Program};
use crate::single_flight::Deadline;

/// Computes answers by a [`Procedure`] or a program, on threads where blocking is allowed. Panics are contained.
#[derive(Debug)]
pub(super) struct Computer<P> {
    procedure: Arc<P>,
    engine: Engine,
    stop: Stop,
}

/// What computes.
#[derive(Debug, Default)]
pub(super) enum Engine {
    /// [`Procedure::compute`].
    #[default]
    Procedure,
    /// A process for each answer.
    #[cfg(feature = "programs")]
    Program(Arc<Program>),
}

/// Ends all computations: for the threads that compute, and for the tasks that wait for them.
#[derive(Debug, Clone)]
struct Stop {
    threads: Cancel,
    waiting: CancellationToken,
    #[cfg(feature = "programs")]
    program: Option<Arc<Program>>,
}

impl<P: Procedure> Computer<P> {
    pub(super) fn new(procedure: P, engine: Engine) -> Self {
        Self {
            procedure: Arc::new(procedure),
            stop: Stop {
                #[cfg(feature = "programs")]
                program: match &engine {
                    Engine::Procedure => None,
                    Engine::Program(program) => Some(Arc::clone(program)),
                },
                threads: Cancel::new(),
                waiting: CancellationToken::new(),
            },
            engine,
        }
    }

    pub(super) fn procedure(&self) -> &Arc<P> {
        &self.procedure
    }

    /// Whether the argument is computed at once, on this thread.
    pub(super) fn is_cheap(&self, argument: &P::Argument) -> bool {
        match self.engine {
            Engine::Procedure => self.procedure.is_cheap(argument),
            #[cfg(feature = "programs")]
            Engine::Program(_) => false,
        }
    }

    /// Computes on a thread of its own, an answer of at most `max_size` bytes. A program also ends at `deadline`. `None`
    /// once the computer is cancelled, at once, even if the thread never checks its flag.
    ///
    /// `slot` is held until the computation has really ended: dropping this future does not end a thread.
    pub(super) async fn compute(
        &self,
        slot: Option<OwnedSemaphorePermit>,
        argument: &Arc<P::Argument>,
        max_size: usize,
        deadline: Deadline,
    ) -> Option<Result<Vec<u8>, Failure>> {
        match &self.engine {
            Engine::Procedure => {
                // A function cannot be ended, nor its answer cut off.
                let _ = (max_size, deadline);
                self.compute_by_procedure(slot, argument).await
            }
            #[cfg(feature = "programs")]
            Engine::Program(program) => {
                let (reply, replied) = oneshot::channel();
                let (program, argument) = (Arc::clone(program), argument.to_string());
                // It holds the slot, too, while its processes end after the reply.
                let on_thread = move || {
                    let _slot = slot;
                    let deadline = &|| deadline.at().into_std();
                    program.run(&argument, &Limits { max_size, deadline }, |outcome| {
                        // A request that has lost its session does not wait any more.
                        let _ = reply.send(outcome);
                    });
                };
                drop(tokio::task::spawn_blocking(on_thread));
                self.stop.waiting.run_until_cancelled(replied).await?.ok()
            }
        }
    }

    async fn compute_by_procedure(
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
        #[cfg(feature = "programs")]
        if let Some(program) = &self.program {
            program.stop();
        }
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
