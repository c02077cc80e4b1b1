//! Reads the length of a request queue, for monitoring and autoscaling. Not part of any call.

use lapin::types::ShortString;
use serde::Serialize;

use super::{Inspector, QueueStatus};
use crate::error::Error;
use crate::queue::QueueName;
use crate::server_url::AmqpUrl;

/// Reads the lengths of a request queue and its dead-letter queue, over one connection that it opens at the
/// first look and reopens when it is lost.
///
/// Older brokers require no right but the login; newer ones require any right on the queue.
#[derive(Debug)]
pub struct QueueWatch {
    url: AmqpUrl,
    queue: QueueName,
    role: &'static str,
    inspector: Option<Inspector>,
}

/// The lengths of a request queue and of its dead-letter queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct QueueDepths {
    /// The request queue.
    pub requests: QueueDepth,
    /// The queue of the same name plus `.dead`.
    pub dead_letters: QueueDepth,
}

/// The length of one queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum QueueDepth {
    /// The queue exists.
    Ok {
        /// Messages that wait in the queue, without those that are delivered and not acknowledged.
        ready: u32,
        /// Consumers; a worker of this library may have several.
        consumers: u32,
    },
    /// The queue does not exist.
    Missing,
    /// This login may not inspect the queue.
    NotPermitted,
}

impl QueueWatch {
    /// Creates a watch, which connects at the first [`look`](Self::look). `role` is part of the connection's name in
    /// the broker's lists.
    #[must_use]
    pub fn new(url: AmqpUrl, queue: QueueName, role: &'static str) -> Self {
        Self {
            url,
            queue,
            role,
            inspector: None,
        }
    }

    /// Reads the lengths of both queues. Waits at most 5 s for each of the broker's nodes to connect, and 5 s for
    /// each queue.
    ///
    /// Cancel safe: the next look reconnects.
    pub async fn look(&mut self) -> Result<QueueDepths, Error> {
        let inspector = match self.inspector.take() {
            Some(inspector) if inspector.is_connected() => inspector,
            _ => Inspector::connect(&self.url, self.role).await??,
        };
        let depths = QueueDepths {
            requests: depth(&inspector, &self.queue.as_short()).await?,
            dead_letters: depth(&inspector, &self.queue.dead_letters()).await?,
        };
        self.inspector = Some(inspector);
        Ok(depths)
    }

    /// Closes the connection with AMQP's handshake, within a second. Dropping the watch closes it without.
    pub async fn leave(self) {
        if let Some(inspector) = &self.inspector {
            inspector.close().await;
        }
    }
}

async fn depth(inspector: &Inspector, queue: &ShortString) -> Result<QueueDepth, Error> {
    Ok(match inspector.queue_status(queue).await? {
        QueueStatus::Exists { consumers, waiting } => QueueDepth::Ok {
            ready: waiting,
            consumers,
        },
        QueueStatus::Missing => QueueDepth::Missing,
        // The broker refuses to inspect a queue that is exclusive to another program.
        QueueStatus::Exclusive | QueueStatus::NotPermitted(_) => QueueDepth::NotPermitted,
    })
}
