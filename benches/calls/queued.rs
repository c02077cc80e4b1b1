//! `queued`: the latency of a hit while 10,000 misses of the process wait for their worker, against its latency
//! while none waits.
//!
//! One client starts a hit every 0.4 ms, whether earlier ones have ended or not; each is timed from its spawn.
//! In turns the client is otherwise idle, and has 10,000 calls in flight with different arguments, which wait in
//! the queue of a worker that takes one a second. (In a closed loop, hits would measure the system's scheduler,
//! because a process that never sleeps has to wait.) A hit that misses the cache budget waits in the queue with
//! the others, until its timeout: that counts as its latency, and the number of these is shown.

use std::thread;
use std::time::{Duration, Instant};

use rpcache::{CacheOptions, CallOptions, Client, ClientOptions, Source};
use tokio::runtime::Handle;
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::sleep;

use crate::role;
use crate::servers::Servers;
use crate::slow::Slow;
use crate::support::amqp::Broker;
use crate::support::wait::wait_until;
use crate::table::{Goal, Table};

const ROUNDS: usize = 12;
const SLICE: Duration = Duration::from_millis(1200);
const EACH: Duration = Duration::from_micros(400);
const QUEUE: &str = "rpc_queue.slow";
const MILLISECONDS: &str = "1000";
const MISSES: u32 = 10_000;
/// The number of misses that may be answered before the last one is published.
const ANSWERED: u32 = 50;
/// Misses are started in groups, with pauses in which they are sent: 10,000 lookups at once would take longer than
/// the cache budget.
const BURST: usize = 100;
const BETWEEN_BURSTS: Duration = Duration::from_millis(15);
/// The argument that is in the cache.
const HIT: u64 = 0;
const HIT_TIMEOUT: Duration = Duration::from_secs(1);

/// The timeout of a waiting call, which publishes again after half of it: later than a slice ends.
const PATIENCE: Duration = Duration::from_secs(600);

pub(crate) async fn run(table: &mut Table) {
    let servers = Servers::start();
    // Messages that the worker does not hold are purged with the queue.
    let _worker = role::start(&servers, &["slow-worker", QUEUE, MILLISECONDS, "1"]);
    let broker = Broker::connect(&servers.amqp_url()).await;
    let mut cache = CacheOptions::new(servers.redis.url().parse().expect("a URL"));
    cache.wait_for_connection = true;
    let amqp = servers.amqp_url().parse().expect("a URL");
    let client = Client::new(Slow::default(), ClientOptions::new(amqp, cache));
    // Wait until the worker serves, so that the client is connected.
    let first = client
        .call_with(HIT, waiting(PATIENCE))
        .await
        .expect("an answer");
    assert_eq!(first.source, Source::Computed);

    let (mut quiet, mut loaded) = (Vec::new(), Vec::new());
    let mut arguments = HIT + 1..;
    for _ in 0..ROUNDS {
        quiet.push(hits(&client).await);
        let mut waiting = misses(&client, &broker, &mut arguments).await;
        loaded.push(hits(&client).await);
        while let Some(ended) = waiting.try_join_next() {
            ended.expect("a miss is answered or waits");
        }
        waiting.shutdown().await;
        let purge = broker.channel.queue_purge(QUEUE.into(), <_>::default());
        purge.await.expect("the queue is ours");
    }
    for (what, percent, goal) in [
        ("p50 of a hit, 10,000 misses waiting", 50, Goal::None),
        ("p99 of a hit, 10,000 misses waiting", 99, Goal::AtMost(1.2)),
    ] {
        let (loaded, quiet) = (percentile(&loaded, percent), percentile(&quiet, percent));
        table.add(what, "µs", (&loaded, &quiet), goal);
    }
    let missed = loaded.iter().chain(&quiet).map(|slice| slice.missed);
    table.info("hits that were misses", "", &[missed.sum::<u32>().into()]);
}

/// The hits of one turn.
#[derive(Default)]
struct Slice {
    /// The latency of each in microseconds, sorted.
    times: Vec<f64>,
    /// The number of hits that did not come from the cache.
    missed: u32,
}

/// The hits of each slice.
fn percentile(slices: &[Slice], percent: usize) -> Vec<f64> {
    let of = |Slice { times, .. }: &Slice| times[times.len() * percent / 100];
    slices.iter().map(of).collect()
}

async fn hits(client: &Client<Slow>) -> Slice {
    let (client, runtime) = (client.clone(), Handle::current());
    let pace = move || {
        let start = Instant::now();
        let due = (0..).map(|number| EACH * number);
        let hits = due.take_while(|&due| due < SLICE).map(|due| {
            thread::sleep(due.saturating_sub(start.elapsed()));
            runtime.spawn(hit(client.clone(), Instant::now()))
        });
        hits.collect::<Vec<_>>()
    };
    let mut slice = Slice::default();
    for hit in spawn_blocking(pace).await.expect("a thread") {
        let (took, was_hit) = hit.await.expect("it does not panic");
        slice.times.push(took.as_secs_f64() * 1e6);
        slice.missed += u32::from(!was_hit);
    }
    slice.times.sort_by(f64::total_cmp);
    slice
}

fn waiting(timeout: Duration) -> CallOptions {
    let mut options = CallOptions::within(timeout);
    options.wait = true;
    options
}

/// The latency, and whether the answer came from the cache.
async fn hit(client: Client<Slow>, since: Instant) -> (Duration, bool) {
    let answered = client.call_with(HIT, waiting(HIT_TIMEOUT)).await;
    let was_hit = answered.is_ok_and(|answered| answered.source == Source::Cache);
    (since.elapsed(), was_hit)
}

/// Calls that are in flight until they are dropped.
async fn misses(
    client: &Client<Slow>,
    broker: &Broker,
    arguments: &mut impl Iterator<Item = u64>,
) -> JoinSet<()> {
    let mut calls = JoinSet::new();
    let misses = usize::try_from(MISSES).expect("some thousand");
    for (number, argument) in arguments.take(misses).enumerate() {
        if number % BURST == 0 {
            sleep(BETWEEN_BURSTS).await;
        }
        let client = client.clone();
        calls.spawn(async move {
            let answered = client.call_with(argument, waiting(PATIENCE)).await;
            answered.expect("an answer");
        });
    }
    wait_until("the misses wait in the queue", async || {
        let found = broker.look_at(QUEUE).await;
        found.is_some_and(|(messages, _)| messages >= MISSES - ANSWERED)
    })
    .await;
    calls
}
