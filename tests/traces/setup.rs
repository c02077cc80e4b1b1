//! The servers of one test: a vhost, a Redis with a password, and a collector.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::collector::Collector;
use crate::support::amqp::{Broker, QUEUE};
use crate::support::process::{Finished, Process, Program};
use crate::support::rabbitmq::Node;
use crate::support::redis::Redis;
use crate::support::wait::wait_until;

/// More than there are tests: a vhost is used once.
const VHOSTS: usize = 10;

/// The password of Redis and of the collector, which must not appear in spans or logs.
pub(crate) const SECRET: &str = "opensesame";

pub(crate) struct Setup {
    pub(crate) amqp: String,
    pub(crate) redis: Redis,
    pub(crate) collector: Collector,
    broker: Broker,
}

impl Setup {
    pub(crate) async fn new() -> Self {
        static NODE: OnceLock<Node> = OnceLock::new();
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let node = NODE.get_or_init(|| Node::start(VHOSTS).expect("RabbitMQ starts"));
        let vhost = NEXT.fetch_add(1, Ordering::Relaxed);
        assert!(vhost < VHOSTS, "more tests than vhosts: raise VHOSTS");
        let amqp = format!("amqp://guest:guest@127.0.0.1:{}/t{vhost}", node.amqp);
        Self {
            broker: Broker::connect(&amqp).await,
            amqp,
            redis: Redis::start_with(&["--requirepass", SECRET]),
            collector: Collector::start().await,
        }
    }

    /// The command with these arguments and both servers, without a collector.
    pub(crate) fn plain(&self, arguments: &[&str]) -> Program {
        Program::rpcache(arguments)
            .env("AMQP_URL", &self.amqp)
            .env("REDIS_URL", &self.redis.url_with(&format!(":{SECRET}@")))
    }

    /// The command with both servers and the collector.
    pub(crate) fn traced(&self, service: &str, arguments: &[&str]) -> Program {
        self.plain(arguments)
            .env("OTEL_EXPORTER_OTLP_ENDPOINT", &self.collector.url())
            .env(
                "OTEL_EXPORTER_OTLP_HEADERS",
                &format!("authorization={SECRET}"),
            )
            .env("OTEL_SERVICE_NAME", service)
            // Milliseconds between batches, in place of the default of five seconds.
            .env("OTEL_BSP_SCHEDULE_DELAY", "50")
    }

    /// Starts a worker and waits until it serves.
    pub(crate) async fn serving(&self, worker: Program) -> Process {
        let worker = worker.start();
        wait_until("the worker consumes the queue", async || {
            self.broker
                .look_at(QUEUE)
                .await
                .is_some_and(|(_, consumers)| consumers > 0)
        })
        .await;
        worker
    }

    pub(crate) async fn call(&self, arguments: &[&str]) -> Finished {
        self.traced("caller", &[&["call"], arguments].concat())
            .run()
            .await
    }
}
