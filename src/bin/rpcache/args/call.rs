//! `rpcache call` and `rpcache warm`, as typed.

use std::time::Duration;

use clap::Args as Group;
use rpcache::{CacheUse, CallOptions, ClientOptions};

use super::{Broker, Caching, Local, Target};
use crate::values::duration;

#[derive(Debug, Group)]
#[command(after_help = "\
Many are asked for at once and printed in order, each as soon as it is there; the
first that fails ends it, with its exit code.

An answer is written to stdout as it is, with a line break behind it if it is text
without one. In a terminal, and beside its argument, control characters are escaped.
Answers of fib are checked; those of other procedures are believed.

The source of an answer is `cache`, `computed`, or `shared`: another call for the
same argument was already under way. With --local-cache, which is for many arguments,
it may be `local`: a copy that this process has had for a minute at most. What
`rpcache cache rm` removes is dropped here, too, within a second; DEL is not seen.

--trace takes one argument, and shows each step: when it began, and how long it took.
A worker of ours tells how long it was at it; the rest of the time between the
request and its reply is shown as queue and network, since clocks of two machines
are not compared. Publishing overlaps with that.")]
#[expect(clippy::struct_excessive_bools, reason = "flags, as they are typed")]
pub(crate) struct Call {
    /// What to ask for. For fib, and with --argument integer: numbers, and ranges that include both ends:
    /// 30, 0..100. - for the lines of stdin
    #[arg(
        required = true,
        value_name = "ARGUMENT",
        allow_negative_numbers = true
    )]
    pub(crate) arguments: Vec<String>,

    #[command(flatten)]
    pub(crate) target: Target,

    /// After one that fails, go on with the others; the exit code is the first failure's
    #[arg(long)]
    pub(crate) keep_going: bool,

    /// The most that each answer may take: 500ms, 3s, 2m; a bare number is seconds
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = duration)]
    pub(crate) timeout: Duration,

    /// If nobody serves the queue, wait for a worker to come
    #[arg(long)]
    pub(crate) wait: bool,

    /// Leave the cache alone: neither look nor store, here and in the worker
    #[arg(long, conflicts_with = "refresh")]
    pub(crate) no_cache: bool,

    /// Do not look in the cache, but store the computed answer there
    #[arg(long)]
    pub(crate) refresh: bool,

    /// Show on stderr where the time of this one call went, step by step, in the worker, too; with
    /// --json as `trace` in the object
    #[arg(long)]
    pub(crate) trace: bool,

    /// One JSON object a line: `argument`, `answer` (`answer_base64` if it is not UTF-8), `source`,
    /// `elapsed_ms`; or `argument`, `error`
    #[arg(long)]
    pub(crate) json: bool,

    #[command(flatten)]
    pub(crate) broker: Broker,

    #[command(flatten)]
    pub(crate) caching: Caching,

    #[command(flatten)]
    local: Local,
}

#[derive(Debug, Group)]
#[command(after_help = "\
Answers that are in the cache already, and pass the check, are left as they are;
the others are computed by workers. What is counted as stored is in Redis.

Exit codes: 0 all of them are in the cache; otherwise that of the first failure,
or 1 where only storing failed.")]
pub(crate) struct Warm {
    /// What to ask for. For fib, and with --argument integer: numbers, and ranges that include both ends:
    /// 30, 0..100. - for the lines of stdin
    #[arg(
        required = true,
        value_name = "ARGUMENT",
        allow_negative_numbers = true
    )]
    pub(crate) arguments: Vec<String>,

    #[command(flatten)]
    pub(crate) target: Target,

    /// The most that each answer may take: 500ms, 3s, 2m; a bare number is seconds
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = duration)]
    timeout: Duration,

    /// If nobody serves the queue, wait for a worker to come
    #[arg(long)]
    wait: bool,

    /// The summary as a JSON object
    #[arg(long)]
    pub(crate) json: bool,

    #[command(flatten)]
    broker: Broker,

    #[command(flatten)]
    caching: Caching,
}

impl Call {
    pub(crate) fn call_options(&self) -> CallOptions {
        let mut options = CallOptions::within(self.timeout);
        options.wait = self.wait;
        options.cache = cache_use(self.no_cache, self.refresh);
        options
    }

    pub(crate) fn client_options(self, one_shot: bool) -> ClientOptions {
        let mut options = client_options(self.broker, self.caching);
        options.one_shot = one_shot;
        // One call asks for nothing twice.
        options.local = self.local.options().filter(|_| !one_shot);
        options
    }
}

impl Warm {
    pub(crate) fn call_options(&self) -> CallOptions {
        let mut options = CallOptions::within(self.timeout);
        options.wait = self.wait;
        options
    }

    pub(crate) fn client_options(self) -> ClientOptions {
        client_options(self.broker, self.caching)
    }
}

/// What `--no-cache` and `--refresh` mean.
pub(super) fn cache_use(no_cache: bool, refresh: bool) -> CacheUse {
    match (no_cache, refresh) {
        (true, _) => CacheUse::Bypass,
        (false, true) => CacheUse::Refresh,
        (false, false) => CacheUse::Normal,
    }
}

pub(super) fn client_options(broker: Broker, caching: Caching) -> ClientOptions {
    let mut cache = caching.options();
    cache.wait_for_connection = true;
    let mut options = ClientOptions::new(broker.amqp_url, cache);
    options.queue = broker.queue;
    options
}
