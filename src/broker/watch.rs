//! How long a request queue is, for whoever watches it or starts workers by it. Not part of any call.

use lapin::types::ShortString;
use serde::Serialize;

use super::{Look, Visit};
use crate::error::Error;
use crate::queue::QueueName;
use crate::server_url::AmqpUrl;

/// Looks at a request queue and its dead-letter queue, again and again, over one connection that is
/// opened when it is needed, and anew when it was lost.
///
/// It needs no right but to log in; older brokers let everybody look, newer ones those who may do
/// something with the queue.
#[derive(Debug)]
pub struct QueueWatch {
    url: AmqpUrl,
    queue: QueueName,
    role: &'static str,
    visit: Option<Visit>,
}

/// A request queue and where a policy may send what the broker gives up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct QueueDepths {
    /// Where requests wait.
    pub requests: QueueDepth,
    /// The same name plus `.dead`.
    pub dead_letters: QueueDepth,
}

/// What a look at one queue shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum QueueDepth {
    /// It is there.
    Ok {
        /// Messages that wait. What a consumer has taken and not settled is not among them.
        ready: u32,
        /// Consumers; a busy worker of ours may have several.
        consumers: u32,
    },
    /// There is no such queue.
    Missing,
    /// This login may not look at it.
    NotPermitted,
}

impl QueueWatch {
    /// Connects to nobody until the first [`look`](Self::look). `role` names the connection in the
    /// broker's lists.
    #[must_use]
    pub fn new(url: AmqpUrl, queue: QueueName, role: &'static str) -> Self {
        Self {
            url,
            queue,
            role,
            visit: None,
        }
    }

    /// Looks at both queues. Waits up to 5 s for each of the broker's nodes while connecting, and as
    /// long for each queue.
    ///
    /// Cancel safe: the next look connects anew.
    pub async fn look(&mut self) -> Result<QueueDepths, Error> {
        let visit = match self.visit.take() {
            Some(visit) if visit.is_there() => visit,
            _ => Visit::enter(&self.url, self.role).await??,
        };
        let depths = QueueDepths {
            requests: depth(&visit, &self.queue.as_short()).await?,
            dead_letters: depth(&visit, &self.queue.dead_letters()).await?,
        };
        self.visit = Some(visit);
        Ok(depths)
    }

    /// Closes the connection, within a second. Dropping it does so less politely.
    pub async fn leave(self) {
        if let Some(visit) = &self.visit {
            visit.leave().await;
        }
    }
}

async fn depth(visit: &Visit, queue: &ShortString) -> Result<QueueDepth, Error> {
    Ok(match visit.look(queue).await? {
        Look::Found { consumers, waiting } => QueueDepth::Ok {
            ready: waiting,
            consumers,
        },
        Look::Missing => QueueDepth::Missing,
        // Nobody else may look at a queue that is exclusive to another program.
        Look::Exclusive | Look::NotTold(_) => QueueDepth::NotPermitted,
    })
}
