//! A Redis Cluster with small time-outs, so that the servers themselves replace a dead primary within seconds.

use super::redis::Redis;
use super::{ports, wait};
use std::ops::RangeInclusive;

/// After so long without a word, servers and Sentinels take a primary for dead.
pub(crate) const DOWN_AFTER: &str = "1000";

const SLOTS: u32 = 16384;

/// A Redis Cluster: the primaries first, then the replicas, of each primary in turn.
pub(crate) struct RedisCluster {
    pub(crate) nodes: Vec<Redis>,
}

impl RedisCluster {
    pub(crate) async fn start(primaries: usize, replicas: usize) -> Self {
        Self::start_with(primaries, replicas, &[]).await
    }

    /// Starts a cluster whose servers have further options.
    pub(crate) async fn start_with(primaries: usize, replicas: usize, options: &[&str]) -> Self {
        let nodes: Vec<_> = (0..primaries * (1 + replicas))
            .map(|_| Self::node(options))
            .collect();
        let cluster = Self { nodes };
        let share = SLOTS.div_ceil(u32::try_from(primaries).unwrap());
        for (at, node) in (0..).zip(&cluster.nodes) {
            let epoch = (at + 1).to_string();
            node.run::<()>(&["CLUSTER", "SET-CONFIG-EPOCH", &epoch])
                .await;
            if at < u32::try_from(primaries).unwrap() {
                let (from, to) = (at * share, ((at + 1) * share).min(SLOTS) - 1);
                let (from, to) = (from.to_string(), to.to_string());
                node.run::<()>(&["CLUSTER", "ADDSLOTSRANGE", &from, &to])
                    .await;
            }
            if at > 0 {
                cluster.meet(node).await;
            }
        }
        for (at, node) in cluster.nodes[primaries..].iter().enumerate() {
            cluster
                .replicates(node, &cluster.nodes[at % primaries])
                .await;
        }
        cluster.is_ok().await;
        cluster
    }

    /// A server that belongs to no cluster yet.
    pub(crate) fn node(options: &[&str]) -> Redis {
        let [bus] = ports::free();
        let bus = bus.to_string();
        let of_cluster = [
            "--cluster-enabled",
            "yes",
            "--cluster-port",
            &bus,
            "--cluster-node-timeout",
            DOWN_AFTER,
            "--cluster-replica-validity-factor",
            "0",
            "--repl-diskless-sync-delay",
            "0",
        ];
        Redis::start_isolated(&[&of_cluster, options].concat())
    }

    /// Makes a server a node of this cluster, without slots.
    pub(crate) async fn meet(&self, node: &Redis) {
        let port = node.port().to_string();
        let bus: Vec<String> = node.run(&["CONFIG", "GET", "cluster-port"]).await;
        let meet = ["CLUSTER", "MEET", "127.0.0.1", &port, &bus[1]];
        self.nodes[0].run::<()>(&meet).await;
    }

    async fn replicates(&self, replica: &Redis, primary: &Redis) {
        let id = id(primary).await;
        wait::wait_until("the replica knows its primary", async || {
            let known: String = replica.run(&["CLUSTER", "NODES"]).await;
            known.contains(&id)
        })
        .await;
        replica.run::<()>(&["CLUSTER", "REPLICATE", &id]).await;
    }

    async fn is_ok(&self) {
        wait::wait_until("the cluster is up", async || self.is_whole().await).await;
        let shards: Vec<redis::Value> = self.nodes[0].run(&["CLUSTER", "SLOTS"]).await;
        assert!(!shards.is_empty());
    }

    /// Whether all nodes know one another, serve, and have their copies.
    pub(crate) async fn is_whole(&self) -> bool {
        let known = format!("cluster_known_nodes:{}\r", self.nodes.len());
        for node in &self.nodes {
            let info: String = node.run(&["CLUSTER", "INFO"]).await;
            let nodes: String = node.run(&["CLUSTER", "NODES"]).await;
            let sees_a_fault = nodes.contains("fail") || nodes.contains("handshake");
            if !info.contains("cluster_state:ok")
                || !info.contains(&known)
                || sees_a_fault
                || !node.has_its_copy().await
            {
                return false;
            }
        }
        true
    }

    /// The slots of the node at this position.
    pub(crate) async fn slots(&self, node: usize) -> Vec<u32> {
        let nodes: String = self.nodes[node].run(&["CLUSTER", "NODES"]).await;
        let own = nodes.lines().find(|line| line.contains("myself"));
        let ranges = own.unwrap_or_default().split(' ').skip(8).filter_map(range);
        ranges.flatten().collect()
    }

    /// The address of its first two nodes.
    pub(crate) fn url(&self) -> String {
        self.url_with("")
    }

    pub(crate) fn url_with(&self, credentials: &str) -> String {
        let ports = self.nodes.iter().take(2).map(Redis::port);
        let hosts: Vec<_> = ports.map(|port| format!("127.0.0.1:{port}")).collect();
        format!("redis+cluster://{credentials}{}", hosts.join(","))
    }

    /// The position of the node that has the key, as the node at `by` says.
    pub(crate) async fn owner(&self, key: &str, by: usize) -> usize {
        let slot: u32 = self.nodes[by].run(&["CLUSTER", "KEYSLOT", key]).await;
        let nodes: String = self.nodes[by].run(&["CLUSTER", "NODES"]).await;
        let has_slot = |word: &str| range(word).is_some_and(|range| range.contains(&slot));
        let owner = nodes
            .lines()
            .find(|line| line.split(' ').skip(8).any(has_slot))
            .unwrap_or_else(|| panic!("slot {slot}: {nodes}"));
        let is_owner = |node: &Redis| owner.contains(&format!("127.0.0.1:{}@", node.port()));
        self.nodes.iter().position(is_owner).unwrap()
    }

    /// All keys but those of workers' announcements, of the nodes at these positions.
    pub(crate) async fn keys(&self, nodes: &[usize]) -> Vec<String> {
        let mut keys = Vec::new();
        for &node in nodes {
            keys.extend(self.nodes[node].keys().await);
        }
        keys.sort();
        keys
    }

    /// Moves the slots of these numbers from one node to another, with their keys, as `redis-cli --cluster
    /// reshard` does it.
    pub(crate) async fn reshard(
        &self,
        slots: impl IntoIterator<Item = u32>,
        from: &Redis,
        to: &Redis,
    ) {
        let (from_id, to_id) = (id(from).await, id(to).await);
        let port = to.port().to_string();
        for slot in slots {
            let slot = slot.to_string();
            let set = async |node: &Redis, state: &str, id: &str| {
                let set = ["CLUSTER", "SETSLOT", &slot, state, id];
                node.run::<()>(&set).await;
            };
            set(to, "IMPORTING", &from_id).await;
            set(from, "MIGRATING", &to_id).await;
            loop {
                let get = ["CLUSTER", "GETKEYSINSLOT", &slot, "10"];
                let keys: Vec<String> = from.run(&get).await;
                if keys.is_empty() {
                    break;
                }
                let mut migrate = vec!["MIGRATE", "127.0.0.1", &port, "", "0", "5000", "KEYS"];
                migrate.extend(keys.iter().map(String::as_str));
                from.run::<redis::Value>(&migrate).await;
            }
            for node in [to, from] {
                set(node, "NODE", &to_id).await;
            }
        }
    }

    /// Makes the replica at this position the primary, by its own word.
    pub(crate) async fn promote(&self, replica: usize) {
        let failover = ["CLUSTER", "FAILOVER"];
        self.nodes[replica].run::<()>(&failover).await;
        self.is_primary(replica).await;
    }

    /// Waits until the node at this position is a primary.
    pub(crate) async fn is_primary(&self, node: usize) {
        let node = &self.nodes[node];
        wait::wait_until("it is a primary", async || node.is_primary().await).await;
    }
}

/// The slots that a word of CLUSTER NODES means; `None` if slots are being moved.
fn range(word: &str) -> Option<RangeInclusive<u32>> {
    let (first, last) = word.split_once('-').unwrap_or((word, word));
    Some(first.parse().ok()?..=last.parse().ok()?)
}

async fn id(node: &Redis) -> String {
    node.run(&["CLUSTER", "MYID"]).await
}
