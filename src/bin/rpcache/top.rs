//! `rpcache top`: shows queue, workers and keys on a screen that is refreshed, or prints one snapshot.
//!
//! `sources` polls the servers, `history` computes rates from two polls, `snapshot` holds the result, `standstill` says
//! why nothing is answered, and `view` formats it all, for the `screen` and for text.

mod history;
mod keys;
mod screen;
mod snapshot;
mod sources;
mod standstill;
mod view;

use std::io::{self, IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use rpcache::Error;
use tokio::time::sleep;

use self::history::History;
use self::snapshot::Snapshot;
use self::sources::Sources;
use self::view::View;
use crate::args::Top;
use crate::output::{Failure, is_local};

/// Time in which every worker announces itself: the interval of 2 s, and some delay.
const ANNOUNCED_WITHIN: Duration = Duration::from_millis(2600);

/// Time between two polls for a worker's next announcement.
const POLL_EVERY: Duration = Duration::from_millis(200);

/// Width without a terminal.
const COLUMNS: u16 = 120;
/// Smallest width that the view is made for.
const MIN_COLUMNS: u16 = 40;

pub(crate) async fn run(args: Top) -> Result<(), Failure> {
    let (interval, json, on_screen) = (args.interval, args.json, args.shows_screen());
    let history = History::new(args.queue(), args.namespace(), interval);
    let (cache, queues) = args.open();
    let sources = Sources { cache, queues };
    if on_screen {
        return screen::run(sources, history, interval).await;
    }
    let snapshot = tokio::select! {
        snapshot = poll_twice(sources, history, interval) => snapshot?,
        // Without a handler, the signal ends the process by itself.
        Ok(()) = tokio::signal::ctrl_c() => return Err(Failure::interrupted()),
    };
    let mut out = io::stdout().lock();
    if json {
        serde_json::to_writer(&mut out, &snapshot).map_err(io::Error::from)?;
        writeln!(out)?;
    } else {
        let text = View::default().text(&snapshot, columns());
        out.write_all(text.as_bytes())?;
    }
    Ok(())
}

/// Width of the terminal, or the default.
fn columns() -> u16 {
    if !io::stdout().is_terminal() {
        return COLUMNS;
    }
    crossterm::terminal::size().map_or(COLUMNS, |(columns, _)| columns.max(MIN_COLUMNS))
}

/// Polls twice, so that the snapshot has rates.
async fn poll_twice(
    mut sources: Sources,
    mut history: History,
    interval: Duration,
) -> Result<Snapshot, Failure> {
    for pause in [Duration::ZERO, interval] {
        sleep(pause).await;
        let (redis, queues) =
            tokio::join!(sources::poll_redis(&sources.cache), sources.queues.look());
        history.redis(redis);
        history.queues(queues);
        if let Some((redis, broker)) = history.both_down() {
            return Err(both_down(redis, broker));
        }
    }
    let late = Instant::now() + ANNOUNCED_WITHIN.saturating_sub(interval);
    while history.awaits_announcements() && Instant::now() < late {
        sleep(POLL_EVERY).await;
        history.workers(sources.cache.workers().await, Instant::now());
    }
    sources.queues.leave().await;
    Ok(history.snapshot(Instant::now()))
}

/// The failure when both servers are down. A remedy that is the same for both is given once.
fn both_down(redis: &Error, broker: &Error) -> Failure {
    let same = [redis, broker]
        .map(|error| matches!(error, Error::Unreachable { server, .. } if is_local(server)))
        == [true; 2];
    let first = if same {
        redis.to_string()
    } else {
        let failure = Failure::from(redis.clone());
        failure.message().unwrap_or_default().to_owned()
    };
    let second = Failure::from(broker.clone());
    Failure::new(
        3,
        format!("{first}; {}", second.message().unwrap_or_default()),
    )
}
