//! Several Redis servers of a run: a cluster, or a primary with replicas and Sentinels.

use crate::fault::Topology;
use crate::support::redis::Redis;
use crate::support::redis_cluster::RedisCluster;
use crate::support::sentinel_set::SentinelSet;

const PRIMARIES: usize = 3;
/// Of each primary of a cluster; of the one behind Sentinels.
const REPLICAS: [usize; 2] = [1, 2];
/// The number of slots that are moved at once.
const MOVED: usize = 200;

pub(crate) enum RedisSet {
    Cluster(RedisCluster),
    Sentinels(SentinelSet),
}

impl RedisSet {
    pub(crate) async fn start(topology: Topology) -> Self {
        match topology {
            Topology::Sentinel => Self::Sentinels(SentinelSet::start(REPLICAS[1]).await),
            _ => Self::Cluster(RedisCluster::start(PRIMARIES, REPLICAS[0]).await),
        }
    }

    pub(crate) fn url(&self) -> String {
        match self {
            Self::Cluster(cluster) => cluster.url(),
            Self::Sentinels(set) => set.url(),
        }
    }

    fn nodes(&self) -> &[Redis] {
        match self {
            Self::Cluster(cluster) => &cluster.nodes,
            Self::Sentinels(set) => &set.nodes,
        }
    }

    pub(crate) fn node(&mut self, at: usize) -> &mut Redis {
        match self {
            Self::Cluster(cluster) => &mut cluster.nodes[at],
            Self::Sentinels(set) => &mut set.nodes[at],
        }
    }

    /// The positions of the primaries, or of the replicas.
    pub(crate) async fn with_role(&self, is_primary: bool) -> Vec<usize> {
        let mut found = Vec::new();
        for (at, node) in self.nodes().iter().enumerate() {
            if node.is_primary().await == is_primary {
                found.push(at);
            }
        }
        found
    }

    /// Whether all servers that belong to it are there, agree, and have their copies.
    pub(crate) async fn is_whole(&self) -> bool {
        match self {
            Self::Cluster(cluster) => cluster.is_whole().await,
            Self::Sentinels(set) => set.is_whole().await,
        }
    }

    /// Makes a replica the primary of its shard: the one at this position, or, with Sentinels, one of their choice.
    pub(crate) async fn switch_to(&self, replica: usize) {
        match self {
            Self::Cluster(cluster) => cluster.promote(replica).await,
            Self::Sentinels(set) => set.fail_over().await,
        }
    }

    /// Moves slots from one primary to another.
    pub(crate) async fn move_slots(&self, from: usize, to: usize) {
        if let Self::Cluster(cluster) = self {
            let slots = cluster.slots(from).await.into_iter().take(MOVED);
            let (from, to) = (&cluster.nodes[from], &cluster.nodes[to]);
            cluster.reshard(slots, from, to).await;
        }
    }

    pub(crate) fn freeze_sentinel(&self, at: usize, is_frozen: bool) {
        if let Self::Sentinels(set) = self {
            if is_frozen {
                set.freeze_sentinel(at);
            } else {
                set.thaw_sentinel(at);
            }
        }
    }
}
