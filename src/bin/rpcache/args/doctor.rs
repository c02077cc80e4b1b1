//! `rpcache doctor`, as typed.

use std::convert::Infallible;
use std::str::FromStr;
use std::time::Duration;

use clap::Args as Group;
use rpcache::doctor::DoctorOptions;
use rpcache::errors::UrlError;
use rpcache::{AmqpUrl, Namespace, QueueName, RedisUrl};

use super::Target;
use super::access::{AmqpLogin, RedisLogin, TlsFiles};
use crate::output::Failure;
use crate::values::{Ttl, duration};

#[derive(Debug, Group)]
#[command(after_help = "\
Each check is ok, a warning (calls work, something may be lost), a failure, or
skipped: it makes no sense after a failure, or this login is not told. Below what is
wrong stands what to type or to set.

Nothing is changed. Rights are tried by what cannot succeed: a declaration that can
create no queue, a request to a queue that nobody has, Redis commands with nonsense
for a number. At the end come a few calls, as anybody may make them: for the first
argument past the caches, then for the first one that is not stored yet; its answer
stays in the cache.

Use the options and variables of the program that does not work, worker or client:
another login has other rights. Where a policy sends what the broker gives up cannot
be seen from here; whether QUEUE.dead is there, and read from, can.

With --json each check is an object in a line of its own: `check`, `state` (ok,
warning, failure, skipped), `message`, `remedy` (null: there is nothing to do).

Exit codes: 0 no failure, whatever the warnings; 3 a failure; 130 interrupted.")]
#[expect(clippy::doc_markdown, reason = "printed as it stands")]
pub(crate) struct Doctor {
    /// Arguments to ask for that any worker computes in no time: the first past the caches, then the first
    /// that is not stored yet [default: for fib 30, 29 ... 0; for another procedure none, and no call is made]
    #[arg(value_name = "ARGUMENT", allow_negative_numbers = true)]
    pub(crate) arguments: Vec<String>,

    #[command(flatten)]
    pub(crate) target: Target,

    /// One JSON object a line: `check`, `state`, `message`, `remedy`
    #[arg(long)]
    pub(crate) json: bool,

    /// The most that each of the calls may take: 500ms, 3s, 2m; a bare number is seconds
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = duration)]
    timeout: Duration,

    /// RabbitMQ's address, or several of a cluster with commas between; amqps:// is encrypted
    /// [default: guest at localhost:5672, vhost /]
    #[arg(
        long,
        env = "AMQP_URL",
        value_name = "URL",
        hide_env_values = true,
        hide_default_value = true
    )]
    #[arg(default_value = "amqp://guest:guest@localhost:5672/%2f")]
    amqp_url: Readable<AmqpUrl>,

    /// The request queue [default: rpc_queue for fib, rpc_queue.NAME for a procedure NAME]
    #[arg(long, env = "RPCACHE_QUEUE", value_name = "NAME")]
    queue: Option<QueueName>,

    /// Redis' address; rediss:// is encrypted
    #[arg(long, env = "REDIS_URL", value_name = "URL", hide_env_values = true)]
    #[arg(default_value = "redis://localhost:6379")]
    redis_url: Readable<RedisUrl>,

    /// Put in front of all keys
    #[arg(long, env = "RPCACHE_NAMESPACE", value_name = "NAME")]
    pub(crate) namespace: Option<Namespace>,

    /// How long a stored answer is kept: 500ms, 30s, 5m, 24h, 7d, or none for ever
    #[arg(
        long,
        env = "RPCACHE_TTL",
        value_name = "DURATION",
        default_value = "1d"
    )]
    ttl: Ttl,

    /// The most that one call may wait for Redis
    #[arg(
        long,
        env = "RPCACHE_CACHE_BUDGET",
        value_name = "DURATION",
        default_value = "50ms"
    )]
    #[arg(value_parser = duration)]
    cache_budget: Duration,

    #[command(flatten)]
    amqp_login: AmqpLogin,

    #[command(flatten)]
    redis_login: RedisLogin,

    #[command(flatten)]
    tls: TlsFiles,
}

impl Doctor {
    pub(crate) fn queue(&self) -> QueueName {
        let queue = self.queue.clone();
        queue.unwrap_or_else(|| QueueName::of(&self.target.procedure))
    }

    pub(crate) fn options(&self) -> Result<DoctorOptions, Failure> {
        let wrong =
            |reason: String| Failure::new(2, format!("{reason}; see rpcache doctor --help"));
        let tls = self.tls.read().map_err(wrong)?;
        let amqp = match self.amqp_url.0.clone() {
            Ok(url) => Ok(self.amqp_login.put_into(url, tls.as_ref()).map_err(wrong)?),
            unreadable => unreadable,
        };
        let redis = match self.redis_url.0.clone() {
            Ok(url) => Ok(self
                .redis_login
                .put_into(url, tls.as_ref())
                .map_err(wrong)?),
            unreadable => unreadable,
        };
        let mut options = DoctorOptions::new(amqp, redis);
        options.queue = Some(self.queue());
        options.namespace.clone_from(&self.namespace);
        options.ttl = self.ttl.0;
        options.budget = self.cache_budget;
        options.timeout = self.timeout;
        Ok(options)
    }
}

/// An address, or why it is none: that is a finding here, and not the end.
#[derive(Debug, Clone)]
struct Readable<U>(Result<U, UrlError>);

impl<U: FromStr<Err = UrlError>> FromStr for Readable<U> {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(Self(text.parse()))
    }
}
