//! How a worker serves.

use std::time::Duration;

use tracing::warn;

use crate::broker::Declare;
use crate::cache::CacheOptions;
use crate::queue::QueueName;
use crate::server_url::AmqpUrl;

use super::ReplyPattern;

/// Requests held beyond those that are being computed, so that the next one is at hand.
const WAITING_ROOM: u16 = 64;

/// How a worker serves: [`new`](Self::new) takes what has no default, the rest is set field by field.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct WorkerOptions {
    /// The broker.
    pub amqp: AmqpUrl,
    /// The request queue; by default the procedure's, see [`QueueName::of`].
    pub queue: Option<QueueName>,
    /// The cache that answers are filled into.
    pub cache: CacheOptions,
    /// Computations at once, each on a thread of its own; by default as many as there are cores. 0
    /// counts as 1.
    pub concurrency: u16,
    /// Requests held at once, those being computed included; by default 64 more than computations.
    /// The worker's memory is bounded by this many requests and answers; a request can be as large
    /// as the broker lets messages be (16 MiB for RabbitMQ 4, 128 MiB before).
    pub prefetch: Option<u16>,
    /// How the queue is created where it is missing. [`Declare::Quorum`] by default.
    pub declare: Declare,
    /// Queues that may be replied to; by default [`ReplyPattern::defaults`]. A queue that is exclusive to
    /// another connection may always be, where this login may look at it.
    pub reply_to: Vec<ReplyPattern>,
    /// A larger answer is not sent but refused as `too-large`, in bytes; 8 MiB by default. So is one above
    /// the broker's own limit (`max_message_size`, 16 MiB for RabbitMQ 4), which the worker learns from the
    /// first answer that the broker refuses.
    pub max_reply_size: usize,
    /// How long a worker that was asked to stop goes on with what it holds; 10 s by default. Whatever
    /// watches over the process should wait for a little longer before it kills it.
    pub grace: Duration,
}

impl WorkerOptions {
    /// The defaults, with this broker and this cache.
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
        let waiting_room = || self.concurrency.saturating_add(WAITING_ROOM);
        let prefetch = self.prefetch.unwrap_or_else(waiting_room);
        if prefetch < self.concurrency {
            warn!("no more than {prefetch} are computed at once: the prefetch is that small");
        }
        prefetch
    }
}
