//! `rpcache bench`: many tasks make calls for a while; then a report is printed.
//!
//! A [`Load`] chooses the argument of each call, a [`Pace`] decides when it is due, a [`Tally`] counts the outcomes.
//! The [`Report`] is computed from these three at the end of the run, also after an interrupt.

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

/// The state that the tasks of a run share.
struct Run {
    client: Client<Called>,
    options: CallOptions,
    load: Load,
    pace: Pace,
    tally: Tally,
    /// Cancelled if calls fail and none is answered: then the run ends.
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

/// Stores the answers for all keys before the start.
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

/// Makes calls until the run ends by itself or by a signal.
async fn call_all(run: &Arc<Run>) -> Result<(), Failure> {
    let mut tasks = JoinSet::new();
    run.pace.start();
    for task in 0..run.tally.tasks() {
        let run = Arc::clone(run);
        tasks.spawn(async move { call_in_turn(&run, task).await });
    }
    let pacing = Arc::clone(run);
    // On a thread, whose sleep is about 20 times as exact as a timer of the runtime.
    tokio::task::spawn_blocking(move || pacing.pace.release());
    let all_ended = async { while tasks.join_next().await.is_some() {} };
    tokio::select! {
        () = all_ended => Ok(()),
        () = run.hopeless.cancelled() => Ok(()),
        () = Live::show(run) => Ok(()),
        Ok(()) = tokio::signal::ctrl_c() => Err(Failure::interrupted()),
    }
}

/// Makes the calls of one task, one after the other.
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
