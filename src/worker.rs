//! The worker: takes requests from the queue and answers each.
//!
//! In the order in which a delivery meets the files:
//!
//! 1. [`sessions`] keeps one session with the broker after another, each with the connections of [`session`].
//!    [`intake`] takes deliveries; [`suspects`] keeps redelivered requests apart.
//! 2. [`service`] reads a request, makes a [`plan`] and replies.
//! 3. [`pipeline`] finds the answer in the cache, or claims its key, computes ([`computer`]) and fills.
//! 4. [`post`] publishes the reply, waits for the confirm and acks.
//!
//! [`dead_letters`] replies to requests that the broker has given up.

mod activity;
mod announcement;
mod callback_queues;
mod computer;
mod dead_letters;
mod direct;
mod health;
mod intake;
mod lately;
mod options;
mod pipeline;
mod plan;
mod post;
mod reply_pattern;
mod service;
mod session;
mod sessions;
mod suspects;
#[cfg(test)]
mod tests;
mod told;
mod turns;

use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use tracing::info;

#[cfg(feature = "metrics")]
pub(crate) use self::activity::Activity;
use self::activity::Running;
pub(crate) use self::activity::Vitals;
use self::announcement::announce;
pub use self::announcement::{
    Computing, Durations, FailedKey, HotKey, SlowKey, WorkerCounts, WorkerStatus,
};
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
    /// Everything that it held was answered.
    Clean,
    /// The grace ran out before; the broker gives what is left to other workers.
    Abandoned,
}

/// Serves a procedure from a queue.
///
/// As many as wanted, in as many processes: the broker deals requests out among them, and a lease in
/// Redis keeps two from computing the same.
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
///     eprintln!("the grace was too short; what is left goes to other workers");
/// }
/// # Ok(())
/// # }
/// ```
///
/// `examples/graceful_shutdown.rs` is a whole process around one, with signals and exit codes.
#[derive(Debug)]
pub struct Worker<P: Procedure> {
    procedure: P,
    options: WorkerOptions,
    vitals: Vitals,
}

impl<P: Procedure> Worker<P> {
    /// A worker that does nothing until it is [run](Self::run).
    #[must_use]
    pub fn new(procedure: P, options: WorkerOptions) -> Self {
        Self {
            procedure,
            options,
            vitals: Vitals::default(),
        }
    }

    /// How it is, to be asked while it runs, from any thread and at any time.
    #[must_use]
    pub fn health(&self) -> WorkerHealth {
        WorkerHealth(self.vitals.clone())
    }

    /// What it counts, to be read whenever one likes.
    #[cfg(feature = "metrics")]
    #[must_use]
    pub fn metrics(&self) -> crate::Metrics {
        let slots = self.options.concurrency;
        crate::Metrics::of_worker(self.procedure.name(), slots, self.vitals.clone())
    }

    /// Serves until `stop` resolves; then takes no more, finishes and answers what it holds within
    /// [`WorkerOptions::grace`], and closes. A server that cannot be reached is tried again for ever, a
    /// lost one as well.
    ///
    /// # Errors
    ///
    /// Only at the start: [`Error::Refused`] when the broker refuses the login or the vhost.
    ///
    /// # Cancellation
    ///
    /// Dropping the future ends it at once: computations are [cancelled](crate::Cancel), and the broker
    /// gives what they were for to other workers. What Redis has to know of that is told in the
    /// background, for some seconds at most. To lose no time, have `stop` resolve instead.
    ///
    /// # Panics
    ///
    /// When polled outside of a Tokio runtime.
    pub async fn run(self, stop: impl Future<Output = ()>) -> Result<Stopped, Error> {
        let Self {
            procedure,
            options,
            vitals,
        } = self;
        let queue = options.queue.clone().unwrap_or_else(|| procedure.queue());
        let cache = Cache::open_counting(options.cache.clone(), Arc::clone(&vitals.cache));
        let service = Arc::new(Service::new(procedure, cache, queue, vitals, &options));
        let _cancels = service.computer.cancel_on_drop();
        let _running = Running(Arc::clone(&service.vitals.activity));
        let announcing = CancellationToken::new();
        let ends = announcing.clone().drop_guard();
        let announced = tokio::spawn(announce(
            Arc::clone(&service),
            options.concurrency,
            announcing,
        ));
        let stop = async {
            stop.await;
            service.vitals.activity.stops();
        };
        let ended = tokio::select! {
            ended = service.serve_sessions(&options, stop) => ended,
            never = service.warn_if_unbounded() => match never {},
        };
        drop(ends);
        // Where there was no session to end, it has not ceased yet.
        service.cease().await;
        // Bounded by its waits for Redis. What it says of itself is nobody's concern any more.
        let _ = announced.await;
        if let Ok(Stopped::Clean) = ended {
            let answered = service.vitals.counts().answered;
            info!(answered, "stopped: everything that was taken is answered");
        }
        ended
    }
}
