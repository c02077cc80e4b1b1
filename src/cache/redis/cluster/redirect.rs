//! Follows redirections: a node says that another one has the key, for good or for one command.

use std::collections::HashMap;
use std::sync::Arc;

use futures_util::future::join_all;
use redis::{Cmd, Pipeline, RedisError, Value};
use tokio::time::{Instant, timeout_at};

use super::Cluster;
use crate::cache::redis::connection::announced;
use crate::cache::redis::errors::CommandError;
use crate::cache::redis::nodes::{Node, each_reply};
use crate::transport::Endpoint;

/// A node's word that another one has the key.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Redirect {
    to: Endpoint,
    /// For this command alone: the slot is on its way.
    asking: bool,
}

impl Redirect {
    /// Reads `MOVED 3999 127.0.0.1:6381` or `ASK …`: without a host, the port is of the same one.
    pub(super) fn read(error: &RedisError, from: &Node) -> Option<Self> {
        let (address, _slot) = error.redirect_node()?;
        let (host, port) = address.rsplit_once(':')?;
        let host = if host.is_empty() {
            from.endpoint.host()
        } else {
            host
        };
        Some(Self {
            to: announced(host.as_bytes(), port.parse().ok()?)?,
            asking: error.code() == Some("ASK"),
        })
    }
}

impl Cluster {
    /// Sends those commands once more that the node has redirected, and puts in their replies.
    pub(super) async fn follow_all(
        &self,
        node: &Node,
        commands: &Pipeline,
        mut replies: Vec<Result<Value, CommandError>>,
        deadline: Instant,
    ) -> Vec<Result<Value, CommandError>> {
        let mut redirected: HashMap<Redirect, Vec<usize>> = HashMap::new();
        for (at, reply) in replies.iter().enumerate() {
            if let Err(CommandError::Refused(error)) = reply
                && let Some(redirect) = Redirect::read(error, node)
            {
                redirected.entry(redirect).or_default().push(at);
            }
        }
        if redirected.is_empty() {
            return replies;
        }
        let all: Vec<&Cmd> = commands.cmd_iter().collect();
        let followed = redirected.iter().map(async |(redirect, positions)| {
            let mut again = redis::pipe();
            for &at in positions {
                again.add_command(all[at].clone());
            }
            self.follow(redirect, &again, deadline).await
        });
        for ((_, positions), followed) in redirected.iter().zip(join_all(followed).await) {
            for (&at, reply) in positions.iter().zip(followed) {
                replies[at] = reply;
            }
        }
        replies
    }

    /// Sends commands to the node that another one has named.
    pub(super) async fn follow(
        &self,
        redirect: &Redirect,
        commands: &Pipeline,
        deadline: Instant,
    ) -> Vec<Result<Value, CommandError>> {
        let Some(node) = self.known(&redirect.to, deadline).await else {
            return vec![Err(CommandError::Unavailable); commands.len()];
        };
        let mut sent = redis::pipe();
        sent.ignore_errors();
        for command in commands.cmd_iter() {
            if redirect.asking {
                sent.cmd("ASKING");
            }
            sent.add_command(command.clone());
        }
        let limit = deadline.saturating_duration_since(Instant::now());
        let replies = node.connection.send((&sent).into(), limit).await;
        let replies = each_reply(replies, sent.len());
        let step = if redirect.asking { 2 } else { 1 };
        replies.into_iter().skip(step - 1).step_by(step).collect()
    }

    /// The node at this endpoint. The keeper connects to one that is not known yet, and this waits for it.
    async fn known(&self, endpoint: &Endpoint, deadline: Instant) -> Option<Arc<Node>> {
        let known = async {
            loop {
                // Made before looking, so that no change is missed.
                let mapped = self.shared.mapped.notified();
                if let Some(node) = self.shared.map.load().node(endpoint) {
                    return Arc::clone(node);
                }
                self.shared.want(endpoint);
                mapped.await;
            }
        };
        timeout_at(deadline, known).await.ok()
    }
}
