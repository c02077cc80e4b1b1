//! The shared result cache: look up an answer, fill it in where it was missing.
//!
//! Clients and workers both look up; whoever misses holds a [`Vacancy`], the permission without
//! which nothing can be filled. All that a process waits for Redis in one call comes out of one
//! budget, which the vacancy carries on. Whatever is wrong with Redis is a miss here, counted and
//! logged, never an error of the call. Here and below it alone: redis and bb8.

mod breaker;
mod claim;
mod connection;
mod dial;
mod guard;
mod key;
mod lease;
mod lookups;
mod manage;
mod options;
mod removed;
mod resp;
mod starts;
mod workers;

#[cfg(test)]
pub(crate) mod fake;

use std::fmt::Display;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use redis::{Cmd, FromRedisValue, Pipeline, RedisError};
use tokio::time::Instant;
use tokio_util::task::TaskTracker;
use tracing::{Instrument as _, debug, warn};

pub(crate) use self::claim::Claim;
pub(crate) use self::key::{Key, ShortKey};
pub use self::key::{Namespace, NamespaceError};
pub(crate) use self::lease::{Lease, Token};
pub(crate) use self::manage::Misfit;
pub use self::manage::{
    Count, Entry, Explained, Holder, KeyPattern, KeyPatternError, Lacking, LeaseHeld, Lives,
    Precision, Scan, ServerStats, Stored, StoredKey, Survey, Verified, Wrong, WrongEntry,
};
pub use self::options::CacheOptions;
pub(crate) use self::removed::Purge;
pub(crate) use self::starts::Start;

use self::connection::{Connection, Unanswered};
use self::lookups::{Found, Lookups};
use crate::FOR_EVER;
use crate::counts::{CacheCounts, State};
use crate::error::quote;
use crate::procedure::{Procedure, check};
use crate::procedure_name::ProcedureName;
use crate::seldom::Seldom;
use crate::trace::{self, Operation};

/// A handle to the shared result cache, for whoever looks into it or tidies it up; clients and workers
/// have their own.
///
/// It connects in the background and reconnects by itself. What is asked of it waits for the first
/// attempt to connect, then up to 5 s for each answer of Redis. All methods may be dropped half-way
/// and called again; what is removed then may still have copies with clients, see
/// [`remove_keys`](Self::remove_keys). Dropping the handle closes the connection.
///
/// ```no_run
/// use std::sync::Arc;
/// use rpcache::fibonacci::{Fibonacci, N};
/// use rpcache::{Cache, CacheOptions, KeyPattern, Stored};
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let cache = Cache::open(CacheOptions::new("redis://localhost".parse()?));
/// let fib = Arc::new(Fibonacci::default());
/// if let Stored::Answer(answer) = cache.get(&fib, &Arc::new(N(30))).await? {
///     println!("fib:30 holds {answer}");
/// }
/// let mut keys = cache.scan(&*fib, &KeyPattern::default());
/// while let Some(page) = keys.next_page().await? {
///     let verified = cache.verify(&fib, &page, false).await?;
///     for entry in verified.wrong {
///         println!("{}: {}", entry.key, entry.wrong);
///     }
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Cache {
    options: CacheOptions,
    connection: Arc<Connection>,
    lookups: Lookups,
    counts: Arc<CacheCounts>,
    poisoned: Seldom,
    refused_lookups: Seldom,
    refused_leases: Seldom,
    refused_fills: Seldom,
    untold_removals: Seldom,
    foreign_places: Seldom,
    /// Whether looking for a worker's place has failed.
    places_unread: AtomicBool,
    /// Of suspects, and not taken back yet.
    starts: TaskTracker,
}

/// What is left of all that this process may wait for Redis in one call.
#[derive(Debug, Clone)]
pub(crate) struct Budget(Duration);

/// What a lookup found.
pub(crate) enum Lookup<A> {
    /// An answer that passed the check.
    Hit(A),
    /// None, and the permission to fill it in.
    Miss(Vacancy),
}

/// Which look for an answer it is: who waits for somebody else's looks again and again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Look {
    First,
    Again,
}

/// How much came when many answers were looked for at once.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Gave {
    Bytes(usize),
    NothingInTime,
    Unknown,
}

/// The permission to fill one key, held by whoever missed it; with the lease, where there is one.
#[must_use]
#[derive(Debug)]
pub(crate) struct Vacancy {
    pub(crate) key: Key,
    pub(crate) budget: Budget,
    pub(crate) lease: Option<Lease>,
}

impl Vacancy {
    pub(crate) fn key(&self) -> &Key {
        &self.key
    }
}

impl Budget {
    /// Takes off what has been waited since.
    fn spend(&mut self, since: Instant) {
        self.0 = self.0.saturating_sub(since.elapsed());
    }
}

impl Cache {
    /// Starts connecting in the background.
    ///
    /// # Panics
    ///
    /// Outside of a Tokio runtime.
    #[must_use]
    pub fn open(options: CacheOptions) -> Self {
        Self::open_counting(options, Arc::default())
    }

    /// The same for a role whose counts are known before.
    pub(crate) fn open_counting(mut options: CacheOptions, counts: Arc<CacheCounts>) -> Self {
        options.budget = options.budget.min(FOR_EVER);
        options.ttl = options.ttl.map(|ttl| ttl.min(FOR_EVER));
        let (url, ahead) = (options.url.clone(), options.connect_first);
        let limits = options.limits();
        let connection = Connection::open(url, options.budget, limits, ahead, counts);
        Self::over(options, connection)
    }

    fn over(options: CacheOptions, connection: Connection) -> Self {
        let connection = Arc::new(connection);
        Self {
            lookups: Lookups::new(Arc::clone(&connection), options.budget),
            counts: Arc::clone(connection.counts()),
            options,
            connection,
            poisoned: Seldom::default(),
            refused_lookups: Seldom::default(),
            refused_leases: Seldom::default(),
            refused_fills: Seldom::default(),
            untold_removals: Seldom::default(),
            foreign_places: Seldom::default(),
            places_unread: AtomicBool::new(false),
            starts: TaskTracker::new(),
        }
    }

    /// The key of this argument's answer.
    pub(crate) fn key(&self, procedure: &ProcedureName, argument: &impl Display) -> Key {
        Key::new(self.options.namespace.as_ref(), procedure, argument)
    }

    /// What it counts.
    #[cfg(feature = "metrics")]
    pub(crate) fn counts(&self) -> &Arc<CacheCounts> {
        &self.counts
    }

    /// Says once, when Redis is there, if what is stored for ever can fill it without a bound. Ends
    /// then, or not at all.
    pub(crate) async fn warn_if_unbounded(&self) {
        if self.options.ttl.is_some() {
            return;
        }
        self.connection.up().await;
        let mut info = redis::cmd("INFO");
        info.arg("memory");
        let asked = self.connection.run::<String>(&info, self.options.budget);
        // Who may not ask is not warned.
        let Ok(info) = asked.await else { return };
        if info.lines().any(|line| line == "maxmemory:0") {
            warn!(
                "answers are stored for ever, and Redis at {} has no memory bound: set `maxmemory` \
                 and `maxmemory-policy allkeys-lfu` there, or a --ttl here",
                self.options.url
            );
        }
    }

    /// How long an answer is kept at the most.
    pub(crate) fn ttl(&self) -> Option<Duration> {
        self.options.ttl
    }

    /// What one call may wait for Redis.
    pub(crate) fn budget(&self) -> Budget {
        Budget(self.options.budget)
    }

    /// The same for a call that ends by then; after the first attempt to connect, where calls wait
    /// for that.
    async fn budget_until(&self, deadline: Instant) -> Budget {
        if self.options.connect_first {
            let connects = self.connection.state() == State::Connecting;
            let _span = connects.then(|| trace::begin(trace::connect_to_redis));
            // Elapsed or not, what is left tells.
            let _ = tokio::time::timeout_at(deadline, self.connection.ready()).await;
        }
        let left = deadline.saturating_duration_since(Instant::now());
        Budget(self.options.budget.min(left))
    }

    /// The permission to fill a key without having looked: for a call that wants a fresh answer.
    pub(crate) fn vacancy(&self, key: Key) -> Vacancy {
        Vacancy {
            key,
            budget: self.budget(),
            lease: None,
        }
    }

    /// Looks for an answer within the budget, and within the call's time; what does not pass the
    /// check is a miss.
    ///
    /// Cancel safe.
    pub(crate) async fn lookup<P: Procedure>(
        &self,
        key: Key,
        procedure: &Arc<P>,
        argument: &Arc<P::Argument>,
        deadline: Instant,
    ) -> Lookup<P::Answer> {
        let mut budget = self.budget_until(deadline).await;
        if trace::on() {
            let span = trace::lookup(Operation::Get);
            let lookup = self.lookup_within(&mut budget, key, procedure, argument);
            return Box::pin(lookup.instrument(span)).await;
        }
        self.lookup_within(&mut budget, key, procedure, argument)
            .await
    }

    /// The same within what is left of a budget.
    ///
    /// Cancel safe.
    pub(crate) async fn lookup_within<P: Procedure>(
        &self,
        budget: &mut Budget,
        key: Key,
        procedure: &Arc<P>,
        argument: &Arc<P::Argument>,
    ) -> Lookup<P::Answer> {
        let started = Instant::now();
        let found = self.lookups.get(key.as_str(), budget.0).await;
        budget.spend(started);
        let checked = self.checked(Look::First, &key, found, procedure, argument);
        if let Some(answer) = checked.await {
            return Lookup::Hit(answer);
        }
        Lookup::Miss(Vacancy {
            key,
            budget: budget.clone(),
            lease: None,
        })
    }

    /// Looks for many answers at once, within one budget.
    pub(crate) async fn lookup_many<P: Procedure>(
        &self,
        wanted: Vec<(Key, Arc<P::Argument>)>,
        procedure: &Arc<P>,
        deadline: Instant,
    ) -> (Vec<Lookup<P::Answer>>, Gave) {
        match <[_; 1]>::try_from(wanted) {
            Ok([(key, argument)]) => {
                let found = self.lookup(key, procedure, &argument, deadline).await;
                (vec![found], Gave::Unknown)
            }
            Err(wanted) if wanted.is_empty() => (Vec::new(), Gave::Unknown),
            Err(wanted) => self.lookup_together(wanted, procedure, deadline).await,
        }
    }

    async fn lookup_together<P: Procedure>(
        &self,
        wanted: Vec<(Key, Arc<P::Argument>)>,
        procedure: &Arc<P>,
        deadline: Instant,
    ) -> (Vec<Lookup<P::Answer>>, Gave) {
        let mut budget = self.budget_until(deadline).await;
        let mut mget = redis::cmd("MGET");
        for (key, _) in &wanted {
            mget.arg(key.as_str());
        }
        let started = Instant::now();
        let found = self.connection.get_many(&mget, budget.0).await;
        budget.spend(started);
        let gave = match &found {
            Ok(found) => {
                let sizes = found.iter().flatten().flatten().map(Vec::len);
                Gave::Bytes(sizes.sum())
            }
            Err(Unanswered::Unavailable) => Gave::NothingInTime,
            Err(Unanswered::Refused(_)) => Gave::Unknown,
        };
        let found = found.unwrap_or_else(|unanswered| vec![Err(unanswered); wanted.len()]);
        let mut found = found.into_iter();
        let mut lookups = Vec::with_capacity(wanted.len());
        for (key, argument) in wanted {
            let found = found.next().unwrap_or(Ok(None));
            let checked = self.checked(Look::First, &key, found, procedure, &argument);
            lookups.push(match checked.await {
                Some(answer) => Lookup::Hit(answer),
                None => Lookup::Miss(Vacancy {
                    key,
                    budget: budget.clone(),
                    lease: None,
                }),
            });
        }
        (lookups, gave)
    }

    /// What Redis gave for a key, as an answer that passed the check; counted.
    async fn checked<P: Procedure>(
        &self,
        look: Look,
        key: &Key,
        found: Found,
        procedure: &Arc<P>,
        argument: &Arc<P::Argument>,
    ) -> Option<P::Answer> {
        let counts = &self.counts;
        let (answer, counter, result) = match found {
            Ok(None) => (None, &counts.misses, "miss"),
            Ok(Some(text)) => match check(procedure, argument, text).await {
                Ok(answer) => (Some(answer), &counts.hits, "hit"),
                Err(text) => {
                    self.poisoned(key, &quote(&text));
                    (None, &counts.poisoned, "poisoned")
                }
            },
            Err(Unanswered::Refused(error)) => {
                if let Some(found) = no_answer(&error) {
                    self.poisoned(key, found);
                    (None, &counts.poisoned, "poisoned")
                } else {
                    self.refused_lookup(&error);
                    (None, &counts.unanswered, "unanswered")
                }
            }
            Err(Unanswered::Unavailable) => (None, &counts.unanswered, "unanswered"),
        };
        trace::record("rpcache.result", result);
        if look == Look::First {
            counter.count();
        }
        answer
    }

    fn refused_lookup(&self, error: &RedisError) {
        if let Some(left_out) = self.refused_lookups.happened() {
            let error = connection::describe(error);
            warn!(error, left_out, "Redis refused a lookup");
        }
    }

    /// What stands under the key is not the answer. The next fill replaces it.
    fn poisoned(&self, key: &Key, found: &str) {
        if let Some(left_out) = self.poisoned.happened() {
            warn!(%key, found, left_out, "refused what stands in the cache");
        }
    }

    /// Stores the answer where it was missing, within what is left of the budget, over whatever
    /// stands there; the lease is released in the same round trip. `true` once Redis has it.
    pub(crate) async fn fill(&self, mut vacancy: Vacancy, answer: &[u8]) -> bool {
        let limit = self.options.max_answer_size;
        if limit.is_some_and(|limit| answer.len() > limit) {
            debug!(key = %vacancy.key, bytes = answer.len(), "an answer too large to be stored");
            self.counts.too_large.count();
            self.leave_empty(vacancy).await;
            return false;
        }
        let mut commands = redis::pipe();
        commands
            .ignore_errors()
            .add_command(self.set(&vacancy.key, answer));
        if let Some(lease) = &vacancy.lease {
            lease.release_with(&mut commands);
        }
        let operation = match &vacancy.lease {
            Some(_) => Operation::Pipeline,
            None => Operation::Set,
        };
        let filling = self.run_all_twice(&commands, &mut vacancy.budget);
        let replies: Result<Vec<Result<redis::Value, RedisError>>, _> =
            trace::within(|| trace::store(operation), filling).await;
        if let (Ok(_), Some(lease)) = (&replies, vacancy.lease) {
            lease.forget();
        }
        let reply = replies.map(|replies| replies.into_iter().next());
        let counter = match &reply {
            Ok(Some(Ok(_))) => &self.counts.stored,
            Ok(Some(Err(_))) | Err(Unanswered::Refused(_)) => &self.counts.refused,
            Ok(None) | Err(Unanswered::Unavailable) => &self.counts.unconfirmed,
        };
        counter.count();
        match &reply {
            Ok(Some(Ok(_))) => self.counts.refusals.filled(),
            Ok(Some(Err(error))) | Err(Unanswered::Refused(error)) => {
                let error = connection::describe(error);
                if let Some(left_out) = self.refused_fills.happened() {
                    warn!(key = %vacancy.key, error, left_out, "Redis refused a fill");
                }
                self.counts.refusals.fill(error);
            }
            Ok(None) | Err(Unanswered::Unavailable) => {}
        }
        matches!(reply, Ok(Some(Ok(_))))
    }

    fn set(&self, key: &Key, answer: &[u8]) -> Cmd {
        let mut command = redis::cmd("SET");
        command.arg(key.as_str()).arg(answer);
        if let Some(ttl) = self.options.ttl {
            // Redis refuses 0.
            let spread = ttl.mul_f64(1.0 - 0.1 * fastrand::f64());
            let millis = u64::try_from(spread.as_millis()).unwrap_or(u64::MAX);
            command.arg("PX").arg(millis.max(1));
        }
        command
    }

    async fn run_all<T: FromRedisValue>(
        &self,
        commands: &Pipeline,
        budget: &mut Budget,
    ) -> Result<T, Unanswered> {
        let started = Instant::now();
        let result = self.connection.run_all(commands, budget.0).await;
        budget.spend(started);
        result
    }

    /// The same for commands that may be carried out twice.
    async fn run_all_twice<T: FromRedisValue>(
        &self,
        commands: &Pipeline,
        budget: &mut Budget,
    ) -> Result<T, Unanswered> {
        let started = Instant::now();
        let result = self.connection.run_all_twice(commands, budget.0).await;
        budget.spend(started);
        result
    }
}

/// Why what stands under a key is no answer, of the error of a lookup.
fn no_answer(error: &RedisError) -> Option<&'static str> {
    match error.code()? {
        "WRONGTYPE" => Some("a value that is no string"),
        resp::TOO_BIG => Some("a value that is too large to be read"),
        _ => None,
    }
}
