//! `rpcache bench`, as typed.

use std::time::Duration;

use clap::{Args as Group, ValueEnum};
use rpcache::{CallOptions, ClientOptions};

use super::{Broker, Caching, Local, Target, call};
use crate::values::{duration, share, skew};

#[derive(Debug, Group)]
#[command(after_help = "\
Arguments are whole numbers, whatever the procedure.

Without --rate, each task makes its next call when the last one has ended (closed
loop): a stall then holds up the load, too, and shows in few latencies only. With
--rate, calls are due at even intervals whatever happens (open loop), --concurrency
is how many may be under way at once, and a latency counts from when the call was
due. What is still waiting for its turn when the time is up is told as not started.

Latencies are those of answered calls. Whether all tasks had their share, percentiles
do not show: hence `slowest task`, the calls of the one that made the fewest.

--hits 0.9 stores the answers for all --keys first; then nine calls of ten ask for
those, and one for an argument that this run has not asked for: the numbers after
the keys, each once. They are misses as far as nobody has stored them before: an
earlier run may have, so have a look at the sources. They grow; above the workers'
--max-n they fail as too-large. Nothing is removed from the cache before or after.

Up to n = 1000 workers compute without a lease: there, callers in several processes
may have one number computed several times.

A failure before anything was answered ends it. Ctrl-C ends it, too, and what was
measured is told.

Exit codes: 0 all calls were answered; otherwise that of the first failure, or 130
after Ctrl-C.")]
#[expect(clippy::struct_excessive_bools, reason = "flags, as they are typed")]
pub(crate) struct Bench {
    #[command(flatten)]
    pub(crate) target: Target,

    /// Calls under way at once, each made by a task of its own
    #[arg(short, long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    pub(crate) concurrency: u16,

    /// Calls a second, due at even intervals [default: as fast as they are answered]
    #[arg(short, long, value_name = "R", value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub(crate) rate: Option<u32>,

    /// For how long: 500ms, 3s, 2m; a bare number is seconds
    #[arg(short, long, value_name = "DURATION", default_value = "10s", value_parser = duration)]
    pub(crate) duration: Duration,

    /// Stop after so many calls instead
    #[arg(long, value_name = "N", conflicts_with = "duration", value_parser = clap::value_parser!(u64).range(1..=1_000_000_000_000))]
    pub(crate) calls: Option<u64>,

    /// Distinct arguments, from --first on
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) keys: u32,

    /// The smallest argument
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u64).range(..=u64::from(u32::MAX)))]
    pub(crate) first: u64,

    /// Which of them a call asks for
    #[arg(long, value_enum, default_value_t = Distribution::Uniform)]
    pub(crate) distribution: Distribution,

    /// Of zipf: the kth argument is asked for in proportion to 1/k^S
    #[arg(long, value_name = "S", default_value = "1", allow_negative_numbers = true, value_parser = skew)]
    pub(crate) skew: f64,

    /// This share of the calls, 0 to 1, asks for keys that were stored before the start, the rest
    /// for arguments that were not asked for yet [default: none is stored before]
    #[arg(long, value_name = "SHARE", allow_negative_numbers = true, value_parser = share, conflicts_with_all = ["no_cache", "refresh"])]
    pub(crate) hits: Option<f64>,

    /// Draws the arguments: the same seed asks for the same ones [default: a new one each time]
    #[arg(long, value_name = "N")]
    pub(crate) seed: Option<u64>,

    /// The most that each answer may take: 500ms, 3s, 2m; a bare number is seconds
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = duration)]
    timeout: Duration,

    /// If nobody serves the queue, wait for a worker to come
    #[arg(long)]
    wait: bool,

    /// Leave the cache alone: neither look nor store, here and in the worker
    #[arg(long, conflicts_with = "refresh")]
    no_cache: bool,

    /// Do not look in the cache, but store the computed answer there
    #[arg(long)]
    refresh: bool,

    /// The report as a JSON object
    #[arg(long)]
    pub(crate) json: bool,

    #[command(flatten)]
    broker: Broker,

    #[command(flatten)]
    caching: Caching,

    #[command(flatten)]
    local: Local,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Distribution {
    /// Each as likely as any other
    Uniform,
    /// One after the other, and round again
    Sequential,
    /// The first most often, as popularity goes
    Zipf,
}

impl Bench {
    pub(crate) fn call_options(&self) -> CallOptions {
        let mut options = CallOptions::within(self.timeout);
        options.wait = self.wait;
        options.cache = call::cache_use(self.no_cache, self.refresh);
        options
    }

    pub(crate) fn client_options(self) -> ClientOptions {
        let mut options = call::client_options(self.broker, self.caching);
        options.local = self.local.options();
        options
    }
}
