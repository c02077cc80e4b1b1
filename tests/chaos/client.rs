//! The client's role: a process with one long-lived `Client`, many callers, and the oracle's eye on
//! each of their calls. Ends when its stdin does, once every call has ended.

use std::io::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use fastrand::Rng;
use rpcache::fibonacci::{Fibonacci, N};
use rpcache::{CacheOptions, CacheUse, CallOptions, Client, ClientOptions, Error, Source};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;

use crate::args::ClientArgs;
use crate::oracle::{self, Oracle};
use crate::record::{Asked, Batch, Call, Clock, Order, Outcome, micros};
use crate::role;
use crate::stall::Ticker;
use crate::trap::{self, Trap};

/// A call that has not ended so long after its deadline is lost.
const GIVE_UP: Duration = Duration::from_secs(10);
/// Most callers are patient enough to sit out any fault: of a hundred, the rest waits so long.
pub(crate) const PATIENT: u64 = 30_000;
const HASTY: [(u64, u64); 2] = [(8, 2000), (4, 200)];
/// Of a hundred calls, how many each leave the cache alone or refresh it.
const UNCACHED: [(u64, CacheUse); 2] = [(1, CacheUse::Bypass), (1, CacheUse::Refresh)];

const REPORT_EVERY: Duration = Duration::from_millis(100);

struct Desk {
    client: Client<Fibonacci>,
    traps: Client<Trap>,
    oracle: Oracle,
    clock: Clock,
    ticker: Ticker,
    begun: AtomicU64,
    ended: Mutex<Vec<Call>>,
    paused: watch::Sender<bool>,
}

pub(crate) async fn run(args: ClientArgs) {
    role::log_to_stderr();
    let mut cache = CacheOptions::new(args.redis_url.parse().expect("the driver's URL"));
    cache.ttl = Some(Duration::from_millis(args.ttl_ms));
    let options = ClientOptions::new(args.amqp_url.parse().expect("the driver's URL"), cache);
    let desk = Arc::new(Desk {
        client: Client::new(Fibonacci::default(), options.clone()),
        traps: Client::new(Trap, options),
        oracle: Oracle::read(&args.oracle).expect("the driver's file"),
        clock: Clock::new(),
        ticker: Ticker::start(),
        begun: AtomicU64::new(0),
        ended: Mutex::default(),
        paused: watch::Sender::new(false),
    });
    let stop = CancellationToken::new();
    let mut rng = Rng::with_seed(args.seed);
    let mut callers = tokio::task::JoinSet::new();
    for _ in 0..args.callers {
        callers.spawn(call_on(
            Arc::clone(&desk),
            rng.fork(),
            args.clone(),
            stop.clone(),
        ));
    }
    let reports = tokio::spawn(report_on(Arc::clone(&desk)));
    // Until the driver closes it, or is gone.
    let mut orders = BufReader::new(tokio::io::stdin()).lines();
    while let Ok(Some(order)) = orders.next_line().await {
        obey(&desk, &order).await;
    }
    stop.cancel();
    while callers.join_next().await.is_some() {}
    // It stops between two reports: nothing is awaited within one.
    reports.abort();
    let _ = reports.await;
    print(&desk, true);
    if let Some(desk) = Arc::into_inner(desk) {
        tokio::join!(desk.client.close(), desk.traps.close());
    }
}

/// Every caller waits as long as the driver orders; then what it names is asked for.
async fn obey(desk: &Arc<Desk>, order: &str) {
    let order: Order = serde_json::from_str(order).expect("the driver's own");
    desk.paused.send_replace(order.pause_ms > 0);
    tokio::time::sleep(Duration::from_millis(order.pause_ms)).await;
    let cache = if order.stored {
        CacheUse::Normal
    } else {
        CacheUse::Bypass
    };
    let mut calls = tokio::task::JoinSet::new();
    for n in order.ask {
        let desk = Arc::clone(desk);
        calls.spawn(async move {
            let asked = Asked::Fib(n);
            call(&desk, asked, PATIENT, cache, order.stored).await;
        });
    }
    desk.paused.send_replace(false);
    while calls.join_next().await.is_some() {}
}

/// One caller: the next call when the last one has ended, but no more than its share of the rate.
async fn call_on(desk: Arc<Desk>, mut rng: Rng, args: ClientArgs, stop: CancellationToken) {
    // Closed loop when there is no rate: the shortest interval there is.
    let pause = match args.rate {
        0 => Duration::from_nanos(1),
        rate => Duration::from_secs(1) * args.callers / rate,
    };
    // Callers that begin at once would go on in step.
    tokio::time::sleep(pause.mul_f64(rng.f64())).await;
    let mut pace = interval(pause);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut paused = desk.paused.subscribe();
    while !stop.is_cancelled() {
        // The desk has the sender.
        let _ = paused.wait_for(|paused| !paused).await;
        if args.rate > 0 {
            pace.tick().await;
        }
        let asked = if rng.f64() * 100.0 < args.traps {
            Asked::Trap(trap::draw(&mut rng))
        } else {
            Asked::Fib(oracle::draw(&mut rng, args.hits))
        };
        let timeout_ms = pick(&mut rng, HASTY, PATIENT);
        let cache = pick(&mut rng, UNCACHED, CacheUse::Normal);
        call(&desk, asked, timeout_ms, cache, false).await;
    }
}

fn pick<T>(rng: &mut Rng, choices: impl IntoIterator<Item = (u64, T)>, otherwise: T) -> T {
    let mut ticket = rng.u64(0..100);
    for (share, choice) in choices {
        if ticket < share {
            return choice;
        }
        ticket -= share;
    }
    otherwise
}

async fn call(desk: &Desk, asked: Asked, timeout_ms: u64, cache: CacheUse, stored: bool) {
    let patience = Duration::from_millis(timeout_ms);
    let mut options = CallOptions::within(patience);
    options.cache = cache;
    desk.begun.fetch_add(1, Ordering::Relaxed);
    let start = Instant::now();
    let judge = |source: Source, answer: &str| desk.oracle.judge(asked, source.as_str(), answer);
    let called = async {
        match asked {
            Asked::Fib(n) => {
                let answered = desk.client.call_with(N(n), options).await?;
                Ok(judge(answered.source, answered.answer.as_str()))
            }
            Asked::Trap(n) => {
                let answered = desk.traps.call_with(n, options).await?;
                Ok(judge(answered.source, &answered.answer))
            }
        }
    };
    let called: Result<Result<Outcome, Error>, _> = timeout(patience + GIVE_UP, called).await;
    let end = Instant::now();
    let outcome = match called {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(error)) => Outcome::Failed(error.code().to_owned(), error.to_string()),
        Err(_) => Outcome::Lost,
    };
    let stored = stored.then(|| micros(desk.ticker.within(start, start + oracle::BUDGET)));
    let mut late = oracle::late(end - start, patience, Duration::ZERO);
    if !late.is_zero() {
        let stalls = desk.ticker.since(start + patience).await;
        late = oracle::late(end - start, patience, stalls);
    }
    let call = Call {
        start: desk.clock.micros(start),
        end: desk.clock.micros(end),
        timeout_ms,
        asked,
        cached: cache == CacheUse::Normal,
        stored,
        late: micros(late),
        outcome,
    };
    desk.ended.lock().expect("nobody panics with it").push(call);
}

async fn report_on(desk: Arc<Desk>) {
    let mut next = interval(REPORT_EVERY);
    loop {
        next.tick().await;
        print(&desk, false);
    }
}

fn print(desk: &Desk, last: bool) {
    let batch = Batch {
        calls: std::mem::take(&mut *desk.ended.lock().expect("nobody panics with it")),
        begun: desk.begun.load(Ordering::Relaxed),
        stall: micros(desk.ticker.worst()),
        last,
    };
    let mut line = serde_json::to_vec(&batch).expect("plain data");
    line.push(b'\n');
    // Nobody reads any more when the driver is gone; then stdin tells.
    let _ = std::io::stdout().lock().write_all(&line);
}
