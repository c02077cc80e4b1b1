//! The private RabbitMQ and Redis of a run, and `rpcache` processes between them.

use serde_json::Value;

use crate::support::process::{Process, Program};
use crate::support::rabbitmq::Node;
use crate::support::redis::Redis;
use crate::support::wait;

pub(crate) struct Servers {
    node: Node,
    pub(crate) redis: Redis,
}

impl Servers {
    pub(crate) fn start() -> Self {
        Self {
            node: Node::start(1).expect("RabbitMQ"),
            redis: Redis::start(),
        }
    }

    pub(crate) fn amqp_url(&self) -> String {
        format!("amqp://guest:guest@127.0.0.1:{}/t0", self.node.amqp)
    }

    pub(crate) fn knowing(&self, program: Program) -> Program {
        program
            .env("AMQP_URL", &self.amqp_url())
            .env("REDIS_URL", &self.redis.url())
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
