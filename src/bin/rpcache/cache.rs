//! `rpcache cache`: lists, prints, checks and removes stored answers. One file per subcommand.
//!
//! Keys are read page by page, so memory is bounded and Redis serves others between two pages. Everything that comes
//! from Redis is escaped before it is printed.

mod explain;
mod get;
mod ls;
mod rm;
mod stats;
mod ttl;
mod verify;

use std::io::{self, Write};

use serde::Serialize;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::args::{self, CacheAction};
use crate::interrupt;
use crate::output::Failure;
use crate::procedure::Arguments;

/// Number of keys in one round trip.
const BATCH: usize = 1000;

pub(crate) async fn run(cache: args::Cache) -> Result<(), Failure> {
    let mut interrupts = Interrupts::listen()?;
    match cache.action {
        CacheAction::Get(args) => interrupts.or(get::run(args)).await,
        CacheAction::Ls(args) => interrupts.or(ls::run(args)).await,
        CacheAction::Ttl(args) => interrupts.or(ttl::run(args)).await,
        CacheAction::Stats(args) => interrupts.or(stats::run(args)).await,
        CacheAction::Explain(args) => interrupts.or(explain::run(args)).await,
        // These print their counts after an interrupt, too.
        CacheAction::Rm(args) => rm::run(args, interrupts).await,
        CacheAction::Verify(args) => verify::run(args, interrupts).await,
    }
}

/// Receives Ctrl-C. An interrupt that comes while no future is awaited takes effect at the next one.
struct Interrupts(Signal);

impl Interrupts {
    fn listen() -> Result<Self, Failure> {
        let signal = signal(SignalKind::interrupt());
        interrupt::watch_in_thread();
        signal
            .map(Self)
            .map_err(|error| Failure::new(1, format!("cannot listen for signals: {error}")))
    }

    /// Runs `work` until it ends or an interrupt comes.
    async fn or<T, E: Into<Failure>>(
        &mut self,
        work: impl Future<Output = Result<T, E>>,
    ) -> Result<T, Failure> {
        tokio::select! {
            biased;
            Some(()) = self.0.recv() => Err(Failure::interrupted()),
            ended = work => ended.map_err(Into::into),
        }
    }
}

/// Splits the arguments into batches of one round trip each.
fn batches(arguments: Vec<Arguments>) -> impl Iterator<Item = Vec<String>> {
    let mut arguments = arguments.into_iter().flatten();
    std::iter::from_fn(move || {
        let batch: Vec<_> = arguments.by_ref().take(BATCH).collect();
        (!batch.is_empty()).then_some(batch)
    })
}

/// Whether there may be several answers. Then each is printed beside its argument.
fn are_many(arguments: &[Arguments]) -> bool {
    arguments.len() > 1 || arguments.iter().any(Arguments::is_range)
}

/// Writes a JSON object in one line.
fn json(out: &mut impl Write, object: &impl Serialize) -> io::Result<()> {
    serde_json::to_writer(&mut *out, object)?;
    writeln!(out)
}

/// The JSON object for an argument without an answer.
#[derive(Serialize)]
struct Problem {
    argument: String,
    error: String,
}
