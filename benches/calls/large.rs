//! `large`: misses with an answer of 209 kB, that of F(10⁶), against lapin alone with that answer.
//!
//! The limit computes nothing, so the rows with a goal compute nothing either: [`Prepared`] has the answers of
//! `fib`, and verifies them as `fib` does, 209 kB modulo a prime. Only our side looks up, takes a lease, fills
//! and verifies. A row without a goal has `fib` itself: most of its time is computing, so that the ratio says
//! little about the transport.

use std::sync::Arc;
use std::time::Duration;

use rpcache::fibonacci::{Fibonacci, N};
use rpcache::{CacheOptions, CacheUse, CallOptions, Client, ClientOptions, Procedure, Source};

use crate::prepared::{self, Prepared};
use crate::raw::{self, Caller};
use crate::role;
use crate::servers::Servers;
use crate::table::{Goal, Table};
use crate::tasks::rate;

const ROUNDS: usize = 9;
const SLICE: Duration = Duration::from_millis(600);

pub(crate) async fn run(table: &mut Table) {
    let servers = Servers::start();
    let _fib_worker = servers.workers(1, &[]).await;
    let names = ["prepared-worker", "raw-prepared-worker"];
    let _workers = names.map(|name| role::start(&servers, &[name]));
    let prepared = client(&servers, Prepared::default());
    let fib = client(&servers, Fibonacci::default());
    let connection = raw::connect(&servers.amqp_url()).await;
    raw::declare(&connection.create_channel().await.expect("a channel")).await;
    let raw = Arc::new(Caller::connect(&servers.amqp_url()).await);
    // Wait until all workers serve.
    limit(&raw, u64::MAX).await;
    miss(prepared.clone(), u64::MAX, CacheUse::Bypass).await;
    miss(fib.clone(), N(1), CacheUse::Bypass).await;

    for tasks in [1, 16] {
        let [mut cached, mut bypassing, mut computed, mut echoed] = [(); 4].map(|()| Vec::new());
        for _ in 0..ROUNDS {
            for (rates, cache) in [
                (&mut cached, CacheUse::Normal),
                (&mut bypassing, CacheUse::Bypass),
            ] {
                let client = prepared.clone();
                rates.push(rate(tasks, SLICE, move |n| miss(client.clone(), n, cache)).await);
            }
            let raw = Arc::clone(&raw);
            let echo = move |n| {
                let raw = Arc::clone(&raw);
                async move { limit(&raw, n).await }
            };
            echoed.push(rate(tasks, SLICE, echo).await);
            let client = fib.clone();
            let near = move |n| miss(client.clone(), near_a_million(n), CacheUse::Normal);
            computed.push(rate(tasks, SLICE, near).await);
            // Removes some hundred megabytes: a run must not need several gigabytes.
            servers.redis.run::<()>(&["FLUSHALL"]).await;
        }
        for (what, ours, goal) in [
            ("looked up and stored", &cached, Goal::AtLeast(0.8)),
            ("--no-cache", &bypassing, Goal::None),
            ("fib, computed and stored", &computed, Goal::None),
        ] {
            let what = format!("{tasks} in flight, {what}");
            table.add(what, "1/s", (ours, &echoed), goal);
        }
    }
}

fn client<P: Procedure>(servers: &Servers, procedure: P) -> Client<P> {
    let mut cache = CacheOptions::new(servers.redis.url().parse().expect("a URL"));
    cache.wait_for_connection = true;
    let amqp = servers.amqp_url().parse().expect("a URL");
    Client::new(procedure, ClientOptions::new(amqp, cache))
}

/// Calls with an argument that was not used since the last FLUSHALL.
fn near_a_million(n: u64) -> N {
    N(Fibonacci::DEFAULT_MAX_N - n % 10_000)
}

async fn miss<P: Procedure>(client: Client<P>, argument: P::Argument, cache: CacheUse) {
    let mut options = CallOptions::default();
    options.cache = cache;
    options.wait = true;
    let answered = client.call_with(argument, options).await;
    assert_eq!(answered.expect("an answer").source, Source::Computed);
}

async fn limit(raw: &Caller, n: u64) {
    let reply = raw.call(n).await;
    assert!(reply == prepared::answer(n).as_str().as_bytes());
}
