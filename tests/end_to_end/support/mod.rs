//! Support for the tests: real servers, the programs as processes, and peers that speak raw AMQP.

pub(crate) mod amqp;
pub(crate) mod certificates;
pub(crate) mod http;
pub(crate) mod isolated;
pub(crate) mod lifetime;
pub(crate) mod places;
pub(crate) mod ports;
pub(crate) mod process;
#[expect(dead_code, reason = "shared with the fault campaign")]
pub(crate) mod rabbit_cluster;
pub(crate) mod rabbitmq;
#[expect(dead_code, reason = "shared with the fault campaign")]
pub(crate) mod redis;
#[expect(dead_code, reason = "shared with the fault campaign")]
pub(crate) mod redis_cluster;
pub(crate) mod restricted;
#[expect(dead_code, reason = "shared with the fault campaign")]
pub(crate) mod sentinel_set;
pub(crate) mod wait;
pub(crate) mod wire;

use amqp::{Broker, Caller, Declared, QUEUE, Worker};
use process::{Finished, Process, Program};
use rabbitmq::Vhost;
use redis::Redis;

/// An argument that is computed under a lease, on a thread for computing, rather than inline.
pub(crate) const EXPENSIVE: u64 = 100_000;

/// Options of a worker that computes one answer at a time; an argument that takes it half a second, for tests that send
/// a few messages meanwhile; and one that takes it some seconds, for tests that start processes meanwhile.
pub(crate) const ONE_AT_A_TIME: [&str; 4] = ["--concurrency", "1", "--algorithm", "iterative"];
pub(crate) const SLOW: u64 = 400_000;
pub(crate) const VERY_SLOW: u64 = 750_000;

/// The servers of one test: a vhost of the shared broker, and a Redis.
pub(crate) struct Setup {
    pub(crate) vhost: Vhost,
    pub(crate) redis: Redis,
    /// The test's own connection to the broker.
    pub(crate) broker: Broker,
}

impl Setup {
    pub(crate) async fn new() -> Self {
        places::take();
        Self::over(Vhost::unused()).await
    }

    /// With a vhost of another broker.
    pub(crate) async fn over(vhost: Vhost) -> Self {
        places::take();
        let broker = Broker::connect(&vhost.url()).await;
        Self {
            vhost,
            redis: Redis::start(),
            broker,
        }
    }

    /// `rpcache` with these arguments, and the addresses of both servers in its environment.
    pub(crate) fn rpcache(&self, arguments: &[&str]) -> Program {
        self.knowing(Program::rpcache(arguments))
    }

    /// Any program, with the addresses of both servers in its environment.
    pub(crate) fn knowing(&self, program: Program) -> Program {
        program
            .env("AMQP_URL", &self.vhost.url())
            .env("REDIS_URL", &self.redis.url())
    }

    /// Starts `rpcache worker` with these options and waits until it serves.
    pub(crate) async fn worker(&self, options: &[&str]) -> Process {
        self.serving(self.rpcache(&[&["worker"], options].concat()))
            .await
    }

    /// Starts a program and waits until it consumes the queue.
    pub(crate) async fn serving(&self, program: Program) -> Process {
        let consumers = self.consumers(QUEUE).await;
        let process = program.start();
        wait::wait_until("the worker consumes the queue", async || {
            self.consumers(QUEUE).await > consumers
        })
        .await;
        process
    }

    pub(crate) async fn consumers(&self, queue: &str) -> u32 {
        self.broker
            .look_at(queue)
            .await
            .map_or(0, |(_, consumers)| consumers)
    }

    /// Runs `rpcache call` with these arguments to its end.
    pub(crate) async fn call(&self, arguments: &[&str]) -> Finished {
        self.start_call(arguments).finish().await
    }

    /// Starts `rpcache call` with these arguments.
    pub(crate) fn start_call(&self, arguments: &[&str]) -> Process {
        self.rpcache(&[&["call"], arguments].concat()).start()
    }

    /// A caller after the tutorial.
    pub(crate) async fn caller(&self) -> Caller {
        Caller::direct(&self.vhost.url()).await
    }

    /// A worker after the tutorial.
    pub(crate) async fn raw_worker(&self) -> Worker {
        Worker::serving(&self.vhost.url(), Declared::DurableQuorum).await
    }

    /// Waits until the workers have taken every request out of the queue.
    pub(crate) async fn all_taken(&self) {
        wait::wait_until("every request is taken", async || {
            self.broker
                .look_at(QUEUE)
                .await
                .is_some_and(|(messages, _)| messages == 0)
        })
        .await;
    }

    /// Ends the worker, and fails unless it has settled all of its requests.
    pub(crate) async fn assert_settled(&self, worker: Process) -> Finished {
        let finished = worker.terminate().await;
        assert_eq!(finished.code, Some(0), "{finished:#?}");
        self.broker.assert_empty(QUEUE).await;
        finished
    }
}

/// Further lines of rabbitmq.conf: a TLS listener on this port, which requires a client certificate.
pub(crate) fn further_listeners(port: u16) -> String {
    let file = certificates::file;
    format!(
        "listeners.ssl.1 = 127.0.0.1:{port}\n\
         ssl_options.cacertfile = {}\n\
         ssl_options.certfile = {}\n\
         ssl_options.keyfile = {}\n\
         ssl_options.verify = verify_peer\n\
         ssl_options.fail_if_no_peer_cert = true\n",
        file("ca.pem"),
        file("server.pem"),
        file("server.key"),
    )
}

/// The nth Fibonacci number by plain additions.
pub(crate) fn fibonacci(n: u64) -> String {
    let (mut this, mut next) = (num_bigint::BigUint::ZERO, num_bigint::BigUint::from(1_u32));
    for _ in 0..n {
        // Not `+=`: num-bigint inlines it into this crate, which is not optimised; that takes more than ten times as long.
        let sum = this + &next;
        this = std::mem::replace(&mut next, sum);
    }
    this.to_string()
}
