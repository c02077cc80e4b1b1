//! Faults of a RabbitMQ cluster of three nodes: no call fails that has more time left than an election takes.
//!
//! The tests share one cluster and run one after another. Its `net_ticktime` is the default of a minute: a frozen node
//! counts as a member for all of a test.

use crate::support::amqp::Caller;
use crate::support::isolated;
use crate::support::ports::{ClosedPort, Forwarder};
use crate::support::process::{Process, Program};
use crate::support::rabbit_cluster::{NODES, RabbitCluster, url};
use crate::support::redis::Redis;
use crate::support::wait;
use tokio::sync::{Mutex, MutexGuard};

static CLUSTER: Mutex<Option<RabbitCluster>> = Mutex::const_new(None);

/// The cluster, a Redis, and a queue that belongs to one test.
struct Setup {
    cluster: MutexGuard<'static, Option<RabbitCluster>>,
    redis: Redis,
    queue: &'static str,
}

impl Setup {
    async fn new(queue: &'static str) -> Self {
        let mut cluster = CLUSTER.lock().await;
        if cluster.is_none() {
            *cluster = Some(RabbitCluster::start(60).expect("a cluster"));
        }
        Self {
            cluster,
            redis: Redis::start(),
            queue,
        }
    }

    fn cluster(&mut self) -> &mut RabbitCluster {
        self.cluster.as_mut().expect("it was started")
    }

    fn rpcache(&self, arguments: &[&str], amqp: &str) -> Program {
        Program::rpcache(&[arguments, &["--queue", self.queue]].concat())
            .env("AMQP_URL", amqp)
            .env("REDIS_URL", &self.redis.url())
    }

    /// A worker at one node, which leads the queue if it is the first one.
    async fn worker_at(&mut self, node: usize) -> Process {
        let url = self.cluster().url_of(node);
        let worker = self.rpcache(&["worker"], &url).start();
        worker.says("serving").await;
        worker
    }

    /// A client at one node, which can go to the others from now on.
    async fn client_at(&mut self, node: usize) -> (LongCall, Vec<Forwarder>) {
        let ports = [(); NODES].map(|()| ClosedPort::reserve());
        let urls = ports.each_ref().map(|port| url(port.port()));
        let ways: Vec<_> = (ports.into_iter().enumerate())
            .map(|(n, port)| port.forward_to(self.cluster().port(n)))
            .collect();
        let others = || ways.iter().enumerate().filter(|(n, _)| *n != node);
        others().for_each(|(_, way)| way.close());
        let call = ["call", "-", "--timeout", "20s"];
        let client = self.rpcache(&call, &urls.join(",")).fed().start();
        let mut client = LongCall { client, answers: 0 };
        client.answers(1001..1002).await;
        others().for_each(|(_, way)| way.open());
        (client, ways)
    }
}

/// A client process that is asked for one argument after another.
struct LongCall {
    client: Process,
    answers: usize,
}

impl LongCall {
    async fn ask(&mut self, arguments: std::ops::Range<u64>) {
        for n in arguments {
            self.answers += 1;
            self.client.feed(&format!("{n}\n")).await;
        }
    }

    /// Asks, and waits for the answers.
    async fn answers(&mut self, arguments: std::ops::Range<u64>) {
        self.ask(arguments).await;
        wait::wait_until("every call is answered", async || {
            let stdout = self.client.stdout();
            stdout.lines().count() == self.answers
        })
        .await;
    }

    /// No call has failed.
    async fn ends(mut self) -> String {
        self.client.close_stdin();
        let finished = self.client.finish().await;
        assert_eq!(finished.code, Some(0), "{finished:#?}");
        finished.stderr
    }
}

#[tokio::test]
async fn calls_outlive_the_leader_of_their_queue() {
    let mut setup = Setup::new("rpc_queue.killed").await;
    let at_leader = setup.worker_at(0).await;
    let elsewhere = setup.worker_at(1).await;
    let (mut client, _ways) = setup.client_at(0).await;
    assert_eq!(setup.cluster().leader("rpc_queue.killed", 1), Ok(0));
    setup.cluster().kill(0);
    client.answers(1002..1030).await;
    client.ends().await;
    drop((at_leader, elsewhere));
    setup.cluster().launch(0).expect("it starts again");
}

#[tokio::test]
async fn client_leaves_a_frozen_node() {
    let mut setup = Setup::new("rpc_queue.frozen").await;
    let _worker = setup.worker_at(0).await;
    let (mut client, _ways) = setup.client_at(1).await;
    setup.cluster().freeze(1);
    let began = std::time::Instant::now();
    client.answers(1002..1030).await;
    let took = began.elapsed();
    setup.cluster().thaw(1);
    client.ends().await;
    assert!(took.as_secs() < 10, "{took:?}");
}

/// What the node sends to the others is dropped; without the rights to do that, what it exchanges with the client.
#[tokio::test]
async fn client_leaves_a_node_that_is_cut_off() {
    let mut setup = Setup::new("rpc_queue.cut").await;
    let _worker = setup.worker_at(0).await;
    let (mut client, ways) = setup.client_at(1).await;
    let cut = if isolated::obstacle().is_none() {
        Some(setup.cluster().cut(1).expect("it can be cut off"))
    } else {
        ways[1].stall();
        None
    };
    let began = std::time::Instant::now();
    client.answers(1002..1030).await;
    let took = began.elapsed();
    drop(cut);
    ways[1].open();
    client.ends().await;
    assert!(took.as_secs() < 10, "{took:?}");
}

#[tokio::test]
async fn callback_queue_at_a_frozen_node_holds_up_no_other_caller() {
    let mut setup = Setup::new("rpc_queue.held").await;
    // Declares the queue.
    let worker = setup.worker_at(0).await;
    worker.terminate().await;
    let (frozen, well) = (setup.cluster().url_of(1), setup.cluster().url_of(2));
    let caller = Caller::with_callback_queue(&frozen).await;
    for n in 0..150 {
        let body = format!("{n}");
        let properties = caller.properties();
        caller
            .broker
            .publish(setup.queue, body.as_bytes(), properties)
            .await;
    }
    setup.cluster().freeze(1);
    let worker = setup.worker_at(0).await;
    let call = ["call", "5000", "--timeout", "20s"];
    let finished = setup.rpcache(&call, &well).run().await;
    setup.cluster().thaw(1);
    assert_eq!(finished.code, Some(0), "{finished:#?}");
    assert!(finished.took.as_secs() < 10, "{finished:#?}");
    drop(worker);
}

#[tokio::test]
async fn callback_queue_is_not_awaited_while_a_node_is_frozen() {
    let mut setup = Setup::new("rpc_queue.opened").await;
    let _worker = setup.worker_at(0).await;
    setup.cluster().freeze(1);
    // Declaring a queue takes all nodes.
    let (mut client, _ways) = setup.client_at(2).await;
    client.answers(1002..1010).await;
    setup.cluster().thaw(1);
    client.ends().await;
}

#[tokio::test]
async fn doctor_names_a_frozen_node() {
    let mut setup = Setup::new("rpc_queue.examined").await;
    let _worker = setup.worker_at(0).await;
    setup.cluster().freeze(1);
    let urls: Vec<_> = (0..NODES).map(|n| setup.cluster().url_of(n)).collect();
    let finished = setup
        .rpcache(&["doctor", "--json"], &urls.join(","))
        .run()
        .await;
    setup.cluster().thaw(1);
    // Two checks find it: the node does not greet, and does not log anybody in.
    let frozen = format!("127.0.0.1:{}: ", setup.cluster().port(1));
    for check in ["amqp-protocol", "amqp-nodes"] {
        let (state, message, _) = finding(&finished.stdout, check);
        assert_eq!(state, "warning", "{finished:#?}");
        assert!(message.starts_with(&frozen), "{message}");
    }
}

#[tokio::test]
async fn doctor_shows_what_the_management_api_knows() {
    let mut setup = Setup::new("rpc_queue.shown").await;
    let _worker = setup.worker_at(0).await;
    let (amqp, api) = (setup.cluster().url_of(0), setup.cluster().management_url());
    let doctor = async |api: &str| {
        let arguments = ["doctor", "--json", "--management-url", api];
        setup.rpcache(&arguments, &amqp).run().await.stdout
    };
    let stdout = doctor(&api).await;
    let (state, message, remedy) = finding(&stdout, "amqp-cluster");
    assert_eq!(state, "warning", "{message}");
    // The cluster has RabbitMQ's default.
    assert!(message.starts_with("net_ticktime is 60 s"), "{message}");
    assert!(message.contains("; 3 nodes; t"), "{message}");
    assert!(
        message.ends_with("n0@localhost leads the request queue"),
        "{message}"
    );
    assert!(remedy.contains("set net_ticktime = 10"), "{remedy}");
    let wrong = api.replace("http://", "http://guest:s3cret@");
    let stdout = doctor(&wrong).await;
    assert!(!stdout.contains("s3cret"), "{stdout}");
    let (state, message, remedy) = finding(&stdout, "amqp-cluster");
    assert_eq!(state, "warning", "{message}");
    assert!(
        message.contains("not_authorised") || message.contains("not_authorized"),
        "{message}"
    );
    assert!(remedy.contains("set_user_tags USER monitoring"), "{remedy}");
    // AMQP is no HTTP.
    let (_, port) = amqp.rsplit_once(':').unwrap();
    let (port, _) = port.split_once('/').unwrap();
    let stdout = doctor(&format!("http://127.0.0.1:{port}")).await;
    let (state, message, remedy) = finding(&stdout, "amqp-cluster");
    assert_eq!(state, "warning", "{message}");
    assert!(message.contains(port), "{message}");
    assert!(
        remedy.contains("rabbitmq-plugins enable"),
        "{message}: {remedy}"
    );
}

/// State, message and remedy of one check.
fn finding(stdout: &str, check: &str) -> (String, String, String) {
    let mut findings = stdout.lines().filter_map(|line| {
        let finding: serde_json::Value = serde_json::from_str(line).ok()?;
        (finding["check"] == check).then_some(finding)
    });
    let finding = findings.next().expect("it was checked");
    let text = |field: &str| finding[field].as_str().unwrap_or_default().to_owned();
    (text("state"), text("message"), text("remedy"))
}
