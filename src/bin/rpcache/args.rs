//! Defines the command line, and turns it into options of the library. Parsing has no effects.

mod access;
mod bench;
mod cache;
mod call;
mod doctor;
mod health;
mod install;
mod procedure;
mod top;
mod worker;

use std::time::Duration;

use clap::builder::Resettable;
use clap::{
    Args as Group, CommandFactory as _, FromArgMatches as _, Parser, Subcommand, ValueEnum,
};
use rpcache::inspect::KeyPattern;
use rpcache::{AmqpUrl, CacheOptions, LocalOptions, Namespace, ProcedureName, QueueName, RedisUrl};

pub(crate) use self::bench::{Bench, Distribution};
pub(crate) use self::cache::{
    Cache, CacheAction, CacheExplain, CacheGet, CacheLs, CacheRm, CacheStats, CacheTtl, CacheVerify,
};
pub(crate) use self::call::{Call, Warm};
pub(crate) use self::doctor::Doctor;
pub(crate) use self::health::Health;
pub(crate) use self::install::{Completions, Man, Shell};
pub(crate) use self::procedure::{ArgumentList, ArgumentStream, Target};
pub(crate) use self::top::Top;
pub(crate) use self::worker::Worker;
use crate::output::{Failure, misuse};
use crate::values::{Pattern, Ttl, duration, size};

const EXAMPLES: &str = "\
Examples:
  rpcache worker                  serve Fibonacci numbers; start any number of workers
  rpcache worker --procedure sha -- sha256sum
                                  serve any program, in any language
  rpcache call 30                 print 832040
  rpcache call 30 31 100..110     print many answers, in this order
  rpcache call --procedure factors 360
                                  call any procedure that a worker serves, in any language
  rpcache warm 0..100000          compute and store the answers that are missing
  rpcache bench                   measure calls with these servers and workers
  rpcache cache get 30            print the stored answer, as `redis-cli GET fib:30` does
  rpcache cache stats             count stored answers, lookups and workers
  rpcache doctor                  check everything that a call needs
  rpcache top                     watch the queue, the workers and the hottest keys

Exit codes:
  0 answered                    3 unreachable, refused, nobody serving, overloaded
  1 no answer; not in the cache 124 the time is up
  2 cannot be parsed            130 interrupted";

/// RPC over RabbitMQ with a Redis result cache in front of the workers.
#[derive(Debug, Parser)]
#[command(version, after_help = EXAMPLES, max_term_width = 100)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,

    /// Log more on stderr: -v at level debug, -vv at level trace
    #[arg(short, long, action = clap::ArgAction::Count, global = true)]
    pub(crate) verbose: u8,

    /// Format of the log on stderr
    #[arg(
        long,
        global = true,
        env = "RPCACHE_LOG_FORMAT",
        value_name = "FORMAT",
        value_enum,
        default_value_t
    )]
    pub(crate) log_format: LogFormat,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum LogFormat {
    /// json for a worker whose stderr is not a terminal, text otherwise
    #[default]
    Auto,
    /// Lines for people
    Text,
    /// One JSON object per line, for programs
    Json,
}

impl Args {
    /// The definition of the command line for clap. It does not depend on the environment.
    pub(crate) fn definition() -> clap::Command {
        Self::command()
    }

    pub(crate) fn parse_typed() -> clap::error::Result<Self> {
        let mut command = Self::command();
        if std::env::vars_os().any(|(_, value)| value.is_empty()) {
            // Subcommands are deferred: their arguments exist after building only.
            command.build();
            command = without_empty_variables(command);
        }
        Self::from_arg_matches(&command.try_get_matches()?)
    }
}

/// Treats a variable with an empty value, such as `RPCACHE_TTL= rpcache …`, as not set.
fn without_empty_variables(command: clap::Command) -> clap::Command {
    let command = command.mut_args(|arg| {
        let value = arg.get_env().and_then(std::env::var_os);
        if value.is_some_and(|value| value.is_empty()) {
            arg.env(Resettable::Reset)
        } else {
            arg
        }
    });
    command.mut_subcommands(without_empty_variables)
}

/// The subcommands. Each is defined in full only when it is typed, which makes a call start faster.
#[derive(Debug, Subcommand)]
#[command(defer = true)]
pub(crate) enum Command {
    /// Serve a procedure: take requests from the queue, compute, store the answers in Redis, reply
    Worker(Worker),
    /// Print answers, from the cache where it has them, otherwise from a worker
    Call(Call),
    /// Compute and store the answers that are not in the cache yet
    Warm(Warm),
    /// List, check and remove stored answers
    Cache(Cache),
    /// Measure calls: rate, latency, source of the answers
    Bench(Bench),
    /// Check everything that a call needs, and say how to fix what fails
    Doctor(Doctor),
    /// Watch the fleet: queue, workers and what they compute, rates, hottest and slowest keys
    Top(Top),
    /// Check that a worker takes requests, for health checks
    Health(Health),
    /// Print the script with which a shell completes commands and options
    Completions(Completions),
    /// Print a manual page
    Man(Man),
}

/// RabbitMQ's address, with password and certificates, and the request queue. The options are in [`access`].
#[derive(Debug)]
pub(crate) struct Broker {
    amqp_url: AmqpUrl,
    /// `None`: the queue named after the procedure.
    queue: Option<QueueName>,
}

/// Redis' address, with password and certificates, and the namespace. The options are in [`access`].
#[derive(Debug)]
pub(crate) struct Redis {
    redis_url: RedisUrl,
    namespace: Option<Namespace>,
}

#[derive(Debug, Group)]
pub(crate) struct Caching {
    #[command(flatten)]
    redis: Redis,

    /// TTL of a stored answer: 500ms, 30s, 5m, 24h, 7d, or none for ever. Each is shortened by up to 10 %
    /// at random, so that answers stored together do not expire together
    #[arg(
        long,
        env = "RPCACHE_TTL",
        value_name = "DURATION",
        default_value = "1d"
    )]
    ttl: Ttl,

    /// Size of the largest answer that is stored: 64kB, 1MB; a bare number is bytes [default: no limit]
    #[arg(
        long,
        env = "RPCACHE_MAX_CACHED_SIZE",
        value_name = "SIZE",
        value_parser = size
    )]
    max_cached_size: Option<usize>,

    /// Time limit for all lookups of one call in Redis, in the client and in the worker each. A command
    /// that has just started waits up to 500ms more for its connection
    #[arg(
        long,
        env = "RPCACHE_CACHE_BUDGET",
        value_name = "DURATION",
        default_value = "50ms"
    )]
    #[arg(value_parser = duration)]
    cache_budget: Duration,
}

#[derive(Debug, Group)]
pub(crate) struct Local {
    /// Keep copies of answers in the memory of this process, up to SIZE in all: 500kB, 64MB; a bare
    /// number is bytes [default: no copies]
    #[arg(long, value_name = "SIZE", value_parser = size)]
    local_cache: Option<usize>,
}

impl Local {
    pub(crate) fn options(&self) -> Option<LocalOptions> {
        let size = self.local_cache.filter(|&size| size > 0);
        size.map(LocalOptions::new)
    }
}

impl Redis {
    /// The procedure's name as it stands in keys: with the namespace.
    pub(crate) fn qualified(&self, procedure: &ProcedureName) -> String {
        match &self.namespace {
            Some(namespace) => format!("{namespace}:{procedure}"),
            None => procedure.to_string(),
        }
    }

    /// The glob for keys of this procedure, without the prefix that may have been typed. All keys by default.
    pub(crate) fn glob(
        &self,
        procedure: &ProcedureName,
        pattern: Option<Pattern>,
    ) -> Result<KeyPattern, Failure> {
        let prefixes = [self.qualified(procedure), procedure.to_string()];
        let prefixes = prefixes.map(|name| name + ":");
        let glob = pattern.map(|pattern| pattern.after(&prefixes)).transpose();
        glob.map(Option::unwrap_or_default)
            .map_err(|message| misuse(&message))
    }

    pub(crate) fn options(self) -> CacheOptions {
        let mut options = CacheOptions::new(self.redis_url);
        options.namespace = self.namespace;
        // `rpcache cache` waits for nothing but Redis. Calls replace this by --cache-budget.
        options.budget = Duration::from_millis(500);
        options
    }
}

impl Caching {
    pub(crate) fn options(self) -> CacheOptions {
        let mut options = self.redis.options();
        options.budget = self.cache_budget;
        options.ttl = self.ttl.0;
        options.max_answer_size = self.max_cached_size;
        options
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_is_consistent() {
        Args::command().debug_assert();
    }

    /// A doc comment of a flattened group would replace the command's own description.
    #[test]
    fn no_group_of_options_replaces_the_description_of_a_command() {
        fn compare(listed: &clap::Command, defined: &clap::Command) {
            for command in listed.get_subcommands() {
                let name = command.get_name();
                let same = defined.find_subcommand(name).expect("it is defined");
                let about = command.get_about().map(ToString::to_string);
                assert!(about.is_some(), "{name}");
                assert_eq!(about, same.get_about().map(ToString::to_string), "{name}");
                assert_eq!(
                    same.get_long_about().map(ToString::to_string),
                    None,
                    "{name}"
                );
            }
        }
        let mut defined = Args::command();
        defined.build();
        compare(&Args::command(), &defined);
        let cache = CacheAction::augment_subcommands(clap::Command::new("cache"));
        compare(
            &cache,
            defined.find_subcommand("cache").expect("it is defined"),
        );
    }
}
