//! Checks both servers, the workers and the cache, in the order in which a call uses them: the library part of
//! `rpcache doctor`. Not part of any call.
//!
//! [`Doctor::next`] runs one [`Check`] after the other, each with a deadline. A problem is a [`Finding`], never
//! an error. Checks that depend on a failed one are skipped. Nothing is declared or changed: the message that
//! tests the right to publish is unroutable, and the last two checks make ordinary calls.
//!
//! Where the checks are: addresses, names, ports, TLS and protocols in `reach`; RabbitMQ's nodes, each asked by AMQP,
//! in `nodes`; its cluster, as the management API shows it, in `cluster`; the others of each server in `servers`; the
//! two calls in `calls`. What needs lapin or redis-rs stays with the modules that may use it:
//!
//! | question | file |
//! | --- | --- |
//! | may this login publish; how is the queue declared, how many messages and consumers has it | `broker/inspect.rs` |
//! | which rights are missing in Redis | `cache/redis/rights.rs` |
//! | can answers be stored and found on this server: replica, Sentinel, cluster | `cache/redis/topology.rs` |
//! | what are the version, the memory limit and the eviction policy | `cache/redis/info.rs` |

mod calls;
mod check;
#[cfg(feature = "management")]
mod cluster;
mod cluster_problem;
mod finding;
#[cfg(feature = "management")]
mod management;
mod nodes;
mod reach;
mod servers;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

pub use self::check::Check;
pub use self::cluster_problem::ClusterProblem;
pub use self::finding::{Finding, Found, Severity};
use self::reach::Route;
use self::servers::{address, encryption, nodes};
pub use crate::broker::Declared;
use crate::broker::{Inspector, QueueStatus};
pub use crate::cache::MissingRights;
use crate::cache::{Cache, CacheOptions, Namespace};
use crate::client::{Client, ClientOptions};
use crate::error::Error;
use crate::procedure::Procedure;
use crate::queue::QueueName;
#[cfg(feature = "management")]
pub use crate::server_url::ManagementUrl;
use crate::server_url::{AmqpUrl, RedisUrl, UrlError};

/// More waiting requests than this are a warning: too few workers serve the queue.
const MAX_BACKLOG: u32 = 1000;

/// The least time for an answer of Redis: longer than a call's cache budget, because no call waits.
const MIN_REDIS_BUDGET: Duration = Duration::from_millis(500);

/// What to check, with the settings of clients and workers. [`new`](Self::new) takes what has no default; the rest
/// is set field by field.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct DoctorOptions {
    /// The broker. An invalid address becomes a finding.
    pub amqp: Result<AmqpUrl, UrlError>,
    /// The Redis that clients and workers share. An invalid address becomes a finding.
    pub redis: Result<RedisUrl, UrlError>,
    /// RabbitMQ's management API, for what AMQP does not show of a cluster; not asked by default. An invalid
    /// address becomes a finding.
    #[cfg(feature = "management")]
    pub management: Option<Result<ManagementUrl, UrlError>>,
    /// The request queue; by default the procedure's, see [`QueueName::of`].
    pub queue: Option<QueueName>,
    /// The namespace of all keys; none by default.
    pub namespace: Option<Namespace>,
    /// The TTL of answers, see [`CacheOptions::ttl`]. 1 day by default.
    pub ttl: Option<Duration>,
    /// How long a call may wait for Redis, see [`CacheOptions::budget`]. 50 ms by default.
    pub budget: Duration,
    /// The timeout of each call. 5 s by default.
    pub timeout: Duration,
}

impl DoctorOptions {
    /// The defaults, with this broker and this Redis.
    #[must_use]
    pub fn new(amqp: Result<AmqpUrl, UrlError>, redis: Result<RedisUrl, UrlError>) -> Self {
        Self {
            amqp,
            redis,
            #[cfg(feature = "management")]
            management: None,
            queue: None,
            namespace: None,
            ttl: Some(Duration::from_secs(24 * 60 * 60)),
            budget: Duration::from_millis(50),
            timeout: Duration::from_secs(5),
        }
    }
}

/// Runs all checks once, one after the other.
///
/// ```no_run
/// use rpcache::doctor::{Doctor, DoctorOptions};
/// use rpcache::fibonacci::{Fibonacci, N};
///
/// # async fn example() {
/// let options = DoctorOptions::new("amqp://localhost".parse(), "redis://localhost".parse());
/// let mut doctor = Doctor::new(Fibonacci::default(), (0..100).map(N), options);
/// while let Some(finding) = doctor.next().await {
///     println!("{} {}: {}", finding.check, finding.severity, finding.found);
/// }
/// # }
/// ```
pub struct Doctor<P: Procedure> {
    procedure: Arc<P>,
    /// Arguments to call with: the first one bypasses the cache, then the first that is not stored yet is used.
    probes: Vec<P::Argument>,
    options: DoctorOptions,
    queue: QueueName,
    remaining: std::array::IntoIter<Check, { Check::ALL.len() }>,
    /// Checks that failed or were skipped, each with the check that failed first.
    failed: Vec<(Check, Check)>,
    amqp: Route,
    redis: Route,
    /// The connection to the broker once the login was accepted; `Err` if the vhost was refused.
    inspector: Option<Result<Inspector, Error>>,
    queue_status: Option<QueueStatus>,
    cache: Option<Cache>,
    client: Option<Client<P>>,
}

/// The result of a check: a severity, and what was found.
struct Judged {
    severity: Severity,
    found: Found,
}

impl<P: Procedure> fmt::Debug for Doctor<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Doctor")
            .field("procedure", self.procedure.name())
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

impl<P: Procedure<Argument: Clone>> Doctor<P> {
    /// Creates a doctor, which does no I/O before [`next`](Self::next). It may be dropped at any time.
    ///
    /// `probes` are arguments that a worker computes at once. Several are needed, because only an answer that is
    /// not in the cache yet shows whether workers store it.
    pub fn new(
        procedure: P,
        probes: impl IntoIterator<Item = P::Argument>,
        options: DoctorOptions,
    ) -> Self {
        let nodes = options.amqp.as_ref().map(AmqpUrl::endpoints);
        let redis = options.redis.as_ref();
        let redis = redis.map(|url| url.endpoints().to_vec());
        Self {
            queue: options.queue.clone().unwrap_or_else(|| procedure.queue()),
            procedure: Arc::new(procedure),
            probes: probes.into_iter().collect(),
            remaining: Check::ALL.into_iter(),
            failed: Vec::new(),
            amqp: Route::to(nodes.unwrap_or_default()),
            redis: Route::to(redis.unwrap_or_default()),
            inspector: None,
            queue_status: None,
            cache: None,
            client: None,
            options,
        }
    }

    /// Runs the next check, within some seconds; `None` after the last one.
    ///
    /// Not cancel safe: a check that is dropped midway is not repeated.
    ///
    /// # Panics
    ///
    /// When polled outside of a Tokio runtime.
    pub async fn next(&mut self) -> Option<Finding> {
        let Some(check) = self.next_check() else {
            self.close().await;
            return None;
        };
        let failed_need = check.needs().iter().find_map(|needed| {
            let mut failed = self.failed.iter();
            failed.find_map(|&(check, first)| (check == *needed).then_some(first))
        });
        let Judged { severity, found } = match failed_need {
            Some(first) => {
                self.failed.push((check, first));
                Judged::skipped(Found::After(first))
            }
            None => self.run(check).await,
        };
        if severity == Severity::Failure {
            self.failed.push((check, check));
        }
        Some(Finding {
            check,
            severity,
            found,
        })
    }

    fn next_check(&mut self) -> Option<Check> {
        let check = self.remaining.next()?;
        if check == Check::AmqpCluster && !self.looks_at_the_cluster() {
            return self.remaining.next();
        }
        Some(check)
    }

    /// Whether there is a cluster to look at: its API is given, or several nodes are.
    fn looks_at_the_cluster(&self) -> bool {
        #[cfg(feature = "management")]
        if self.options.management.is_some() {
            return true;
        }
        let amqp = self.options.amqp.as_ref();
        amqp.is_ok_and(|url| url.endpoints().len() > 1)
    }

    async fn run(&mut self, check: Check) -> Judged {
        match check {
            Check::AmqpUrl => address(self.options.amqp.as_ref()),
            Check::AmqpName => nodes(self.amqp.resolve().await),
            Check::AmqpPort => nodes(self.amqp.connect().await),
            Check::AmqpEncryption => {
                let url = self.options.amqp.as_ref().ok();
                encryption(&mut self.amqp, url.and_then(AmqpUrl::tls)).await
            }
            Check::AmqpProtocol => nodes(self.amqp.speaks_amqp().await),
            Check::AmqpLogin => self.amqp_login().await,
            Check::AmqpVhost => self.amqp_vhost(),
            Check::AmqpNodes => self.amqp_nodes().await,
            #[cfg(feature = "management")]
            Check::AmqpCluster => self.amqp_cluster().await,
            #[cfg(not(feature = "management"))]
            Check::AmqpCluster => Judged::skipped(Found::Unknown(
                "AMQP does not show it, and this program was built without the feature `management`"
                    .to_owned(),
            )),
            Check::AmqpRights => self.amqp_rights().await,
            Check::Queue => self.request_queue().await,
            Check::Consumers => self.consumers(),
            Check::DeadLetters => self.dead_letters().await,
            Check::RedisUrl => address(self.options.redis.as_ref()),
            Check::RedisName => nodes(self.redis.resolve().await),
            Check::RedisPort => nodes(self.redis.connect().await),
            Check::RedisEncryption => {
                let url = self.options.redis.as_ref().ok();
                encryption(&mut self.redis, url.and_then(RedisUrl::first_tls)).await
            }
            Check::RedisProtocol => nodes(self.redis.speaks_redis().await),
            Check::RedisLogin => self.redis_login().await,
            Check::RedisVersion => self.redis_version().await,
            Check::RedisRights => self.redis_rights().await,
            Check::RedisMemory => self.redis_memory().await,
            Check::Call => self.call().await,
            Check::Hit => self.hit().await,
        }
    }

    fn client(&mut self) -> Option<Client<P>> {
        let (Ok(amqp), Ok(redis)) = (&self.options.amqp, &self.options.redis) else {
            return None;
        };
        let client = self.client.get_or_insert_with(|| {
            let mut cache = self.options.cache(redis.clone());
            cache.budget = self.options.budget;
            let mut options = ClientOptions::new(amqp.clone(), cache);
            options.queue = Some(self.queue.clone());
            // Direct reply-to needs fewer rights.
            options.one_shot = true;
            Client::sharing(Arc::clone(&self.procedure), options)
        });
        Some(client.clone())
    }

    async fn close(&mut self) {
        if let Some(client) = self.client.take() {
            client.close().await;
        }
        if let Some(Ok(inspector)) = self.inspector.take() {
            inspector.close().await;
        }
    }
}

impl DoctorOptions {
    fn cache(&self, url: RedisUrl) -> CacheOptions {
        let mut options = CacheOptions::new(url);
        options.namespace.clone_from(&self.namespace);
        options.ttl = self.ttl;
        options.budget = self.budget.max(MIN_REDIS_BUDGET);
        options.wait_for_connection = true;
        options
    }
}
