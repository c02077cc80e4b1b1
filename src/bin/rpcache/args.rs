//! What can be typed. Parsing does nothing; what was typed becomes the library's options here.

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
use rpcache::{AmqpUrl, CacheOptions, LocalOptions, Namespace, ProcedureName, QueueName, RedisUrl};

pub(crate) use self::bench::{Bench, Distribution};
pub(crate) use self::cache::{
    Cache, CacheAction, CacheExplain, CacheGet, CacheLs, CacheRm, CacheStats, CacheTtl, CacheVerify,
};
pub(crate) use self::call::{Call, Warm};
pub(crate) use self::doctor::Doctor;
pub(crate) use self::health::Health;
pub(crate) use self::install::{Completions, Man, Shell};
pub(crate) use self::procedure::Target;
pub(crate) use self::top::Top;
pub(crate) use self::worker::Worker;
use crate::values::{Ttl, duration, size};

const EXAMPLES: &str = "\
Examples:
  rpcache worker                  serve Fibonacci numbers; start as many as you like
  rpcache call 30                 832040
  rpcache call 30 31 100..110     many, in the order asked
  rpcache call --procedure factors 360
                                  any procedure that a worker serves, in any language
  rpcache warm 0..100000          store what is missing
  rpcache bench                   how fast that is here
  rpcache cache get 30            what Redis holds, as `redis-cli GET fib:30` would show
  rpcache cache stats             how much is stored, and who works
  rpcache doctor                  what is wrong, if something is
  rpcache top                     what the fleet does now

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

    /// Say more on stderr; twice, say everything
    #[arg(short, long, action = clap::ArgAction::Count, global = true)]
    pub(crate) verbose: u8,

    /// How the log on stderr is written
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
    /// json for a worker whose stderr is no terminal, else text
    #[default]
    Auto,
    /// For people
    Text,
    /// One object a line, for programs
    Json,
}

impl Args {
    /// What can be typed, as clap has it, whatever the environment says.
    pub(crate) fn definition() -> clap::Command {
        Self::command()
    }

    pub(crate) fn parse_typed() -> clap::error::Result<Self> {
        let mut command = Self::command();
        if std::env::vars_os().any(|(_, value)| value.is_empty()) {
            // What is put off until it is typed could not be looked through.
            command.build();
            command = without_empty_variables(command);
        }
        Self::from_arg_matches(&command.try_get_matches()?)
    }
}

/// A variable that is set to nothing, as scripts like to, is one that is not set.
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

/// Each is defined in full only when it is typed: a call has no time for the options of all others.
#[derive(Debug, Subcommand)]
#[command(defer = true)]
pub(crate) enum Command {
    /// Serve: take requests from the queue, compute, store the answers in Redis, reply
    Worker(Worker),
    /// Ask for answers: from the cache where it has them, else from a worker
    Call(Call),
    /// Have answers computed and stored that are not in the cache yet
    Warm(Warm),
    /// Look into the cache, check it, tidy it up
    Cache(Cache),
    /// Measure calls: how many a second, how long each, from where
    Bench(Bench),
    /// Find out what is wrong between here and an answer, and what to do about it
    Doctor(Doctor),
    /// Watch the fleet: queue, workers and what they compute, rates, hottest and slowest keys
    Top(Top),
    /// Ask a worker whether it takes requests, for health checks
    Health(Health),
    /// Print what a shell needs to complete commands and options by Tab
    Completions(Completions),
    /// Print a page of the manual
    Man(Man),
}

/// Its address, with password and certificates, and where requests go. See [`access`] for the options.
#[derive(Debug)]
pub(crate) struct Broker {
    amqp_url: AmqpUrl,
    /// `None`: the procedure's own.
    queue: Option<QueueName>,
}

/// Its address, with password and certificates, and the namespace. See [`access`] for the options.
#[derive(Debug)]
pub(crate) struct Redis {
    redis_url: RedisUrl,
    namespace: Option<Namespace>,
}

#[derive(Debug, Group)]
pub(crate) struct Caching {
    #[command(flatten)]
    redis: Redis,

    /// How long a stored answer is kept, less up to 10 %: 500ms, 30s, 5m, 24h, 7d, or none for ever
    #[arg(
        long,
        env = "RPCACHE_TTL",
        value_name = "DURATION",
        default_value = "1d"
    )]
    ttl: Ttl,

    /// A larger answer is not stored: 64kB, 1MB; a bare number is bytes [default: any is stored]
    #[arg(
        long,
        env = "RPCACHE_MAX_CACHED_SIZE",
        value_name = "SIZE",
        value_parser = size
    )]
    max_cached_size: Option<usize>,

    /// The most that one call may wait for Redis, in the caller and in the worker each; a command
    /// that has just started waits up to 500ms for its connection
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
    /// Keep copies of answers in this process's memory, up to SIZE in all: 500kB, 64MB; a bare number
    /// is bytes [default: none]
    #[arg(long, value_name = "SIZE", value_parser = size)]
    local_cache: Option<usize>,
}

impl Local {
    pub(crate) fn options(&self) -> Option<LocalOptions> {
        // No memory: none.
        let size = self.local_cache.filter(|&size| size > 0);
        size.map(LocalOptions::new)
    }
}

impl Redis {
    /// A procedure in this namespace, for a person.
    pub(crate) fn named(&self, procedure: &ProcedureName) -> String {
        match &self.namespace {
            Some(namespace) => format!("{namespace}:{procedure}"),
            None => procedure.to_string(),
        }
    }

    pub(crate) fn options(self) -> CacheOptions {
        let mut options = CacheOptions::new(self.redis_url);
        options.namespace = self.namespace;
        // Nobody waits for more than Redis here; calls set their own.
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

    /// Shared options bring a description along if they have one, which takes the place of the command's.
    #[test]
    fn commands_say_of_themselves_what_is_said_of_them() {
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
