//! Redis on several servers: a cluster, or a primary with replicas and Sentinels. Small time-outs, so that the
//! servers themselves replace a dead primary within seconds.

use super::redis::Redis;
use super::{lifetime, ports, wait};
use std::process::{Child, Command};

/// After so long without a word, servers and Sentinels take a primary for dead.
const DOWN_AFTER: &str = "1000";

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
        Redis::start_with(&[&of_cluster, options].concat())
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

    /// Waits until all nodes know one another, serve, and have their copies.
    async fn is_ok(&self) {
        let known = format!("cluster_known_nodes:{}\r", self.nodes.len());
        wait::wait_until("the cluster is up", async || {
            for node in &self.nodes {
                let info: String = node.run(&["CLUSTER", "INFO"]).await;
                let replication: String = node.run(&["INFO", "replication"]).await;
                let is_synced = replication.contains("role:master")
                    || replication.contains("master_link_status:up");
                if !info.contains("cluster_state:ok") || !info.contains(&known) || !is_synced {
                    return false;
                }
            }
            true
        })
        .await;
        let shards: Vec<redis::Value> = self.nodes[0].run(&["CLUSTER", "SLOTS"]).await;
        assert!(!shards.is_empty());
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
        let has_slot = |range: &str| {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            let number = |text: &str| text.parse::<u32>().ok();
            number(first)
                .zip(number(last))
                .is_some_and(|(first, last)| (first..=last).contains(&slot))
        };
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
    pub(crate) async fn reshard(&self, slots: std::ops::Range<u32>, from: &Redis, to: &Redis) {
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

async fn id(node: &Redis) -> String {
    node.run(&["CLUSTER", "MYID"]).await
}

/// A primary, its replicas, and three Sentinels that know it as `fleet`.
pub(crate) struct SentinelSet {
    /// The primary first.
    pub(crate) nodes: Vec<Redis>,
    sentinels: Vec<(u16, Child)>,
}

impl SentinelSet {
    pub(crate) async fn start(replicas: usize) -> Self {
        Self::start_with(replicas, &[], "").await
    }

    /// Starts servers with further options, and Sentinels with further lines of configuration.
    pub(crate) async fn start_with(replicas: usize, options: &[&str], lines: &str) -> Self {
        let primary = Redis::start_with(options);
        let port = primary.port().to_string();
        let of = [
            "--replicaof",
            "127.0.0.1",
            &port,
            "--repl-diskless-sync-delay",
            "0",
        ];
        let replica = |_| Redis::start_with(&[&of, options].concat());
        let nodes: Vec<_> = (0..replicas).map(replica).collect();
        let nodes: Vec<_> = std::iter::once(primary).chain(nodes).collect();
        let sentinels = (0..3).map(|_| start_sentinel(&port, lines)).collect();
        let set = Self { nodes, sentinels };
        set.is_ok(replicas, lines).await;
        set
    }

    async fn is_ok(&self, replicas: usize, lines: &str) {
        let login = if lines.contains("requirepass") {
            ":sentinel@"
        } else {
            ""
        };
        for (port, _) in &self.sentinels {
            wait::wait_until(
                "the Sentinels know one another and the replicas",
                async || {
                    let url = format!("redis://{login}127.0.0.1:{port}/");
                    let client = redis::Client::open(url).unwrap();
                    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
                    let mut ask = redis::cmd("SENTINEL");
                    ask.arg("MASTER").arg("fleet");
                    let facts: Vec<String> = ask.query_async(&mut connection).await.unwrap();
                    let number = |name: &str| {
                        let at = facts.iter().position(|fact| fact == name).unwrap();
                        facts[at + 1].parse::<usize>().unwrap()
                    };
                    number("num-slaves") == replicas && number("num-other-sentinels") == 2
                },
            )
            .await;
        }
    }

    pub(crate) fn url(&self) -> String {
        self.url_with("", "")
    }

    pub(crate) fn url_with(&self, credentials: &str, parameters: &str) -> String {
        let ports = self.sentinels.iter().map(|(port, _)| port);
        let hosts: Vec<_> = ports.map(|port| format!("127.0.0.1:{port}")).collect();
        format!(
            "redis+sentinel://{credentials}{}/fleet{parameters}",
            hosts.join(",")
        )
    }

    pub(crate) fn sentinel(&self, at: usize) -> u16 {
        self.sentinels[at].0
    }

    pub(crate) fn freeze_sentinel(&self, at: usize) {
        super::process::signal("STOP", self.sentinels[at].1.id());
    }

    /// Makes the Sentinels replace the primary.
    pub(crate) async fn fail_over(&self) {
        let url = format!("redis://127.0.0.1:{}/", self.sentinels[0].0);
        let client = redis::Client::open(url).unwrap();
        let mut connection = client.get_multiplexed_async_connection().await.unwrap();
        let mut fail_over = redis::cmd("SENTINEL");
        fail_over.arg("FAILOVER").arg("fleet");
        fail_over.query_async::<()>(&mut connection).await.unwrap();
    }

    /// Waits until another server than the first one is a primary; which.
    pub(crate) async fn promoted(&self) -> usize {
        let mut promoted = None;
        wait::wait_until("a replica is promoted", async || {
            for (at, node) in self.nodes.iter().enumerate().skip(1) {
                if node.is_primary().await {
                    promoted = Some(at);
                }
            }
            promoted.is_some()
        })
        .await;
        promoted.unwrap()
    }
}

impl Drop for SentinelSet {
    fn drop(&mut self) {
        for (_, sentinel) in &mut self.sentinels {
            // A failure has nobody to interest.
            let _ = sentinel.kill();
            let _ = sentinel.wait();
        }
    }
}

fn start_sentinel(primary: &str, lines: &str) -> (u16, Child) {
    let mut failure = String::new();
    for _ in 0..3 {
        // Another process may have taken the port: once more with another.
        let folder = lifetime::folder("sentinel");
        let [port] = ports::free();
        let config = format!(
            "port {port}\nbind 127.0.0.1\nsentinel monitor fleet 127.0.0.1 {primary} 2\n\
             sentinel down-after-milliseconds fleet {DOWN_AFTER}\n\
             sentinel failover-timeout fleet 3000\n{lines}\n"
        );
        std::fs::write(folder.join("sentinel.conf"), config).unwrap();
        let mut command = Command::new("redis-server");
        command.args(["sentinel.conf", "--sentinel"]);
        match lifetime::start_server(command, &folder, port) {
            Ok(sentinel) => return (port, sentinel),
            Err(reason) => failure = reason,
        }
    }
    panic!("no Sentinel for the test: {failure}");
}
