//! One run of the campaign: starts servers, workers and clients, injects the planned faults, and returns the report.

use std::sync::Arc;

use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::args::Args;
use crate::call::Clock;
use crate::clients::Clients;
use crate::excuse::Excuse;
use crate::fleet::Fleet;
use crate::inject::Injector;
use crate::ledger::Ledger;
use crate::oracle::Oracle;
use crate::plan::LEAD_IN;
use crate::progress::Progress;
use crate::report::Report;
use crate::self_test;
use crate::shutdown;
use crate::stall::Ticker;
use crate::support::lifetime;
use crate::timeline::Timeline;
use crate::usage::{Growth, Usage};

pub(crate) async fn run(args: &Args, seed: u64) -> Result<Report, String> {
    let length = args.length();
    let lanes = args.plan(seed);
    let answers = lifetime::folder("oracle").join("answers");
    let oracle = Oracle::compute();
    self_test::run(&oracle);
    oracle.write(&answers).map_err(|error| error.to_string())?;
    let fleet = Arc::new(Fleet::start(args).await?);
    fleet.serving().await;

    let clock = Clock::new();
    let timeline = Arc::new(Timeline::new(clock));
    let excuse = Excuse::of(args.topology(), args.apart);
    let ledger = Ledger::new(clock, Arc::clone(&timeline), excuse, Ticker::start());
    let ledger = Arc::new(ledger);
    let began = Instant::now();
    let clients = Clients::start(&fleet, &ledger, args, seed, &answers)?;
    let progress = Progress::start(&ledger, &timeline, length);
    let stop = stop_on_signal()?;
    let injector = Injector {
        fleet: Arc::clone(&fleet),
        timeline: Arc::clone(&timeline),
        ledger: Arc::clone(&ledger),
        instructions: clients.instructions(),
        stop: stop.clone(),
    };
    let follow = |lane| tokio::spawn(injector.clone().follow(lane, began));
    let lanes: Vec<_> = lanes.into_iter().map(follow).collect();

    or_stopped(&stop, began + LEAD_IN.min(length)).await;
    let start = usages(&fleet, &clients);
    or_stopped(&stop, began + length).await;
    let interrupted = stop.is_cancelled();
    stop.cancel();
    for lane in lanes {
        lane.await
            .map_err(|error| format!("a lane of faults: {error}"))?;
    }
    let took = began.elapsed();
    let end = usages(&fleet, &clients);
    clients.end(&ledger).await;
    progress.end();
    drop(injector);
    shutdown::run(fleet, &ledger, args.logs.as_deref()).await;

    let growths = start
        .into_iter()
        .zip(end)
        .map(|((name, start), (_, end))| Growth { name, start, end })
        .collect();
    Ok(Report {
        seed,
        took,
        interrupted,
        growths,
        ledger,
        timeline,
    })
}

/// Cancelled by Ctrl-C and SIGTERM: the run then ends as if its time had passed.
fn stop_on_signal() -> Result<CancellationToken, String> {
    let listen = |kind| signal(kind).map_err(|error| error.to_string());
    let (mut interrupt, mut terminate) = (
        listen(SignalKind::interrupt())?,
        listen(SignalKind::terminate())?,
    );
    let stop = CancellationToken::new();
    let stopping = stop.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        stopping.cancel();
        // A second signal ends the driver at once; the watchdog cleans up.
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        std::process::exit(130);
    });
    Ok(stop)
}

/// Sleeps until `until`, or until the run is stopped.
async fn or_stopped(stop: &CancellationToken, until: Instant) {
    tokio::select! {
        () = sleep_until(until) => {}
        () = stop.cancelled() => {}
    }
}

fn usages(fleet: &Fleet, clients: &Clients) -> Vec<(String, Option<Usage>)> {
    let mut usages = Vec::new();
    for (number, worker) in fleet.workers.iter().enumerate() {
        // While a fault is injected into a worker, its lane holds the lock: no figures of that worker.
        let usage = worker
            .try_lock()
            .ok()
            .and_then(|worker| Usage::of(worker.id()?));
        usages.push((format!("worker {number}"), usage));
    }
    for (number, process) in clients.ids().enumerate() {
        usages.push((format!("client {number}"), process.and_then(Usage::of)));
    }
    usages
}
