//! The options of `rpcache doctor`.

use std::convert::Infallible;
use std::str::FromStr;
use std::time::Duration;

use clap::Args as Group;
use rpcache::doctor::{DoctorOptions, ManagementUrl};
use rpcache::errors::UrlError;
use rpcache::{AmqpUrl, Namespace, QueueName, RedisUrl};

use super::Target;
use super::access::{AmqpLogin, RedisLogin, TlsFiles};
use crate::output::{Failure, misuse};
use crate::values::{Ttl, duration};

#[derive(Debug, Group)]
#[command(after_help = "\
A check is ok, a warning (calls work, but something may be lost), a failure, or
skipped: an earlier check failed, or this login lacks the right to look. Below a
warning or failure, lines with an arrow say what to type or to set.

Nothing is changed. Rights are tested by operations that cannot succeed: a declaration
that cannot create a queue, a request to a queue that does not exist, Redis commands
with an invalid number. The last checks are ordinary calls: one for the first argument
that bypasses the cache, then one for the first argument that is not stored. The
answer of the second call stays in the cache.

Use the options and variables of the worker or client that does not work: another
login has other rights. The doctor cannot see to which queue a policy sends dead
letters; it checks that QUEUE.dead exists and has a consumer.

With --json each check is an object in its own line: `check`, `state` (ok, warning,
failure, skipped), `message`, `remedy` (null: nothing to do).

Exit codes: 0 no failure, with or without warnings; 3 a failure; 130 interrupted.")]
#[expect(clippy::doc_markdown, reason = "printed as it stands")]
pub(crate) struct Doctor {
    /// Arguments for the calls, cheap ones: the first is asked for with the cache bypassed, then the first that
    /// is not stored [default: for fib 30, 29 ... 0; for another procedure none, and no call is made]
    #[arg(value_name = "ARGUMENT", allow_negative_numbers = true)]
    pub(crate) arguments: Vec<String>,

    #[command(flatten)]
    pub(crate) target: Target,

    /// Print one JSON object per line: `check`, `state`, `message`, `remedy`
    #[arg(long)]
    pub(crate) json: bool,

    /// Time limit of each call: 500ms, 3s, 2m; a bare number is seconds
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = duration)]
    timeout: Duration,

    /// RabbitMQ's address; commas separate the nodes of a cluster; amqps:// is encrypted
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

    /// RabbitMQ's management API, to check what AMQP does not show of a cluster: nodes, net_ticktime, replicas and
    /// leaders of queues. http://HOST:15672; without a login in it, that of --amqp-url, which needs the tag
    /// monitoring
    #[arg(
        long,
        env = "RPCACHE_MANAGEMENT_URL",
        value_name = "URL",
        hide_env_values = true
    )]
    management_url: Option<Readable<ManagementUrl>>,

    /// The request queue [default: rpc_queue for fib, rpc_queue.NAME for a procedure NAME]
    #[arg(long, env = "RPCACHE_QUEUE", value_name = "NAME")]
    queue: Option<QueueName>,

    /// Redis' address; rediss:// is encrypted
    #[arg(long, env = "REDIS_URL", value_name = "URL", hide_env_values = true)]
    #[arg(default_value = "redis://localhost:6379")]
    redis_url: Readable<RedisUrl>,

    /// Prefix of all keys
    #[arg(long, env = "RPCACHE_NAMESPACE", value_name = "NAME")]
    pub(crate) namespace: Option<Namespace>,

    /// TTL of a stored answer: 500ms, 30s, 5m, 24h, 7d, or none for ever
    #[arg(
        long,
        env = "RPCACHE_TTL",
        value_name = "DURATION",
        default_value = "1d"
    )]
    ttl: Ttl,

    /// Time limit for all lookups of one call in Redis
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
        let invalid = |reason: String| misuse(&reason);
        let tls = self.tls.read().map_err(invalid)?;
        let amqp = match self.amqp_url.0.clone() {
            Ok(url) => Ok(self
                .amqp_login
                .put_into(url, tls.as_ref())
                .map_err(invalid)?),
            unreadable => unreadable,
        };
        let management = self.management_url.clone();
        let management = management.map(|url| match &tls {
            Some(tls) => url.0.map(|url| url.with_tls(tls.clone())),
            None => url.0,
        });
        let redis = match self.redis_url.0.clone() {
            Ok(url) => Ok(self
                .redis_login
                .put_into(url, tls.as_ref())
                .map_err(invalid)?),
            unreadable => unreadable,
        };
        let mut options = DoctorOptions::new(amqp, redis);
        options.management = management;
        options.queue = Some(self.queue());
        options.namespace.clone_from(&self.namespace);
        options.ttl = self.ttl.0;
        options.budget = self.cache_budget;
        options.timeout = self.timeout;
        Ok(options)
    }
}

/// An address, or why it is invalid: the doctor reports that as a finding instead of refusing to start.
#[derive(Debug, Clone)]
struct Readable<U>(Result<U, UrlError>);

impl<U: FromStr<Err = UrlError>> FromStr for Readable<U> {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(Self(text.parse()))
    }
}
