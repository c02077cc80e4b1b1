//! Asks every node of RabbitMQ's address about the request queue, and compares the answers.

use futures_util::future::join_all;

use super::servers::nodes;
use super::{Doctor, Found, Judged};
use crate::broker::{Inspector, QueueStatus};
use crate::error::Error;
use crate::procedure::Procedure;
use crate::server_url::AmqpUrl;
use crate::transport::Endpoint;

/// What a node says of the request queue.
enum Seen {
    /// It has messages or consumers, so its leader answers.
    Served,
    /// Nothing is in it, or its leader does not answer.
    Idle,
    Missing,
    /// This login may not look.
    Unknown,
}

impl<P: Procedure> Doctor<P> {
    pub(super) async fn amqp_nodes(&self) -> Judged {
        let Ok(url) = &self.options.amqp else {
            return Judged::nothing();
        };
        let asked = url.endpoints().into_iter().map(|node| async move {
            let seen = self.seen_at(url, &node).await;
            (node, seen)
        });
        let answers = join_all(asked).await;
        let any = |wanted: fn(&Seen) -> bool| {
            let mut seen = answers.iter().filter_map(|(_, seen)| seen.as_ref().ok());
            seen.any(wanted)
        };
        let is_served = any(|seen| matches!(seen, Seen::Served));
        let exists = is_served || any(|seen| matches!(seen, Seen::Idle));
        let (mut working, mut failed) = (Vec::new(), Vec::new());
        for (node, seen) in &answers {
            let problem = match seen {
                Err(Error::Unreachable { reason, .. } | Error::Refused { reason, .. }) => {
                    reason.clone()
                }
                Err(error) => error.to_string(),
                Ok(Seen::Missing) if exists => format!(
                    "no queue {} there, which other nodes have: it is partitioned from them",
                    self.queue
                ),
                Ok(Seen::Idle) if is_served => format!(
                    "it does not reach the leader of {}, as other nodes do: it is cut off from them",
                    self.queue
                ),
                Ok(_) => {
                    working.push(node.to_string());
                    continue;
                }
            };
            failed.push(format!("{node}: {problem}"));
        }
        nodes(Found::Nodes { working, failed })
    }

    async fn seen_at(&self, url: &AmqpUrl, node: &Endpoint) -> Result<Seen, Error> {
        let inspector = Inspector::connect(&url.at(node), "doctor").await??;
        let status = inspector.queue_status(&self.queue.as_short()).await;
        inspector.close().await;
        Ok(match status? {
            QueueStatus::Exists {
                consumers: 0,
                waiting: 0,
            } => Seen::Idle,
            QueueStatus::Exists { .. } => Seen::Served,
            QueueStatus::Missing => Seen::Missing,
            QueueStatus::Exclusive | QueueStatus::NotPermitted(_) => Seen::Unknown,
        })
    }
}
