//! `rpcache bench`: many tasks call for a while; then a report says how that went.
//!
//! A [`Load`] says what each call asks for, a [`Pace`] when it is due, a [`Tally`] counts what became
//! of it; the [`Report`] is made of these three when the run has ended, also when it was ended early.

mod live;
mod load;
mod pace;
mod report;
mod tally;
mod zipf;

use std::sync::Arc;

use futures_util::{StreamExt as _, stream};
use rpcache::{CallOptions, Client};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use self::live::Live;
use self::load::Load;
use self::pace::Pace;
use self::report::{Report, Setting};
use self::tally::Tally;
use crate::args;
use crate::output::Failure;
use crate::procedure::Called;

/// What the tasks of a run share.
struct Run {
    client: Client<Called>,
    options: CallOptions,
    load: Load,
    pace: Pace,
    tally: Tally,
    /// Nothing but failures: nobody needs more of them.
    hopeless: CancellationToken,
}

pub(crate) async fn run(bench: args::Bench) -> Result<(), Failure> {
    let setting = Setting::new(&bench);
    let load = Load::new(&bench, setting.seed());
    let (pace, tally) = (Pace::new(&bench), Tally::new(bench.concurrency));
    let (options, json) = (bench.call_options(), bench.json);
    let client = Client::new(bench.target.called()?, bench.client_options());
    if setting.stores_keys() {
        tokio::select! {
            stored = store_keys(&client, &load, options) => stored?,
            Ok(()) = tokio::signal::ctrl_c() => return Err(Failure::interrupted()),
        }
    }
    let run = Arc::new(Run {
        client,
        options,
        load,
        pace,
        tally,
        hopeless: CancellationToken::new(),
    });
    let mut ended = call_all(&run).await;
    let failure = run.tally.first_failure().map(Failure::from);
    if run.tally.is_hopeless() {
        return failure.map_or(ended, Err);
    }
    let report = Report::of(&run, setting, ended.is_err())?;
    report.print(json)?;
    if let (Ok(()), Some(failure)) = (&ended, failure) {
        ended = Err(failure);
    }
    run.client.clone().close().await;
    ended
}

/// Has all keys stored before the start.
async fn store_keys(
    client: &Client<Called>,
    load: &Load,
    options: CallOptions,
) -> Result<(), Failure> {
    let keys = stream::iter(load.keys()).map(|n| ((), Ok(n.to_string())));
    let mut answers = std::pin::pin!(client.call_many(keys, options));
    while let Some(((), answered)) = answers.next().await {
        if !answered?.stored {
            return Err(Failure::new(1, "the keys cannot be stored in Redis"));
        }
    }
    Ok(())
}

/// Calls until the run has ended by itself or by a signal.
async fn call_all(run: &Arc<Run>) -> Result<(), Failure> {
    let mut tasks = JoinSet::new();
    run.pace.start();
    for task in 0..run.tally.tasks() {
        let run = Arc::clone(run);
        tasks.spawn(async move { call_in_turn(&run, task).await });
    }
    let pacing = Arc::clone(run);
    // A thread's sleep is some 20 times as exact as a timer of the runtime.
    tokio::task::spawn_blocking(move || pacing.pace.release());
    let all_ended = async { while tasks.join_next().await.is_some() {} };
    tokio::select! {
        () = all_ended => Ok(()),
        () = run.hopeless.cancelled() => Ok(()),
        () = Live::show(run) => Ok(()),
        Ok(()) = tokio::signal::ctrl_c() => Err(Failure::interrupted()),
    }
}

/// One task: one call after the other.
async fn call_in_turn(run: &Run, task: usize) {
    while let Some(turn) = run.pace.turn().await {
        let argument = run.load.argument(turn.number);
        let ended = run
            .client
            .call_with(argument.to_string(), run.options)
            .await;
        run.tally.count(task, turn.since.elapsed(), ended);
        if run.tally.is_hopeless() {
            run.hopeless.cancel();
        }
    }
}
