//! The options of `rpcache bench`.

use std::time::Duration;

use clap::{Args as Group, ValueEnum};
use rpcache::{CallOptions, ClientOptions};

use super::{Broker, Caching, Local, Target, call};
use crate::values::{duration, share, skew};

#[derive(Debug, Group)]
#[command(after_help = "\
The arguments are whole numbers, for any procedure.

Without --rate, each task starts its next call when the last one has ended (closed
loop). A stall then also stops the load, and few latencies show it. With --rate, calls
are due at even intervals (open loop), --concurrency limits the calls in flight, and
a latency counts from the time when the call was due. Calls that are still waiting
when the time is up are reported as not started.

Latencies are those of answered calls. Percentiles do not show whether a task starved:
`slowest task` does. It is the number of calls of the task that made the fewest.

--hits 0.9 first stores the answers for all --keys. Then nine calls of ten ask for
these keys, and one asks for a new argument: the numbers after the keys, each once.
New arguments are misses unless an earlier run has stored them: compare the sources.
They grow, and fail as too-large above the workers' --max-n. Nothing is removed from
the cache.

Up to n = 1000, workers compute without a lease: calls in several processes may then
compute one number several times.

If no call has been answered, the first failure ends the run. Ctrl-C ends it and
prints the report.

Exit codes: 0 all calls were answered; otherwise that of the first failure, or 130
after Ctrl-C.")]
#[expect(clippy::struct_excessive_bools, reason = "flags, as they are typed")]
pub(crate) struct Bench {
    #[command(flatten)]
    pub(crate) target: Target,

    /// Number of tasks, each with one call in flight
    #[arg(short, long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    pub(crate) concurrency: u16,

    /// Calls per second, due at even intervals [default: as fast as they are answered]
    #[arg(short, long, value_name = "R", value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub(crate) rate: Option<u32>,

    /// Duration of the run: 500ms, 3s, 2m; a bare number is seconds
    #[arg(short, long, value_name = "DURATION", default_value = "10s", value_parser = duration)]
    pub(crate) duration: Duration,

    /// Number of calls, in place of a duration
    #[arg(long, value_name = "N", conflicts_with = "duration", value_parser = clap::value_parser!(u64).range(1..=1_000_000_000_000))]
    pub(crate) calls: Option<u64>,

    /// Number of distinct arguments, counting from --first
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) keys: u32,

    /// The smallest argument
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u64).range(..=u64::from(u32::MAX)))]
    pub(crate) first: u64,

    /// How a call chooses its argument
    #[arg(long, value_enum, default_value_t = Distribution::Uniform)]
    pub(crate) distribution: Distribution,

    /// With zipf, the kth argument has the weight 1/k^S
    #[arg(long, value_name = "S", default_value = "1", allow_negative_numbers = true, value_parser = skew)]
    pub(crate) skew: f64,

    /// Store the keys first, and ask for them in this share of the calls, 0 to 1; the other calls ask
    /// for new arguments [default: store nothing first]
    #[arg(long, value_name = "SHARE", allow_negative_numbers = true, value_parser = share, conflicts_with_all = ["no_cache", "refresh"])]
    pub(crate) hits: Option<f64>,

    /// Seed of the random arguments: the same seed gives the same arguments [default: random]
    #[arg(long, value_name = "N")]
    pub(crate) seed: Option<u64>,

    /// Time limit of each call: 500ms, 3s, 2m; a bare number is seconds
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = duration)]
    timeout: Duration,

    /// If no worker serves the queue, wait for one; a broker that is down is not waited for
    #[arg(long)]
    wait: bool,

    /// Do not use the cache: no lookup and no store, here and in the worker
    #[arg(long, conflicts_with = "refresh")]
    no_cache: bool,

    /// Compute the answer anew, without a lookup, and store it
    #[arg(long)]
    refresh: bool,

    /// Print the report as a JSON object
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
    /// All equally likely
    Uniform,
    /// In order, again and again
    Sequential,
    /// The first most often, by Zipf's law
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
