//! A client process: one long-lived `Client`, many callers, and an oracle that judges each of their calls.
//! Prints the calls that ended on stdout. Ends when its stdin is closed, once every call has ended.

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
use crate::call::{Argument, Batch, Call, Clock, Instruction, Outcome, micros};
use crate::crasher::{self, Crasher};
use crate::oracle::{self, Oracle};
use crate::role;
use crate::stall::Ticker;

/// A call that has not ended this long after its deadline is lost.
const GIVE_UP: Duration = Duration::from_secs(10);
/// The timeout of most calls, in milliseconds: longer than any fault lasts.
pub(crate) const PATIENT: u64 = 30_000;
/// Percentages of calls with shorter timeouts.
const HASTY: [(u64, u64); 2] = [(8, 2000), (4, 200)];
/// Percentages of calls that bypass or refresh the cache.
const UNCACHED: [(u64, CacheUse); 2] = [(1, CacheUse::Bypass), (1, CacheUse::Refresh)];

const REPORT_EVERY: Duration = Duration::from_millis(100);

/// What all callers of the process share.
struct Shared {
    client: Client<Fibonacci>,
    crashers: Client<Crasher>,
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
    let shared = Arc::new(Shared {
        client: Client::new(Fibonacci::default(), options.clone()),
        crashers: Client::new(Crasher, options),
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
            Arc::clone(&shared),
            rng.fork(),
            args.clone(),
            stop.clone(),
        ));
    }
    let reports = tokio::spawn(report_on(Arc::clone(&shared)));
    // Until the driver closes the pipe, or has ended.
    let mut instructions = BufReader::new(tokio::io::stdin()).lines();
    while let Ok(Some(instruction)) = instructions.next_line().await {
        follow(&shared, &instruction).await;
    }
    stop.cancel();
    while callers.join_next().await.is_some() {}
    // Aborted between two reports only: a report awaits nothing.
    reports.abort();
    let _ = reports.await;
    print(&shared, true);
    if let Some(shared) = Arc::into_inner(shared) {
        tokio::join!(shared.client.close(), shared.crashers.close());
    }
}

/// Pauses all callers as long as the driver says; then calls with the arguments that it names.
async fn follow(shared: &Arc<Shared>, line: &str) {
    let instruction: Instruction = serde_json::from_str(line).expect("the driver's own");
    shared.paused.send_replace(instruction.pause_ms > 0);
    tokio::time::sleep(Duration::from_millis(instruction.pause_ms)).await;
    let cache = if instruction.stored {
        CacheUse::Normal
    } else {
        CacheUse::Bypass
    };
    let mut calls = tokio::task::JoinSet::new();
    for n in instruction.arguments {
        let shared = Arc::clone(shared);
        calls.spawn(async move {
            let argument = Argument::Fib(n);
            call(&shared, argument, PATIENT, cache, instruction.stored).await;
        });
    }
    shared.paused.send_replace(false);
    while calls.join_next().await.is_some() {}
}

/// One caller: makes the next call when the last one has ended, at its share of the rate at most.
async fn call_on(shared: Arc<Shared>, mut rng: Rng, args: ClientArgs, stop: CancellationToken) {
    // Without a rate, a closed loop: the shortest interval that is possible.
    let pause = match args.rate {
        0 => Duration::from_nanos(1),
        rate => Duration::from_secs(1) * args.callers / rate,
    };
    // Callers that start at the same moment would stay in step.
    tokio::time::sleep(pause.mul_f64(rng.f64())).await;
    let mut pace = interval(pause);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut paused = shared.paused.subscribe();
    while !stop.is_cancelled() {
        // Fails only without the sender, which `shared` has.
        let _ = paused.wait_for(|paused| !paused).await;
        if args.rate > 0 && stop.run_until_cancelled(pace.tick()).await.is_none() {
            return;
        }
        let argument = if rng.f64() * 100.0 < args.crashers {
            Argument::Crasher(crasher::draw(&mut rng))
        } else {
            Argument::Fib(oracle::draw(&mut rng, args.hits))
        };
        let drawn = pick(&mut rng, HASTY, PATIENT);
        let timeout_ms = args.timeout_ms.unwrap_or(drawn);
        let cache = pick(&mut rng, UNCACHED, CacheUse::Normal);
        call(&shared, argument, timeout_ms, cache, false).await;
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

async fn call(shared: &Shared, argument: Argument, timeout_ms: u64, cache: CacheUse, stored: bool) {
    let patience = Duration::from_millis(timeout_ms);
    let mut options = CallOptions::within(patience);
    options.cache = cache;
    shared.begun.fetch_add(1, Ordering::Relaxed);
    let start = Instant::now();
    let judge =
        |source: Source, answer: &str| shared.oracle.judge(argument, source.as_str(), answer);
    let called = async {
        match argument {
            Argument::Fib(n) => {
                let answered = shared.client.call_with(N(n), options).await?;
                Ok(judge(answered.source, answered.answer.as_str()))
            }
            Argument::Crasher(n) => {
                let answered = shared.crashers.call_with(n, options).await?;
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
    let stored = stored.then(|| micros(shared.ticker.within(start, start + oracle::BUDGET)));
    let mut late = oracle::late(end - start, patience, Duration::ZERO);
    if !late.is_zero() {
        let stalls = shared.ticker.since(start + patience).await;
        late = oracle::late(end - start, patience, stalls);
    }
    let call = Call {
        start: shared.clock.micros(start),
        end: shared.clock.micros(end),
        timeout_ms,
        argument,
        cached: cache == CacheUse::Normal,
        stored,
        late: micros(late),
        outcome,
    };
    shared
        .ended
        .lock()
        .expect("the lock is not poisoned")
        .push(call);
}

async fn report_on(shared: Arc<Shared>) {
    let mut next = interval(REPORT_EVERY);
    loop {
        next.tick().await;
        print(&shared, false);
    }
}

fn print(shared: &Shared, last: bool) {
    let batch = Batch {
        calls: std::mem::take(&mut *shared.ended.lock().expect("the lock is not poisoned")),
        begun: shared.begun.load(Ordering::Relaxed),
        stall: micros(shared.ticker.worst()),
        last,
    };
    let mut line = serde_json::to_vec(&batch).expect("plain data");
    line.push(b'\n');
    // Fails when the driver has ended; then stdin is closed, too.
    let _ = std::io::stdout().lock().write_all(&line);
}
