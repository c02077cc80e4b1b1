//! The options of `rpcache call` and `rpcache warm`.

use std::time::Duration;

use clap::Args as Group;
use rpcache::{CacheUse, CallOptions, ClientOptions};

use super::{ArgumentStream, Broker, Caching, Local};
use crate::values::duration;

#[derive(Debug, Group)]
#[command(after_help = "\
With several arguments, calls run side by side, and answers are printed in the order
of the arguments. The first failure ends the command, with its exit code.

A single answer is written to stdout as it is; text gets a final line break. On a
terminal, and beside its argument, control characters are escaped. Answers of fib are
verified; those of other procedures cannot be.

The source of an answer is `cache`, `computed`, or `shared`: another call for the
same argument was in flight. With --local-cache, which is for many arguments, it may
be `local`: a copy in this process, a minute old at most. Answers that `rpcache cache
rm` removes are dropped here within a second; a plain DEL is not noticed.

--trace takes one argument, and prints when each step began and how long it took.
Workers report the durations of their own steps. The rest of the time between request
and reply is shown as queue and network, because clocks of two machines are not
compared; the time to publish overlaps with it.")]
#[expect(clippy::struct_excessive_bools, reason = "flags, as they are typed")]
pub(crate) struct Call {
    #[command(flatten)]
    pub(crate) arguments: ArgumentStream,

    /// Go on after a failure; the exit code is that of the first failure
    #[arg(long)]
    pub(crate) keep_going: bool,

    /// Time limit of each call: 500ms, 3s, 2m; a bare number is seconds
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = duration)]
    pub(crate) timeout: Duration,

    /// If no worker serves the queue, wait for one; a broker that is down is not waited for
    #[arg(long)]
    pub(crate) wait: bool,

    /// Do not use the cache: no lookup and no store, here and in the worker
    #[arg(long, conflicts_with = "refresh")]
    pub(crate) no_cache: bool,

    /// Compute the answer anew, without a lookup, and store it
    #[arg(long)]
    pub(crate) refresh: bool,

    /// Print on stderr how long each step of the call took, in the worker, too; with --json the steps
    /// are in `trace`
    #[arg(long)]
    pub(crate) trace: bool,

    /// Print one JSON object per line: `argument`, `answer` (`answer_base64` if it is not UTF-8),
    /// `source`, `elapsed_ms`; or `argument`, `error`
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
Stored answers that pass the check are left as they are; workers compute the others.
An answer is counted as stored only if Redis has it.

Exit codes: 0 all answers are in the cache; otherwise that of the first failure, or
1 if answers were computed but could not be stored.")]
pub(crate) struct Warm {
    #[command(flatten)]
    pub(crate) arguments: ArgumentStream,

    /// Time limit of each call: 500ms, 3s, 2m; a bare number is seconds
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = duration)]
    timeout: Duration,

    /// If no worker serves the queue, wait for one; a broker that is down is not waited for
    #[arg(long)]
    wait: bool,

    /// Print the summary as a JSON object
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
        // A single call has no use for copies.
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

/// The use of the cache that `--no-cache` and `--refresh` select.
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
