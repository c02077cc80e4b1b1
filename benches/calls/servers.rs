//! The private RabbitMQ and Redis of a run, and `rpcache` processes between them.

use serde_json::Value;

use crate::support::process::{Process, Program};
use crate::support::rabbit_cluster::{NODES, RabbitCluster};
use crate::support::rabbitmq::Node;
use crate::support::redis::Redis;
use crate::support::redis_cluster::RedisCluster;
use crate::support::wait;

/// How long a node of the cluster may be silent, in seconds: RabbitMQ's default.
const NET_TICKTIME: u32 = 60;

pub(crate) struct Servers {
    rabbitmq: RabbitMq,
    /// The only one, or the first shard.
    pub(crate) redis: Redis,
    other_shards: Vec<Redis>,
    redis_url: String,
}

enum RabbitMq {
    Node(Node),
    Cluster(RabbitCluster),
}

impl Servers {
    pub(crate) fn start() -> Self {
        let redis = Redis::start();
        Self {
            rabbitmq: RabbitMq::Node(Node::start(1).expect("RabbitMQ")),
            redis_url: redis.url(),
            redis,
            other_shards: Vec::new(),
        }
    }

    /// RabbitMQ on three nodes, and Redis on three shards.
    pub(crate) async fn with_clusters() -> Self {
        let cluster = RabbitCluster::start(NET_TICKTIME).expect("a cluster");
        let mut redis = RedisCluster::start(3, 0).await;
        Self {
            rabbitmq: RabbitMq::Cluster(cluster),
            redis_url: redis.url(),
            redis: redis.nodes.remove(0),
            other_shards: redis.nodes,
        }
    }

    pub(crate) fn shards(&self) -> impl Iterator<Item = &Redis> {
        [&self.redis].into_iter().chain(&self.other_shards)
    }

    pub(crate) fn amqp_url(&self) -> String {
        match &self.rabbitmq {
            RabbitMq::Node(node) => format!("amqp://guest:guest@127.0.0.1:{}/t0", node.amqp),
            RabbitMq::Cluster(cluster) => {
                let urls: Vec<_> = (0..NODES).map(|n| cluster.url_of(n)).collect();
                urls.join(",")
            }
        }
    }

    /// Has each node of RabbitMQ evaluate an Erlang expression.
    pub(crate) fn evaluate(&self, expression: &str) -> Vec<String> {
        let values: Result<_, _> = match &self.rabbitmq {
            RabbitMq::Node(node) => node.evaluate(expression).map(|value| vec![value]),
            RabbitMq::Cluster(cluster) => (0..NODES)
                .map(|n| cluster.evaluate(n, expression))
                .collect(),
        };
        values.expect("RabbitMQ evaluates it")
    }

    pub(crate) fn knowing(&self, program: Program) -> Program {
        program
            .env("AMQP_URL", &self.amqp_url())
            .env("REDIS_URL", &self.redis_url)
    }

    pub(crate) fn rpcache(&self, arguments: &[&str]) -> Program {
        self.knowing(Program::rpcache(arguments))
    }

    /// Starts workers with these options, and waits until they have announced themselves.
    pub(crate) async fn workers(&self, count: usize, options: &[&str]) -> Vec<Process> {
        let start = || self.rpcache(&[&["worker"], options].concat()).start();
        let workers = (0..count).map(|_| start()).collect();
        wait::wait_until("the workers have announced themselves", async || {
            self.statuses().await.len() == count
        })
        .await;
        // A worker serves once a call is answered.
        let ready = self.rpcache(&["call", "--wait", "--no-cache", "1"]).run();
        assert_eq!(ready.await.code, Some(0), "no worker serves");
        workers
    }

    /// The announcements of the workers.
    pub(crate) async fn statuses(&self) -> Vec<Value> {
        let places: Vec<_> = (0..8)
            .map(|place| format!("rpcache:worker:{place}"))
            .collect();
        let mut mget = vec!["MGET"];
        mget.extend(places.iter().map(String::as_str));
        let found: Vec<Option<String>> = self.redis.run(&mget).await;
        let read = |text: String| serde_json::from_str(&text).expect("JSON");
        found.into_iter().flatten().map(read).collect()
    }
}
