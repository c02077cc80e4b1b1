//! Judges a RabbitMQ cluster: nodes, `net_ticktime`, replicas and leaders. Pure; [`super::management`] asks.

use std::collections::BTreeSet;

use serde::Deserialize;

use super::{ClusterProblem, Found, Judged};
use crate::text::quote;

/// Queues that are looked at to find out whether one node leads all, at most.
pub(super) const MAX_QUEUES: usize = 500;

/// The fields of a [`Node`] and of a [`Queue`].
pub(super) const NODE_COLUMNS: &str =
    "name,running,mem_alarm,disk_free_alarm,partitions,net_ticktime";
pub(super) const QUEUE_COLUMNS: &str = "type,node,leader,members,online";

/// The longest `net_ticktime` without a warning, in seconds. RabbitMQ's default is 60.
const MAX_TICKTIME: u64 = 30;

/// The number of replicas with which a queue survives the loss of one.
const REPLICAS: usize = 3;

#[derive(Debug, Deserialize)]
pub(super) struct Node {
    name: String,
    #[serde(default)]
    running: bool,
    #[serde(default)]
    mem_alarm: bool,
    #[serde(default)]
    disk_free_alarm: bool,
    #[serde(default)]
    partitions: Vec<String>,
    /// Missing for a node that does not run.
    net_ticktime: Option<u64>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Queue {
    #[serde(default, rename = "type")]
    kind: String,
    /// Where a classic queue is.
    node: Option<String>,
    /// Of a quorum queue; missing during an election.
    leader: Option<String>,
    #[serde(default)]
    members: Vec<String>,
    #[serde(default)]
    online: Vec<String>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Queues {
    pub(super) items: Vec<Queue>,
}

/// What the API says of the cluster.
pub(super) struct Cluster {
    pub(super) nodes: Vec<Node>,
    /// The request queue, if it exists.
    pub(super) queue: Option<Queue>,
    /// The first queues of the vhost.
    pub(super) queues: Vec<Queue>,
}

impl Cluster {
    pub(super) fn judge(&self, queue: &str) -> Judged {
        let mut problems: Vec<_> = self.nodes.iter().flat_map(Node::problems).collect();
        if self.nodes.len() > 1 {
            problems.extend(self.long_ticktime());
            let request_queue = self.queue.as_ref();
            problems.extend(request_queue.and_then(|found| found.problem(queue, self.nodes.len())));
            problems.extend(self.one_leader());
        }
        let judge = if problems.is_empty() {
            Judged::ok
        } else {
            Judged::warning
        };
        judge(Found::Cluster {
            nodes: self.nodes.len(),
            leader: self.queue.as_ref().and_then(Queue::leader),
            problems,
        })
    }

    fn long_ticktime(&self) -> Option<ClusterProblem> {
        let longest = self
            .nodes
            .iter()
            .filter_map(|node| node.net_ticktime)
            .max()?;
        (longest > MAX_TICKTIME).then_some(ClusterProblem::LongTickTime { seconds: longest })
    }

    /// One node does the work of all quorum queues, though there is one for each node.
    fn one_leader(&self) -> Option<ClusterProblem> {
        let quorum = self.queues.iter().filter(|queue| queue.kind == "quorum");
        let leaders: Vec<_> = quorum.filter_map(|queue| queue.leader.as_deref()).collect();
        let different: BTreeSet<_> = leaders.iter().copied().collect();
        let leader = different.first()?;
        (different.len() == 1 && leaders.len() >= self.nodes.len()).then(|| {
            ClusterProblem::OneLeader {
                node: quote(leader.as_bytes()),
                queues: leaders.len(),
            }
        })
    }
}

impl Node {
    fn problems(&self) -> Vec<ClusterProblem> {
        let node = quote(self.name.as_bytes());
        if !self.running {
            return vec![ClusterProblem::Down { node }];
        }
        let mut problems = Vec::new();
        if !self.partitions.is_empty() {
            let from = quote(self.partitions.join(", ").as_bytes());
            problems.push(ClusterProblem::Partitioned {
                node: node.clone(),
                from,
            });
        }
        if self.mem_alarm || self.disk_free_alarm {
            problems.push(ClusterProblem::Alarm { node });
        }
        problems
    }
}

impl Queue {
    fn leader(&self) -> Option<String> {
        let leader = self.leader.as_ref().or(self.node.as_ref())?;
        Some(quote(leader.as_bytes()))
    }

    fn problem(&self, queue: &str, nodes: usize) -> Option<ClusterProblem> {
        let queue = queue.to_owned();
        if self.kind != "quorum" {
            let node = self.leader()?;
            return Some(ClusterProblem::OneCopy { queue, node });
        }
        let missing: Vec<_> = self
            .members
            .iter()
            .filter(|member| !self.online.contains(member))
            .collect();
        if !missing.is_empty() {
            let missing: Vec<_> = missing
                .into_iter()
                .map(|node| quote(node.as_bytes()))
                .collect();
            return Some(ClusterProblem::Offline {
                queue,
                nodes: missing.join(", "),
            });
        }
        let replicas = self.members.len();
        (replicas < nodes.min(REPLICAS)).then_some(ClusterProblem::FewReplicas { queue, replicas })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str) -> Node {
        serde_json::from_value(serde_json::json!({
            "name": name, "running": true, "partitions": [], "net_ticktime": 10,
            "mem_alarm": false, "disk_free_alarm": false,
        }))
        .unwrap()
    }

    fn quorum(name: &str, leader: &str, members: &[&str], online: &[&str]) -> Queue {
        serde_json::from_value(serde_json::json!({
            "name": name, "type": "quorum", "leader": leader, "members": members, "online": online,
        }))
        .unwrap()
    }

    fn well() -> Cluster {
        let all = ["a", "b", "c"];
        Cluster {
            nodes: all.map(node).into(),
            queue: Some(quorum("q", "a", &all, &all)),
            queues: vec![
                quorum("q", "a", &all, &all),
                quorum("r", "b", &all, &all),
                quorum("s", "a", &all, &all),
            ],
        }
    }

    fn problems(cluster: &Cluster) -> Vec<ClusterProblem> {
        match cluster.judge("q").found {
            Found::Cluster { problems, .. } => problems,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn healthy_cluster_has_no_problem() {
        assert_eq!(problems(&well()), []);
    }

    #[test]
    fn each_problem_of_a_cluster_is_named() {
        let (node_b, queue) = (|| "b".to_owned(), || "q".to_owned());
        let mut down = well();
        down.nodes[1].running = false;
        assert_eq!(problems(&down), [ClusterProblem::Down { node: node_b() }]);
        let mut partitioned = well();
        partitioned.nodes[1].partitions = vec!["a\u{1b}".to_owned(), "c".to_owned()];
        let from = "a\\u{1b}, c".to_owned();
        assert_eq!(
            problems(&partitioned),
            [ClusterProblem::Partitioned {
                node: node_b(),
                from
            }]
        );
        let mut full = well();
        full.nodes[1].disk_free_alarm = true;
        assert_eq!(problems(&full), [ClusterProblem::Alarm { node: node_b() }]);
        let mut slow = well();
        slow.nodes[2].net_ticktime = Some(60);
        assert_eq!(
            problems(&slow),
            [ClusterProblem::LongTickTime { seconds: 60 }]
        );
        let mut offline = well();
        offline.queue = Some(quorum("q", "a", &["a", "b", "c"], &["a", "c"]));
        assert_eq!(
            problems(&offline),
            [ClusterProblem::Offline {
                queue: queue(),
                nodes: node_b()
            }]
        );
        let mut few = well();
        few.queue = Some(quorum("q", "a", &["a"], &["a"]));
        assert_eq!(
            problems(&few),
            [ClusterProblem::FewReplicas {
                queue: queue(),
                replicas: 1
            }]
        );
        let mut led = well();
        led.queues[1].leader = Some("a".to_owned());
        assert_eq!(
            problems(&led),
            [ClusterProblem::OneLeader {
                node: "a".to_owned(),
                queues: 3
            }]
        );
        let mut classic = well();
        classic.queue =
            serde_json::from_str(r#"{"name":"q","type":"classic","node":"b"}"#).unwrap();
        assert_eq!(
            problems(&classic),
            [ClusterProblem::OneCopy {
                queue: queue(),
                node: node_b()
            }]
        );
    }

    #[test]
    fn single_node_needs_no_replicas() {
        let mut one = well();
        one.nodes.truncate(1);
        one.nodes[0].net_ticktime = Some(60);
        one.queue = Some(quorum("q", "a", &["a"], &["a"]));
        one.queues.truncate(1);
        assert_eq!(problems(&one), []);
    }
}
