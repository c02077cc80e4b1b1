//! `scaling`: misses of 5 ms by 2 and by 4 workers, against 1.
//!
//! A worker is a process that computes one answer at a time, and computing is a sleep. So the number of cores does
//! not matter, and broker, cache and client, which all workers share, cause what is missing of the full multiple.
//! Each fleet has a queue of its own, so that the fleets take turns.

use std::time::Duration;

use rpcache::{CacheOptions, Client, ClientOptions, Source};

use crate::role;
use crate::servers::Servers;
use crate::slow::Slow;
use crate::support::amqp::Broker;
use crate::support::wait::wait_until;
use crate::table::{Goal, Table};
use crate::tasks::rate;

const ROUNDS: usize = 7;
const SLICE: Duration = Duration::from_secs(2);
const MILLISECONDS: &str = "5";
const PREFETCH: &str = "64";
const FLEETS: [usize; 3] = [1, 2, 4];

/// Enough calls for the largest fleet, so that no worker runs out of requests; all fit into the prefetch of the
/// smallest fleet.
const IN_FLIGHT: usize = 64;

pub(crate) async fn run(table: &mut Table) {
    let servers = Servers::start();
    let broker = Broker::connect(&servers.amqp_url()).await;
    let mut workers = Vec::new();
    let mut clients = Vec::new();
    for size in FLEETS {
        let queue = format!("rpc_queue.slow-{size}");
        let worker = ["slow-worker", &queue, MILLISECONDS, PREFETCH];
        workers.extend((0..size).map(|_| role::start(&servers, &worker)));
        wait_until("the fleet serves", async || {
            let found = broker.look_at(&queue).await;
            found.is_some_and(|(_, consumers)| usize::try_from(consumers) == Ok(size))
        })
        .await;
        clients.push(client(&servers, &queue));
    }
    let mut rates = FLEETS.map(|_| Vec::new());
    for _ in 0..ROUNDS {
        for (rates, client) in rates.iter_mut().zip(&clients) {
            let client = client.clone();
            rates.push(rate(IN_FLIGHT, SLICE, move |n| miss(client.clone(), n)).await);
        }
    }
    let [one, two, four] = &rates;
    table.info("1 worker", "1/s", one);
    table.add("2 workers, against 1", "1/s", (two, one), Goal::None);
    let goal = Goal::AtLeast(3.8);
    table.add("4 workers, against 1", "1/s", (four, one), goal);
}

fn client(servers: &Servers, queue: &str) -> Client<Slow> {
    let mut cache = CacheOptions::new(servers.redis.url().parse().expect("a URL"));
    cache.wait_for_connection = true;
    let amqp = servers.amqp_url().parse().expect("a URL");
    let mut options = ClientOptions::new(amqp, cache);
    options.queue = Some(queue.parse().expect("a queue's name"));
    Client::new(Slow::default(), options)
}

async fn miss(client: Client<Slow>, n: u64) {
    let answered = client.call(n).await.expect("an answer");
    assert_eq!(answered.source, Source::Computed);
}
