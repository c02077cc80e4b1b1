//! What may be wrong with a RabbitMQ cluster, as its management API shows it.

use std::fmt;

/// What is wrong with a RabbitMQ cluster. Names are peer text, escaped.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ClusterProblem {
    /// A node does not run.
    Down {
        /// Its name.
        node: String,
    },
    /// A node is partitioned from others.
    Partitioned {
        /// Its name.
        node: String,
        /// The others.
        from: String,
    },
    /// A node lacks memory or disk space, so that the cluster takes no requests.
    Alarm {
        /// Its name.
        node: String,
    },
    /// A node that falls silent holds up queues for a long time.
    LongTickTime {
        /// `net_ticktime`.
        seconds: u64,
    },
    /// A queue is not replicated: it stops with its node.
    OneCopy {
        /// The queue.
        queue: String,
        /// Its node.
        node: String,
    },
    /// A quorum queue has fewer replicas than it needs to survive the loss of one.
    FewReplicas {
        /// The queue.
        queue: String,
        /// Their number.
        replicas: usize,
    },
    /// Replicas of a quorum queue are not online.
    Offline {
        /// The queue.
        queue: String,
        /// The nodes that have them.
        nodes: String,
    },
    /// One node leads all quorum queues of the vhost, and does their work.
    OneLeader {
        /// The node.
        node: String,
        /// The number of queues.
        queues: usize,
    },
}

impl fmt::Display for ClusterProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Down { node } => write!(f, "{node} does not run"),
            Self::Partitioned { node, from } => write!(f, "{node} is partitioned from {from}"),
            Self::Alarm { node } => write!(
                f,
                "{node} has raised an alarm: the cluster takes no requests"
            ),
            Self::LongTickTime { seconds } => write!(
                f,
                "net_ticktime is {seconds} s: so long a silent node may hold up queues"
            ),
            Self::OneCopy { queue, node } => {
                write!(f, "{queue} is not replicated: it stops with {node}")
            }
            Self::FewReplicas { queue, replicas: 1 } => write!(f, "{queue} has 1 replica"),
            Self::FewReplicas { queue, replicas } => {
                write!(f, "{queue} has {replicas} replicas")
            }
            Self::Offline { queue, nodes } => {
                write!(f, "the replicas of {queue} on {nodes} are offline")
            }
            Self::OneLeader { node, queues } => {
                write!(f, "{node} leads all {queues} quorum queues")
            }
        }
    }
}
