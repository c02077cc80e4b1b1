//! `rpcache cache`: what Redis holds, looked at, checked and tidied up. One file a subcommand.
//!
//! However many keys there are, a page of them is held at a time, and Redis serves others between
//! two pages. Whatever Redis holds is escaped before it is printed.

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

/// Keys that are asked for in one round trip.
const AT_ONCE: usize = 1000;

pub(crate) async fn run(cache: args::Cache) -> Result<(), Failure> {
    let mut interrupts = Interrupts::listen()?;
    match cache.action {
        CacheAction::Get(args) => interrupts.or(get::run(args)).await,
        CacheAction::Ls(args) => interrupts.or(ls::run(args)).await,
        CacheAction::Ttl(args) => interrupts.or(ttl::run(args)).await,
        CacheAction::Stats(args) => interrupts.or(stats::run(args)).await,
        CacheAction::Explain(args) => interrupts.or(explain::run(args)).await,
        // These say how far they came.
        CacheAction::Rm(args) => rm::run(args, interrupts).await,
        CacheAction::Verify(args) => verify::run(args, interrupts).await,
    }
}

/// Ctrl-C. One that comes while nobody looks is not lost.
struct Interrupts(Signal);

impl Interrupts {
    fn listen() -> Result<Self, Failure> {
        let signal = signal(SignalKind::interrupt());
        interrupt::insist();
        signal
            .map(Self)
            .map_err(|error| Failure::new(1, format!("cannot listen for signals: {error}")))
    }

    /// Runs `work` to its end or to the next interrupt.
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

/// The arguments, in parts that fit into one round trip.
fn at_once(arguments: Vec<Arguments>) -> impl Iterator<Item = Vec<String>> {
    let mut arguments = arguments.into_iter().flatten();
    std::iter::from_fn(move || {
        let part: Vec<_> = arguments.by_ref().take(AT_ONCE).collect();
        (!part.is_empty()).then_some(part)
    })
}

/// Whether answers need their arguments beside them.
fn are_many(arguments: &[Arguments]) -> bool {
    arguments.len() > 1 || arguments.iter().any(Arguments::is_range)
}

/// One JSON object in a line.
fn json(out: &mut impl Write, object: &impl Serialize) -> io::Result<()> {
    serde_json::to_writer(&mut *out, object)?;
    writeln!(out)
}

/// Why there is no answer for one argument.
#[derive(Serialize)]
struct Problem {
    argument: String,
    error: String,
}
