//! The worker: takes requests from the queue and answers each.
//!
//! In the order in which a delivery meets the files:
//!
//! 1. [`session`] takes deliveries from the broker.
//! 2. [`serve`] reads a request, decides which path its answer takes, and replies.
//! 3. [`pipeline`] finds the answer in the cache, or claims its key, has it computed by [`computer`], and fills.
//! 4. [`replier`] publishes the reply, waits for the confirm and acks.
//!
//! A redelivered request also passes [`redelivered`], which keeps it apart from the others, and [`attempts`].
//!
//! Beside that path: [`supervisor`] opens one session after another; [`dead_letters`] replies to requests that the
//! broker has given up; [`counters`], [`recent`] and [`observe`] say what happens, [`announcement`] and [`health`]
//! publish it.

mod announcement;
mod attempts;
mod callback_queues;
mod computer;
mod counters;
mod dead_letters;
mod direct;
mod health;
mod lifo_lock;
mod observe;
mod options;
mod pipeline;
mod prefetch_window;
mod recent;
mod redelivered;
mod replier;
mod reply_pattern;
mod serve;
mod service;
mod session;
mod supervisor;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use tracing::info;

use self::announcement::announce;
use self::computer::{Computer, Engine};
#[cfg(feature = "metrics")]
pub(crate) use self::counters::Activity;
pub(crate) use self::counters::Counters;
use self::counters::StopGuard;
pub use self::health::{Readiness, WorkerHealth};
pub use self::options::WorkerOptions;
pub use self::reply_pattern::{ReplyPattern, ReplyPatternError};
use self::service::Service;
use crate::cache::Cache;
use crate::error::Error;
use crate::procedure::Procedure;

/// How a worker ended, see [`Worker::run`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stopped {
    /// The worker answered every request that it held.
    Clean,
    /// The grace period ended before; the broker gives the remaining requests to other workers.
    Abandoned,
}

/// Serves a procedure from a queue.
///
/// Run any number of workers, in any number of processes: the broker distributes the requests, and a lease in Redis
/// prevents two workers from computing the same key.
///
/// ```no_run
/// use rpcache::fibonacci::Fibonacci;
/// use rpcache::{CacheOptions, Stopped, Worker, WorkerOptions};
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let cache = CacheOptions::new("redis://localhost".parse()?);
/// let options = WorkerOptions::new("amqp://localhost".parse()?, cache);
/// let worker = Worker::new(Fibonacci::default(), options);
///
/// let stop = async { tokio::signal::ctrl_c().await.unwrap_or(()) };
/// if worker.run(stop).await? == Stopped::Abandoned {
///     eprintln!("the grace period was too short; other workers get the remaining requests");
/// }
/// # Ok(())
/// # }
/// ```
///
/// `examples/graceful_shutdown.rs` is a whole worker process, with signals and exit codes.
#[derive(Debug)]
pub struct Worker<P: Procedure> {
    procedure: P,
    engine: Engine,
    options: WorkerOptions,
    counters: Counters,
}

impl<P: Procedure> Worker<P> {
    /// Makes a worker, which does nothing until it is [run](Self::run).
    #[must_use]
    pub fn new(procedure: P, options: WorkerOptions) -> Self {
        Self {
            procedure,
            engine: Engine::default(),
            options,
            counters: Counters::default(),
        }
    }

    /// Computes answers by a program instead of [`Procedure::compute`]; it gets the argument's text. With
    /// [`Text`](crate::Text), any program serves under any name.
    ///
    /// A computation ends by the timeout of the program or of its request, whichever is earlier. When the worker stops, what
    /// its processes have not computed within [`WorkerOptions::grace`] is ended.
    ///
    /// ```no_run
    /// use rpcache::program::{Program, ProgramOptions};
    /// use rpcache::{ArgumentForm, CacheOptions, Text, Worker, WorkerOptions};
    ///
    /// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// let cache = CacheOptions::new("redis://localhost".parse()?);
    /// let options = WorkerOptions::new("amqp://localhost".parse()?, cache);
    /// let program = Program::new(["sha256sum"], ProgramOptions::default())?;
    /// let worker = Worker::new(Text::new("sha".parse()?, ArgumentForm::Text), options);
    /// worker.with_program(program).run(std::future::pending()).await?;
    /// # Ok(())
    /// # }
    /// ```
    #[cfg(feature = "programs")]
    #[must_use]
    pub fn with_program(self, program: crate::program::Program) -> Self {
        Self {
            engine: Engine::Program(Arc::new(program)),
            ..self
        }
    }

    /// The health of this worker, to be read while it runs, from any thread.
    #[must_use]
    pub fn health(&self) -> WorkerHealth {
        WorkerHealth(self.counters.clone())
    }

    /// The metrics of this worker, to be read while it runs, from any thread.
    #[cfg(feature = "metrics")]
    #[must_use]
    pub fn metrics(&self) -> crate::Metrics {
        let slots = self.options.concurrency;
        crate::Metrics::of_worker(self.procedure.name(), slots, self.counters.clone())
    }

    /// Serves until `stop` resolves. Then takes no more requests, finishes those that it holds within
    /// [`WorkerOptions::grace`], and disconnects. Reconnects for ever to a server that cannot be reached or is lost.
    ///
    /// # Errors
    ///
    /// Only at the start: [`Error::Refused`] when the broker refuses the login or the vhost.
    ///
    /// # Cancellation
    ///
    /// Dropping the future stops the worker at once: computations are [cancelled](crate::Cancel), and the broker
    /// gives their requests to other workers. A background task releases leases and counted attempts in Redis, for
    /// some seconds at most. To finish the requests, let `stop` resolve instead.
    ///
    /// # Panics
    ///
    /// When polled outside of a Tokio runtime.
    pub async fn run(self, stop: impl Future<Output = ()>) -> Result<Stopped, Error> {
        let Self {
            procedure,
            engine,
            options,
            counters,
        } = self;
        let queue = options.queue.clone().unwrap_or_else(|| procedure.queue());
        let cache = Cache::open_counting(options.cache.clone(), Arc::clone(&counters.cache));
        let computer = Computer::new(procedure, engine);
        let service = Arc::new(Service::new(computer, cache, queue, counters, &options));
        let _cancels_computations = service.computer.cancel_on_drop();
        let _marks_stopping = StopGuard(Arc::clone(&service.counters.activity));
        let announcing = CancellationToken::new();
        let ends_announcing = announcing.clone().drop_guard();
        let announced = tokio::spawn(announce(
            Arc::clone(&service),
            options.concurrency,
            announcing,
        ));
        let stop = async {
            stop.await;
            service.counters.activity.mark_stopping();
        };
        let ended = tokio::select! {
            ended = service.supervise(&options, stop) => ended,
            never = service.warn_if_unbounded() => match never {},
        };
        drop(ends_announcing);
        // Not done yet if there was no session.
        service.cease().await;
        // Bounded by its waits for Redis. A panic there does not matter any more.
        let _ = announced.await;
        if let Ok(Stopped::Clean) = ended {
            let answered = service.counters.counts().answered;
            info!(answered, "stopped: all requests are answered");
        }
        ended
    }
}
