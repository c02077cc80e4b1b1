//! Options of a worker.

use std::time::Duration;

use tracing::warn;

use crate::broker::Declare;
use crate::cache::CacheOptions;
use crate::queue::QueueName;
use crate::server_url::AmqpUrl;

use super::ReplyPattern;

/// Requests held in addition to those being computed, so that a free slot has the next one at once.
const DEFAULT_WAITING: u16 = 64;

/// Options of a worker: [`new`](Self::new) takes those without a default, the others are set field by field.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct WorkerOptions {
    /// The broker.
    pub amqp: AmqpUrl,
    /// The request queue; by default the procedure's, see [`QueueName::of`].
    pub queue: Option<QueueName>,
    /// The cache that answers are filled into.
    pub cache: CacheOptions,
    /// Computations at once, each on its own thread; by default the number of cores. 0 counts as 1.
    pub concurrency: u16,
    /// Requests held at once, those being computed included; by default 64 more than computations. The worker's
    /// memory is bounded by this many requests and answers; a request can be as large as the broker's limit (16 MiB
    /// for RabbitMQ 4, 128 MiB before).
    pub prefetch: Option<u16>,
    /// How the queue is created if it is missing. [`Declare::Quorum`] by default.
    pub declare: Declare,
    /// Queues that the worker may reply to; by default [`ReplyPattern::defaults`]. A queue that is exclusive to
    /// another connection is always allowed, if this login may declare it passively.
    pub reply_to: Vec<ReplyPattern>,
    /// The largest answer that the worker sends, in bytes; 8 MiB by default. A larger one fails as `too-large`. So
    /// does an answer above the broker's own limit (`max_message_size`, 16 MiB for RabbitMQ 4), which the worker
    /// learns from the first answer that the broker refuses.
    pub max_reply_size: usize,
    /// How long a worker that was asked to stop may finish the requests that it holds; 10 s by default. Its
    /// supervisor (systemd, Kubernetes) should wait a little longer before it kills the process.
    pub grace: Duration,
}

impl WorkerOptions {
    /// The default options, with this broker and this cache.
    #[must_use]
    pub fn new(amqp: AmqpUrl, cache: CacheOptions) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self {
            amqp,
            queue: None,
            cache,
            concurrency: u16::try_from(cores).unwrap_or(u16::MAX),
            prefetch: None,
            declare: Declare::default(),
            reply_to: ReplyPattern::defaults(),
            max_reply_size: 8 * 1024 * 1024,
            grace: Duration::from_secs(10),
        }
    }

    pub(super) fn prefetch_or_default(&self) -> u16 {
        let default = || self.concurrency.saturating_add(DEFAULT_WAITING);
        let prefetch = self.prefetch.unwrap_or_else(default);
        if prefetch < self.concurrency {
            warn!("no more than {prefetch} requests are computed at once: that is the prefetch");
        }
        prefetch
    }
}
