//! The service of a worker: what all of its requests share. Serving one is [`super::serve`].

use std::convert::Infallible;
use std::sync::Arc;

use tokio::sync::Semaphore;
use tracing::error;

use super::computer::Computer;
use super::counters::Counters;
use super::redelivered::Redelivered;
use super::{ReplyPattern, WorkerOptions};
use crate::cache::{Cache, Key};
use crate::cache_use::CacheUse;
use crate::log_throttle::LogThrottle;
use crate::message::{Failure, Reply};
use crate::procedure::Procedure;
use crate::procedure_name::ProcedureName;
use crate::queue::QueueName;
use crate::single_flight::SingleFlight;

/// Serves requests: everything that all requests of a worker share.
#[derive(Debug)]
pub(super) struct Service<P: Procedure> {
    /// Identifies this worker in leases and announcements.
    pub(super) id: String,
    pub(super) computer: Computer<P>,
    /// One for each computation at once.
    pub(super) slots: Arc<Semaphore>,
    pub(super) cache: Cache,
    /// Leased jobs under way. Jobs that must not read the cache do not share with those that may.
    pub(super) flights: SingleFlight<(Key, CacheUse), Option<Reply>>,
    pub(super) counters: Counters,
    pub(super) queue: QueueName,
    pub(super) reply_to: Vec<ReplyPattern>,
    pub(super) max_reply_size: usize,
    pub(super) refused_reply_to: LogThrottle,
    /// Throttles the log of poison requests that the broker gave up.
    pub(super) poison: LogThrottle,
    pub(super) redelivered: Redelivered,
}

impl<P: Procedure> Service<P> {
    pub(super) fn new(
        computer: Computer<P>,
        cache: Cache,
        queue: QueueName,
        counters: Counters,
        options: &WorkerOptions,
    ) -> Self {
        Self {
            id: format!("{:08x}", fastrand::u32(..)),
            computer,
            slots: Arc::new(Semaphore::new(options.concurrency.max(1).into())),
            cache,
            flights: SingleFlight::new(|reply| reply.as_ref().is_some_and(Reply::is_expired)),
            counters,
            queue,
            reply_to: options.reply_to.clone(),
            max_reply_size: options.max_reply_size,
            refused_reply_to: LogThrottle::default(),
            poison: LogThrottle::default(),
            redelivered: Redelivered::new(),
        }
    }

    /// Cancels all computations, for good. Then waits, for a bounded time, until Redis has forgotten the attempts
    /// of this worker that end here: it did not crash, and no other worker must take them for poison.
    pub(super) async fn cease(&self) {
        self.computer.cancel();
        self.cache.attempts_settled().await;
    }

    /// Logs a warning if the cache can grow without bound. Never returns.
    pub(super) async fn warn_if_unbounded(&self) -> Infallible {
        self.cache.warn_if_unbounded().await;
        std::future::pending().await
    }

    pub(super) fn name(&self) -> &ProcedureName {
        self.computer.procedure().name()
    }

    /// The reply after a panic of the procedure while it read or wrote text; a panic while it computes is caught
    /// there.
    pub(super) fn panicked(&self) -> Reply {
        let name = self.name();
        error!("{name} panicked: answering `failed`");
        Reply::failure(Failure::panicked(name))
    }
}
