//! `queued`: how long a hit takes while 10,000 misses of the same process wait for their worker, against
//! how long it takes while none does.
//!
//! One client that wants a hit every 0.4 ms, whether the earlier ones have ended or not; each is timed
//! from when it is handed to the runtime. In turns the client has nothing else to do, and 10,000 calls
//! under way for arguments of their own: published, and waiting in the queue of a worker that takes one a
//! second. (As fast as they go, hits would measure the system's scheduler: who never sleeps has to wait.)
//! A hit that Redis did not answer within the cache budget waits in the queue with the others, until its
//! time-out: that counts as its time, and is told.

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
/// Of which so many may have been answered by the time that the last one is published.
const ANSWERED: u32 = 50;
/// So many at once, and then a moment for them to be sent: 10,000 lookups in one instant would take longer
/// than a cache budget.
const BURST: usize = 100;
const BETWEEN_BURSTS: Duration = Duration::from_millis(15);
/// Is in the cache.
const HIT: u64 = 0;
const HIT_TIMEOUT: Duration = Duration::from_secs(1);

/// A waiting call publishes once more after half of it: later than a slice ends.
const PATIENCE: Duration = Duration::from_secs(600);

pub(crate) async fn run(table: &mut Table) {
    let servers = Servers::start();
    // What is not in the worker waits in the queue, and goes with it.
    let _worker = role::start(&servers, &["slow-worker", QUEUE, MILLISECONDS, "1"]);
    let broker = Broker::connect(&servers.amqp_url()).await;
    let mut cache = CacheOptions::new(servers.redis.url().parse().expect("a URL"));
    cache.wait_for_connection = true;
    let amqp = servers.amqp_url().parse().expect("a URL");
    let client = Client::new(Slow::default(), ClientOptions::new(amqp, cache));
    // The worker serves, and the client is connected to it: quiet, not new.
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
    table.tell("hits that were misses", "", &[missed.sum::<u32>().into()]);
}

/// The hits of one turn.
#[derive(Default)]
struct Slice {
    /// Microseconds of each, the shortest first.
    times: Vec<f64>,
    /// Those that did not come from the cache.
    missed: u32,
}

/// Of each slice.
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

/// How long it took, and whether it came from the cache.
async fn hit(client: Client<Slow>, since: Instant) -> (Duration, bool) {
    let answered = client.call_with(HIT, waiting(HIT_TIMEOUT)).await;
    let was_hit = answered.is_ok_and(|answered| answered.source == Source::Cache);
    (since.elapsed(), was_hit)
}

/// Calls that are all under way, until they are dropped.
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
