//! Looks at everything between this process and an answer, in the order in which a call meets it:
//! what `rpcache doctor` shows. Not part of any call.
//!
//! [`Doctor::next`] takes one [`Check`] after the other, and each has a deadline; whatever is wrong is
//! a [`Finding`], never an error. What makes no sense after a failure is skipped. It only looks:
//! nothing is declared, no right is used for more than to see whether it is there, and what it
//! sends to the broker goes to nobody, except the requests of a few calls, which are calls as any
//! other.
//!
//! What takes lapin or redis to find out is found out in [`crate::broker`] and [`crate::cache`].

mod calls;
mod check;
mod finding;
mod reach;
mod servers;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

pub use self::check::Check;
pub use self::finding::{Finding, Found, Severity};
use self::reach::Route;
use self::servers::{address, encryption, nodes};
pub use crate::broker::Declared;
use crate::broker::{Look, Visit};
pub use crate::cache::MissingRights;
use crate::cache::{Cache, CacheOptions, Namespace};
use crate::client::{Client, ClientOptions};
use crate::error::Error;
use crate::procedure::Procedure;
use crate::queue::QueueName;
use crate::server_url::{AmqpUrl, RedisUrl, UrlError};

/// More requests than this do not wait for long, or too few workers serve them.
const BACKLOG: u32 = 1000;

/// Not part of any call, so Redis may take longer to answer than within a cache budget.
const PATIENCE: Duration = Duration::from_millis(500);

/// Where to look, as clients and workers would be told: [`new`](Self::new) takes what has no default,
/// the rest is set field by field.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct DoctorOptions {
    /// The broker; an address that cannot be read is a finding, too.
    pub amqp: Result<AmqpUrl, UrlError>,
    /// The Redis that clients and workers share; an address that cannot be read is a finding, too.
    pub redis: Result<RedisUrl, UrlError>,
    /// The request queue; by default the procedure's, see [`QueueName::of`].
    pub queue: Option<QueueName>,
    /// In front of all keys; none by default.
    pub namespace: Option<Namespace>,
    /// How long answers are kept, see [`CacheOptions::ttl`]. 1 day by default.
    pub ttl: Option<Duration>,
    /// What a call may wait for Redis, see [`CacheOptions::budget`]. 50 ms by default.
    pub budget: Duration,
    /// What each call that is tried may take. 5 s by default.
    pub timeout: Duration,
}

impl DoctorOptions {
    /// The defaults, with this broker and this Redis.
    #[must_use]
    pub fn new(amqp: Result<AmqpUrl, UrlError>, redis: Result<RedisUrl, UrlError>) -> Self {
        Self {
            amqp,
            redis,
            queue: None,
            namespace: None,
            ttl: Some(Duration::from_secs(24 * 60 * 60)),
            budget: Duration::from_millis(50),
            timeout: Duration::from_secs(5),
        }
    }
}

/// One look at everything, check by check.
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
    /// What to ask for: the first one past the caches, then the first that is not stored yet.
    probes: Vec<P::Argument>,
    options: DoctorOptions,
    queue: QueueName,
    left: std::array::IntoIter<Check, { Check::ALL.len() }>,
    /// What failed or was skipped for it, each with what failed first.
    failed: Vec<(Check, Check)>,
    amqp: Route,
    redis: Route,
    /// The broker's login and vhost, once tried.
    entered: Option<Result<Visit, Error>>,
    audience: Option<Look>,
    cache: Option<Cache>,
    client: Option<Client<P>>,
}

/// How bad it is, and what.
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
    /// Nothing is looked at yet, and dropping it at any time leaves nothing behind. `probes` are arguments that any worker computes in no time; several,
    /// since only an answer that is not in the cache yet shows whether workers store it.
    pub fn new(
        procedure: P,
        probes: impl IntoIterator<Item = P::Argument>,
        options: DoctorOptions,
    ) -> Self {
        let nodes = options.amqp.as_ref().map(AmqpUrl::endpoints);
        let redis = options.redis.as_ref();
        let redis = redis.map(|url| vec![url.endpoint().clone()]);
        Self {
            queue: options.queue.clone().unwrap_or_else(|| procedure.queue()),
            procedure: Arc::new(procedure),
            probes: probes.into_iter().collect(),
            left: Check::ALL.into_iter(),
            failed: Vec::new(),
            amqp: Route::to(nodes.unwrap_or_default()),
            redis: Route::to(redis.unwrap_or_default()),
            entered: None,
            audience: None,
            cache: None,
            client: None,
            options,
        }
    }

    /// What the next check finds, within some seconds; `None` after the last one.
    ///
    /// Not cancel safe: a check that is dropped is not repeated.
    ///
    /// # Panics
    ///
    /// When polled outside of a Tokio runtime.
    pub async fn next(&mut self) -> Option<Finding> {
        let Some(check) = self.left.next() else {
            self.leave().await;
            return None;
        };
        let in_the_way = check.needs().iter().find_map(|needed| {
            let mut failed = self.failed.iter();
            failed.find_map(|&(check, first)| (check == *needed).then_some(first))
        });
        let Judged { severity, found } = match in_the_way {
            Some(first) => {
                self.failed.push((check, first));
                Judged::skipped(Found::After(first))
            }
            None => self.look(check).await,
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

    async fn look(&mut self, check: Check) -> Judged {
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
            Check::AmqpRights => self.amqp_rights().await,
            Check::Queue => self.request_queue().await,
            Check::Consumers => self.consumers(),
            Check::DeadLetters => self.dead_letters().await,
            Check::RedisUrl => address(self.options.redis.as_ref()),
            Check::RedisName => nodes(self.redis.resolve().await),
            Check::RedisPort => nodes(self.redis.connect().await),
            Check::RedisEncryption => {
                let url = self.options.redis.as_ref().ok();
                encryption(&mut self.redis, url.and_then(RedisUrl::tls)).await
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
            // It takes fewer rights.
            options.one_shot = true;
            Client::sharing(Arc::clone(&self.procedure), options)
        });
        Some(client.clone())
    }

    async fn leave(&mut self) {
        if let Some(client) = self.client.take() {
            client.close().await;
        }
        if let Some(Ok(visit)) = self.entered.take() {
            visit.leave().await;
        }
    }
}

impl DoctorOptions {
    fn cache(&self, url: RedisUrl) -> CacheOptions {
        let mut options = CacheOptions::new(url);
        options.namespace.clone_from(&self.namespace);
        options.ttl = self.ttl;
        options.budget = self.budget.max(PATIENCE);
        options.wait_for_connection = true;
        options
    }
}
