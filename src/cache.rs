//! The shared result cache: look up an answer, fill it in where it was missing.
//!
//! Clients and workers both look up; whoever misses holds a [`Vacancy`], the permission without
//! which nothing can be filled. All that a process waits for Redis in one call comes out of one
//! budget, which the vacancy carries on. Whatever is wrong with Redis is a miss here, counted and
//! logged, never an error of the call. Here and below it alone: redis and bb8.

mod breaker;
mod connection;
mod key;

use std::sync::Arc;
use std::time::{Duration, Instant};

use redis::Cmd;
use tracing::warn;

pub(crate) use self::key::Key;
pub use self::key::{Namespace, NamespaceError};

use self::connection::{Connection, State, Unanswered};
use crate::error::{Error, quote};
use crate::procedure::{Procedure, check};
use crate::seldom::Seldom;
use crate::server_url::RedisUrl;

/// For a person who looks into the cache: not part of any call, so patience costs nobody.
const MANAGEMENT_DEADLINE: Duration = Duration::from_secs(5);

/// How long it is remembered that a request was begun.
const STARTS_TTL_MILLIS: i64 = 60 * 60 * 1000;

/// Where the cache is and how it is used.
#[derive(Debug, Clone)]
pub struct CacheOptions {
    /// The Redis that clients and workers share.
    pub url: RedisUrl,
    /// In front of all keys; none by default. Clients and workers of one deployment use the same.
    pub namespace: Option<Namespace>,
    /// All that one process may wait for Redis in one call. 50 ms by default.
    pub budget: Duration,
    /// How long an answer is kept, less up to 10 % at random so that what was filled together does
    /// not expire together. `None`: for ever. 1 day by default.
    pub ttl: Option<Duration>,
    /// Whether lookups wait for the first attempt to connect, up to 500 ms, for a process that makes
    /// a call and ends. Off by default: a long-lived process misses until it is connected.
    pub connect_first: bool,
}

impl CacheOptions {
    /// The defaults, with this Redis.
    #[must_use]
    pub fn new(url: RedisUrl) -> Self {
        Self {
            url,
            namespace: None,
            budget: Duration::from_millis(50),
            ttl: Some(Duration::from_secs(24 * 60 * 60)),
            connect_first: false,
        }
    }
}

/// A handle to the shared result cache; connects in the background and reconnects by itself.
#[derive(Debug)]
pub struct Cache {
    options: CacheOptions,
    connection: Connection,
    poisoned: Seldom,
    refused_lookups: Seldom,
    refused_fills: Seldom,
}

/// What a lookup found.
pub(crate) enum Lookup<A> {
    /// An answer that passed the check.
    Hit(A),
    /// None, and the permission to fill it in.
    Miss(Vacancy),
}

/// The permission to fill one key, held by whoever missed it.
#[must_use]
#[derive(Debug)]
pub(crate) struct Vacancy {
    key: Key,
    /// What is left of the call's budget.
    budget: Duration,
}

/// What stands under a key, for a person who looks.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Stored<A> {
    /// No such key.
    Nothing,
    /// An answer that passed the check.
    Answer(A),
    /// Something that calls would refuse and replace: peer text, escaped and shortened.
    Refused(String),
}

impl Cache {
    /// Starts connecting in the background; must be called within a Tokio runtime.
    #[must_use]
    pub fn open(options: CacheOptions) -> Self {
        let connection = Connection::open(options.url.clone(), options.budget);
        Self {
            options,
            connection,
            poisoned: Seldom::default(),
            refused_lookups: Seldom::default(),
            refused_fills: Seldom::default(),
        }
    }

    /// The key of this argument's answer.
    pub(crate) fn key<P: Procedure>(&self, argument: &P::Argument) -> Key {
        Key::new(
            self.options.namespace.as_ref(),
            P::NAME,
            &argument.to_string(),
        )
    }

    /// The permission to fill a key without having looked: for a call that wants a fresh answer.
    pub(crate) fn vacancy(&self, key: Key) -> Vacancy {
        Vacancy {
            key,
            budget: self.options.budget,
        }
    }

    /// Looks for an answer within the budget; what does not pass the check is a miss.
    ///
    /// Cancel safe.
    pub(crate) async fn lookup<P: Procedure>(
        &self,
        key: Key,
        procedure: &Arc<P>,
        argument: &Arc<P::Argument>,
    ) -> Lookup<P::Answer> {
        if self.options.connect_first {
            self.connection.settled().await;
        }
        let mut vacancy = self.vacancy(key);
        let started = Instant::now();
        let found = self
            .connection
            .run::<Option<Vec<u8>>>(&Cmd::get(vacancy.key.as_str()), vacancy.budget)
            .await;
        vacancy.budget = vacancy.budget.saturating_sub(started.elapsed());
        match found {
            Ok(None) | Err(Unanswered::Unavailable) => {}
            Ok(Some(text)) => match check(procedure, argument, text).await {
                Ok(answer) => return Lookup::Hit(answer),
                Err(text) => self.poisoned(&vacancy.key, &quote(&text)),
            },
            Err(Unanswered::Refused(error)) if error.code() == Some("WRONGTYPE") => {
                self.poisoned(&vacancy.key, "a value that is no string");
            }
            Err(Unanswered::Refused(error)) => {
                if let Some(left_out) = self.refused_lookups.happened() {
                    let error = connection::describe(&error);
                    warn!(key = %vacancy.key, error, left_out, "Redis refused a lookup");
                }
            }
        }
        Lookup::Miss(vacancy)
    }

    /// What stands under the key is not the answer. The next fill replaces it.
    fn poisoned(&self, key: &Key, found: &str) {
        if let Some(left_out) = self.poisoned.happened() {
            warn!(%key, found, left_out, "refused what stands in the cache");
        }
    }

    /// Stores the answer where it was missing, within what is left of the budget, over whatever
    /// stands there. `true` once Redis has it.
    pub(crate) async fn fill(&self, vacancy: Vacancy, answer: &str) -> bool {
        let mut command = redis::cmd("SET");
        command.arg(vacancy.key.as_str()).arg(answer);
        if let Some(ttl) = self.options.ttl {
            // Redis refuses 0.
            let spread = ttl.mul_f64(1.0 - 0.1 * fastrand::f64());
            let millis = u64::try_from(spread.as_millis()).unwrap_or(u64::MAX);
            command.arg("PX").arg(millis.max(1));
        }
        match self.connection.run::<()>(&command, vacancy.budget).await {
            Ok(()) => true,
            Err(Unanswered::Unavailable) => false,
            Err(Unanswered::Refused(error)) => {
                if let Some(left_out) = self.refused_fills.happened() {
                    let error = connection::describe(&error);
                    warn!(key = %vacancy.key, error, left_out, "Redis refused a fill");
                }
                false
            }
        }
    }

    /// Counts that a suspect request is about to be computed; how often that makes it. `None` if
    /// Redis cannot tell.
    pub(crate) async fn count_start(&self, key: &Key) -> Option<u64> {
        let starts = key.starts();
        let mut commands = redis::pipe();
        commands
            .incr(&starts, 1)
            .pexpire(&starts, STARTS_TTL_MILLIS)
            .ignore();
        let counted = self
            .connection
            .run_all(&commands, self.options.budget)
            .await;
        counted.ok().map(|(starts,): (u64,)| starts)
    }

    /// The suspect has not ended its worker.
    pub(crate) async fn forget_starts(&self, key: &Key) {
        let command = Cmd::unlink(key.starts());
        // Forgotten by itself in an hour.
        let _ = self
            .connection
            .run::<()>(&command, self.options.budget)
            .await;
    }

    /// What stands under the argument's key, as [`lookup`](Self::lookup) would see it, for a person
    /// who looks. Waits up to 5 s once connected.
    pub async fn get<P: Procedure>(
        &self,
        procedure: &Arc<P>,
        argument: &Arc<P::Argument>,
    ) -> Result<Stored<P::Answer>, Error> {
        let key = self.key::<P>(argument);
        let found = self
            .manage::<Option<Vec<u8>>>(&Cmd::get(key.as_str()))
            .await;
        match found {
            Ok(None) => Ok(Stored::Nothing),
            Ok(Some(text)) => Ok(match check(procedure, argument, text).await {
                Ok(answer) => Stored::Answer(answer),
                Err(text) => Stored::Refused(quote(&text)),
            }),
            Err(Unanswered::Refused(error)) if error.code() == Some("WRONGTYPE") => {
                Ok(Stored::Refused("a value that is no string".to_owned()))
            }
            Err(unanswered) => Err(self.error(unanswered)),
        }
    }

    /// Removes the argument's answer; `false` where there was none. Waits up to 5 s
    /// once connected.
    pub async fn remove<P: Procedure>(&self, argument: &P::Argument) -> Result<bool, Error> {
        let key = self.key::<P>(argument);
        let removed: u64 = self
            .manage(&Cmd::unlink(key.as_str()))
            .await
            .map_err(|unanswered| self.error(unanswered))?;
        Ok(removed == 1)
    }

    /// Calls `visit` with each key of the procedure, in no order, some maybe twice, as SCAN finds
    /// them: Redis serves others in between. Ends early when `visit` returns `false`.
    pub async fn keys<P: Procedure>(
        &self,
        mut visit: impl FnMut(&str) -> bool,
    ) -> Result<(), Error> {
        let pattern = format!("{}*", key::prefix(self.options.namespace.as_ref(), P::NAME));
        let mut cursor = 0_u64;
        loop {
            let mut scan = redis::cmd("SCAN");
            scan.arg(cursor)
                .arg("MATCH")
                .arg(&pattern)
                .arg("COUNT")
                .arg(1000);
            let (next, page): (u64, Vec<Vec<u8>>) = self
                .manage(&scan)
                .await
                .map_err(|unanswered| self.error(unanswered))?;
            // Whoever else writes to this Redis may have put anything there.
            let mut keys = page.iter().map(|key| String::from_utf8_lossy(key));
            if !keys.all(|key| visit(&key)) || next == 0 {
                return Ok(());
            }
            cursor = next;
        }
    }

    async fn manage<T: redis::FromRedisValue>(&self, command: &Cmd) -> Result<T, Unanswered> {
        self.connection.settled().await;
        self.connection.run(command, MANAGEMENT_DEADLINE).await
    }

    fn error(&self, unanswered: Unanswered) -> Error {
        let server = self.options.url.to_string();
        match unanswered {
            Unanswered::Refused(error) => Error::Refused {
                server,
                reason: connection::describe(&error),
            },
            Unanswered::Unavailable => match self.connection.state() {
                State::Down(error) => error,
                State::Connecting | State::Up => Error::Unreachable {
                    server,
                    reason: "no answer in time".to_owned(),
                },
            },
        }
    }
}
