//! Processes return to the RabbitMQ node that they prefer once it is back, unless it is partitioned from the others.
//!
//! The nodes are addresses: of one broker, and of another one where a node is partitioned.

use crate::support::Setup;
use crate::support::ports::{ClosedPort, Forwarder};
use crate::support::process::Process;
use crate::support::rabbitmq::Node;
use crate::support::wait::{PATIENCE, wait_until};
use std::time::{Duration, Instant};

/// A process returns 20 to 50 s after it has come to another node.
const RETURNS_WITHIN: Duration = Duration::from_secs(60);

/// Addresses of which the first one is open.
struct Nodes {
    first: Forwarder,
    others: Vec<ClosedPort>,
    url: String,
}

impl Nodes {
    fn new(setup: &Setup, others: usize) -> Self {
        let first = ClosedPort::reserve().forward_to(setup.vhost.port());
        let others: Vec<_> = (0..others).map(|_| ClosedPort::reserve()).collect();
        let ports = std::iter::once(first.port()).chain(others.iter().map(ClosedPort::port));
        let urls: Vec<_> = ports.map(|port| setup.vhost.url_by(port)).collect();
        Self {
            first,
            others,
            url: urls.join(","),
        }
    }

    /// Opens the others: they lead to this port.
    fn open(self, port: u16) -> Vec<Forwarder> {
        let others = self.others.into_iter();
        let mut open: Vec<_> = others.map(|other| other.forward_to(port)).collect();
        open.push(self.first);
        open
    }
}

/// Clients that are asked for one argument after another.
struct Clients(Vec<Process>);

impl Clients {
    fn start(setup: &Setup, number: usize, url: &str) -> Self {
        let client = |_| {
            let program = setup.rpcache(&["call", "-", "--no-cache"]);
            let program = program.env("AMQP_URL", url).env("RUST_LOG", "rpcache=info");
            program.fed().start()
        };
        Self((0..number).map(client).collect())
    }

    /// Each gets one more answer: the `count`th.
    async fn answer(&mut self, count: usize) {
        for client in &mut self.0 {
            client.feed("30\n").await;
        }
        for client in &self.0 {
            wait_until("the call is answered", async || {
                client.stdout() == "30\t832040\n".repeat(count)
            })
            .await;
        }
    }
}

fn moves(process: &Process, line: &str) -> usize {
    process.stderr().matches(line).count()
}

/// The time until one of the processes logs `line`.
async fn one_moves(processes: &[Process], line: &str) -> Duration {
    let began = Instant::now();
    while processes.iter().all(|process| moves(process, line) == 0) {
        assert!(began.elapsed() < RETURNS_WITHIN + PATIENCE, "none: {line}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    began.elapsed()
}

#[tokio::test]
async fn processes_return_to_the_node_that_is_back() {
    const CLIENTS: &str = "RabbitMQ: going on at";
    const WORKERS: &str = "the preferred node is back; going there";
    let setup = Setup::new().await;
    // All of three prefer the first of 16 nodes once in 4,096 runs.
    let nodes = Nodes::new(&setup, 15);
    let mut workers = Vec::new();
    for _ in 0..3 {
        let worker = setup.rpcache(&["worker"]).env("AMQP_URL", &nodes.url);
        workers.push(setup.serving(worker).await);
    }
    let mut clients = Clients::start(&setup, 3, &nodes.url);
    clients.answer(1).await;
    let _open = nodes.open(setup.vhost.port());
    let (client, worker) =
        tokio::join!(one_moves(&clients.0, CLIENTS), one_moves(&workers, WORKERS));
    assert!(
        client.max(worker) < RETURNS_WITHIN,
        "{client:?}, {worker:?}"
    );
    clients.answer(2).await;
    // They stay there.
    for (processes, line) in [(&clients.0, CLIENTS), (&workers, WORKERS)] {
        assert!(processes.iter().all(|process| moves(process, line) <= 1));
    }
    for worker in workers {
        assert_eq!(worker.terminate().await.code, Some(0));
    }
}

#[tokio::test]
async fn clients_stay_away_from_a_node_that_is_partitioned() {
    let setup = Setup::new().await;
    let _worker = setup.worker(&[]).await;
    // It accepts logins, and knows nothing of what the other one has.
    let partitioned = Node::start(0).expect("a broker");
    setup.vhost.is_at(&partitioned);
    // All of twelve prefer the first of two nodes once in 4,096 runs.
    let nodes = Nodes::new(&setup, 1);
    let mut clients = Clients::start(&setup, 12, &nodes.url);
    clients.answer(1).await;
    let _open = nodes.open(partitioned.amqp);
    let began = Instant::now();
    // One that wants to return declares a callback queue there, and finds that the other node does not see it.
    while queues(&partitioned)[1] == 0 {
        assert!(began.elapsed() < RETURNS_WITHIN + PATIENCE, "none returns");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    clients.answer(2).await;
    for client in &clients.0 {
        assert_eq!(moves(client, "going on at"), 0, "{}", client.stderr());
    }
}

/// How many queues were created at a node, and how many deleted.
fn queues(node: &Node) -> [u32; 2] {
    let counted = node.evaluate(
        "[{_, _, _, _, _, _, Created, Deleted}] = ets:lookup(connection_churn_metrics, node()), \
         io_lib:format(\"~b ~b\", [Created, Deleted]).",
    );
    let counted = counted.expect("it counts");
    let mut numbers = counted.split(' ').map(|number| number.parse().unwrap());
    [(); 2].map(|()| numbers.next().expect("two numbers"))
}
