//! What can be typed. Parsing does nothing; what was typed becomes the library's options here.

use std::str::FromStr;
use std::time::Duration;

use clap::builder::Resettable;
use clap::{
    Args as Group, CommandFactory as _, FromArgMatches as _, Parser, Subcommand, ValueEnum,
};
use rpcache::fibonacci::{self, Fibonacci};
use rpcache::{
    AmqpUrl, CacheOptions, CacheUse, CallOptions, ClientOptions, Declare, Namespace, QueueName,
    RedisUrl, ReplyPattern, WorkerOptions,
};

use crate::values::{Asked, Ttl, duration};

const EXAMPLES: &str = "\
Examples:
  rpcache worker                  serve Fibonacci numbers; start as many as you like
  rpcache call 30                 832040
  rpcache call 30 31 100..110     many, in the order asked
  rpcache cache get 30            what Redis holds, as `redis-cli GET fib:30` would show

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
}

impl Args {
    pub(crate) fn parse_typed() -> clap::error::Result<Self> {
        let command = without_empty_variables(Self::command());
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

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Serve: take requests from the queue, compute, store the answers in Redis, reply
    Worker(Worker),
    /// Ask for Fibonacci numbers: from the cache where it has them, else from a worker
    Call(Call),
    /// Look into the cache
    Cache(Cache),
}

#[derive(Debug, Group)]
pub(crate) struct Broker {
    /// RabbitMQ's address, or several of a cluster with commas between; the vhost / is written %2f
    /// [default: guest at localhost:5672, vhost /]
    #[arg(
        long,
        env = "AMQP_URL",
        value_name = "URL",
        hide_env_values = true,
        hide_default_value = true
    )]
    #[arg(default_value = "amqp://guest:guest@localhost:5672/%2f")]
    amqp_url: AmqpUrl,

    /// The request queue
    #[arg(
        long,
        env = "RPCACHE_QUEUE",
        value_name = "NAME",
        default_value = "rpc_queue"
    )]
    queue: QueueName,
}

#[derive(Debug, Group)]
pub(crate) struct Redis {
    /// Redis' address
    #[arg(long, env = "REDIS_URL", value_name = "URL", hide_env_values = true)]
    #[arg(default_value = "redis://localhost:6379")]
    redis_url: RedisUrl,

    /// Put in front of all keys: `prod` makes fib:30 into prod:fib:30. Workers and callers that
    /// share answers have the same namespace and the same Redis
    #[arg(long, env = "RPCACHE_NAMESPACE", value_name = "NAME")]
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
#[command(after_help = "\
Stop it with Ctrl-C or SIGTERM: it takes no more, finishes and answers what it
holds, and ends within 10 s. A second signal ends it at once. What is left then,
the broker gives to other workers.

Servers that are down are tried again for ever.

Exit codes:
  0 stopped, everything answered   3 the login or the vhost was refused at the start
  1 stopped, something was left    130 ended by a second signal")]
pub(crate) struct Worker {
    #[command(flatten)]
    pub(crate) broker: Broker,

    #[command(flatten)]
    pub(crate) caching: Caching,

    /// Computations at once [default: as many as there are cores]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) concurrency: Option<u16>,

    /// Requests held at once, those being computed included [default: 64 more than computations]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) prefetch: Option<u16>,

    /// How F(n) is computed
    #[arg(long, value_enum, default_value_t = Algorithm::Doubling)]
    algorithm: Algorithm,

    /// The largest n that is computed
    #[arg(long, value_name = "N", default_value_t = Fibonacci::DEFAULT_MAX_N)]
    max_n: u64,

    /// How the queue is created where it is missing; one that exists is used as it is
    #[arg(long, value_enum, default_value_t = DeclareAs::Quorum)]
    declare: DeclareAs,

    /// Allow replies to this queue, or with a * at the end to all that begin so; callback queues as
    /// RabbitMQ names them are always allowed
    #[arg(long, value_name = "PATTERN")]
    reply_to: Vec<ReplyPattern>,
}

#[derive(Debug, Group)]
#[command(after_help = "\
Many are asked for at once and printed in order; the first that fails ends it,
with its exit code.

The source of an answer is `cache`, `computed`, or `shared`: another call for the
same number was already under way.")]
#[expect(clippy::struct_excessive_bools, reason = "flags, as they are typed")]
pub(crate) struct Call {
    /// Numbers, and ranges that include both ends: 30, 0..100
    #[arg(required = true, value_name = "N", allow_negative_numbers = true, value_parser = Asked::from_str)]
    pub(crate) asked: Vec<Asked>,

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

    /// One JSON object a line: `argument`, `answer`, `source`, `elapsed_ms`; or `argument`, `error`
    #[arg(long)]
    pub(crate) json: bool,

    #[command(flatten)]
    pub(crate) broker: Broker,

    #[command(flatten)]
    pub(crate) caching: Caching,
}

#[derive(Debug, Group)]
pub(crate) struct Cache {
    #[command(subcommand)]
    pub(crate) action: CacheAction,
}

#[derive(Debug, Subcommand)]
pub(crate) enum CacheAction {
    /// Print stored answers; exit code 1 if one is not there
    Get(CacheGet),
    /// List the keys, in no order
    Ls(CacheLs),
    /// Remove stored answers
    Rm(CacheRm),
}

#[derive(Debug, Group)]
pub(crate) struct CacheGet {
    /// Numbers and ranges
    #[arg(required = true, value_name = "N", allow_negative_numbers = true, value_parser = Asked::from_str)]
    pub(crate) asked: Vec<Asked>,

    #[command(flatten)]
    pub(crate) redis: Redis,
}

#[derive(Debug, Group)]
pub(crate) struct CacheLs {
    #[command(flatten)]
    pub(crate) redis: Redis,
}

#[derive(Debug, Group)]
pub(crate) struct CacheRm {
    /// Numbers and ranges
    #[arg(required = true, value_name = "N", allow_negative_numbers = true, value_parser = Asked::from_str)]
    pub(crate) asked: Vec<Asked>,

    #[command(flatten)]
    pub(crate) redis: Redis,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Algorithm {
    /// Fast doubling: the fastest
    Doubling,
    /// n additions
    Iterative,
    /// Fast doubling that remembers what it passed, up to 64 MiB
    Memoized,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum DeclareAs {
    /// A durable quorum queue, as RabbitMQ's tutorials do now
    Quorum,
    /// A classic queue that is not durable, as older tutorials do
    Classic,
    /// Not at all: wait until somebody has created it
    Never,
}

impl Redis {
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
        options
    }
}

impl Worker {
    pub(crate) fn procedure(&self) -> Fibonacci {
        let algorithm = match self.algorithm {
            Algorithm::Doubling => fibonacci::Algorithm::Doubling,
            Algorithm::Iterative => fibonacci::Algorithm::Iterative,
            Algorithm::Memoized => fibonacci::Algorithm::Memoized,
        };
        Fibonacci::new(algorithm).max_n(self.max_n)
    }

    pub(crate) fn options(self) -> WorkerOptions {
        let mut options = WorkerOptions::new(self.broker.amqp_url, self.caching.options());
        options.queue = Some(self.broker.queue);
        options.concurrency = self.concurrency.unwrap_or(options.concurrency);
        options.prefetch = self.prefetch;
        options.declare = match self.declare {
            DeclareAs::Quorum => Declare::Quorum,
            DeclareAs::Classic => Declare::Classic,
            DeclareAs::Never => Declare::Never,
        };
        options.reply_to.extend(self.reply_to);
        options
    }
}

impl Call {
    pub(crate) fn is_many(&self) -> bool {
        Asked::are_many(&self.asked)
    }

    pub(crate) fn call_options(&self) -> CallOptions {
        CallOptions {
            timeout: self.timeout,
            wait: self.wait,
            cache: match (self.no_cache, self.refresh) {
                (true, _) => CacheUse::Bypass,
                (false, true) => CacheUse::Refresh,
                (false, false) => CacheUse::Normal,
            },
        }
    }

    pub(crate) fn client_options(self, one_shot: bool) -> ClientOptions {
        let mut cache = self.caching.options();
        cache.connect_first = true;
        let mut options = ClientOptions::new(self.broker.amqp_url, cache);
        options.queue = Some(self.broker.queue);
        options.one_shot = one_shot;
        options
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_is_consistent() {
        use clap::CommandFactory as _;
        Args::command().debug_assert();
    }
}
