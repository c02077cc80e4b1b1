//! The connection to Redis: created, checked and replaced by bb8, shared by all calls.
//!
//! One multiplexed connection serves the whole process. A keeper task takes it out of the pool and
//! leaves a clone in a slot that lookups read without a lock; when the connection is lost or its
//! [`Breaker`] trips, the keeper empties the slot, returns the broken connection to the pool (which
//! drops it) and asks for another at most once a second. While the slot is empty, a lookup costs
//! nothing: it misses at once. Nothing here knows about keys or answers.

mod manager;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use bb8::{Pool, PooledConnection};
use redis::aio::MultiplexedConnection;
use redis::{Cmd, ErrorKind, FromRedisValue, Pipeline, RedisError};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tracing::{info, warn};

use self::manager::{CONNECT_DEADLINE, Failures, Manager};
use super::breaker::Breaker;
use crate::counts::{CacheCounts, State};
use crate::error::{Error, quote};
use crate::server_url::RedisUrl;

/// Between two attempts to connect, and up to a half of it more at random.
const REDIAL_PAUSE: Duration = Duration::from_secs(1);

/// The process's connection to one Redis. Dropping it ends the keeper and the connection.
#[derive(Debug)]
pub(crate) struct Connection {
    slot: Arc<Slot>,
    counts: Arc<CacheCounts>,
    _keeper: AbortOnDropHandle<()>,
}

/// Where calls find the connection.
#[derive(Debug, Default)]
struct Slot {
    link: ArcSwapOption<Link>,
    /// Cancelled when the first attempt to connect has ended, or calls may go ahead of its end.
    tried: CancellationToken,
    /// Whether calls of a process that waits for its first connection go ahead of the end of its check,
    /// right behind it: that saves them a round trip.
    ahead: bool,
}

impl Slot {
    /// The check of the first connection begins: calls that go ahead may use it from now on.
    fn may_be_used_unchecked(&self, link: &Arc<Link>) {
        if self.ahead && !self.tried.is_cancelled() {
            self.link.store(Some(Arc::clone(link)));
            self.tried.cancel();
        }
    }
}

/// One established connection.
#[derive(Debug)]
struct Link {
    connection: MultiplexedConnection,
    breaker: Breaker,
    /// What Redis has to answer within.
    patience: Duration,
    /// Cancelled when the connection is of no more use; the reason is left in `why`.
    down: CancellationToken,
    why: OnceLock<Why>,
}

/// Why a connection was given up.
#[derive(Debug)]
enum Why {
    /// It was lost, and how.
    Lost(String),
    /// Its breaker tripped: no answer within this.
    Late(Duration),
}

/// Why a command has no result.
#[derive(Debug, Clone)]
pub(crate) enum Unanswered {
    /// There is no connection, or it was lost, or the time ran out.
    Unavailable,
    /// Redis answered, with an error.
    Refused(RedisError),
}

impl Connection {
    /// Connects in the background. `patience` bounds the wait for a command's answer, for the
    /// check of a fresh connection as for the calls themselves. What becomes of it is told to
    /// `counts`; lookups look at the slot instead. `ahead`: see [`ready`](Self::ready).
    pub(crate) fn open(
        url: RedisUrl,
        patience: Duration,
        ahead: bool,
        counts: Arc<CacheCounts>,
    ) -> Self {
        let slot = Arc::new(Slot {
            ahead,
            ..Slot::default()
        });
        let keeper = keep(url, patience, Arc::clone(&slot), Arc::clone(&counts));
        let keeper = tokio::spawn(keeper);
        Self {
            slot,
            counts,
            _keeper: AbortOnDropHandle::new(keeper),
        }
    }

    /// Waits until the first attempt to connect has ended, well or not: [`CONNECT_DEADLINE`] at
    /// most.
    pub(crate) async fn settled(&self) {
        let mut state = self.counts.redis.subscribe();
        // The sender cannot be gone: it is ours.
        let _ = state.wait_for(|state| *state != State::Connecting).await;
    }

    /// The same, or until a command can be sent behind the check of the first connection, where that is
    /// opened for commands that go ahead.
    pub(crate) async fn ready(&self) {
        self.slot.tried.cancelled().await;
    }

    /// Waits for a connection, for ever if need be.
    pub(crate) async fn up(&self) {
        let mut state = self.counts.redis.subscribe();
        // The sender cannot be gone: it is ours.
        let _ = state.wait_for(|state| *state == State::Up).await;
    }

    /// Whether commands would be sent at this moment.
    pub(crate) fn is_up(&self) -> bool {
        self.slot.link.load().is_some()
    }

    pub(crate) fn counts(&self) -> &Arc<CacheCounts> {
        &self.counts
    }

    pub(crate) fn state(&self) -> State {
        self.counts.redis.state()
    }

    /// Runs one command, waiting for Redis no longer than `limit`. Cancel safe: a command that
    /// was sent is carried out all the same.
    pub(crate) async fn run<T: FromRedisValue>(
        &self,
        command: &Cmd,
        limit: Duration,
    ) -> Result<T, Unanswered> {
        let send = async |mut connection| command.query_async(&mut connection).await;
        self.within(limit, send).await
    }

    /// The same for several commands in one round trip.
    pub(crate) async fn run_all<T: FromRedisValue>(
        &self,
        commands: &Pipeline,
        limit: Duration,
    ) -> Result<T, Unanswered> {
        let send = async |mut connection| commands.query_async(&mut connection).await;
        self.within(limit, send).await
    }

    async fn within<T>(
        &self,
        limit: Duration,
        send: impl AsyncFnOnce(MultiplexedConnection) -> Result<T, RedisError>,
    ) -> Result<T, Unanswered> {
        let Some(link) = self.slot.link.load_full() else {
            return Err(Unanswered::Unavailable);
        };
        let started = Instant::now();
        let answer = timeout_at(started + limit, send(link.connection.clone())).await;
        if !matches!(answer, Ok(Ok(_))) {
            // Whoever went ahead: what the check finds is told before the call goes on without Redis.
            self.settled().await;
        }
        match answer {
            Ok(Ok(value)) => {
                link.breaker.answered();
                Ok(value)
            }
            Ok(Err(error)) if error.is_unrecoverable_error() => {
                link.give_up(|| Why::Lost(describe(&error)));
                Err(Unanswered::Unavailable)
            }
            Ok(Err(error)) => {
                link.breaker.answered();
                Err(Unanswered::Refused(error))
            }
            Err(_elapsed) => {
                // With less than the whole budget, being late says nothing about Redis.
                if limit >= link.patience && link.breaker.timed_out(started, Instant::now()) {
                    link.give_up(|| Why::Late(limit));
                }
                Err(Unanswered::Unavailable)
            }
        }
    }
}

impl Link {
    fn new(connection: MultiplexedConnection, patience: Duration) -> Self {
        Self {
            connection,
            breaker: Breaker::default(),
            patience,
            down: CancellationToken::new(),
            why: OnceLock::new(),
        }
    }

    fn give_up(&self, why: impl FnOnce() -> Why) {
        self.why.get_or_init(why);
        self.down.cancel();
    }

    /// Counts the end of it, and says why it ended.
    fn ended(&self, counts: &CacheCounts) -> String {
        match self.why.get() {
            Some(Why::Late(limit)) => {
                counts.redis.late.count();
                format!("no answer within {} ms", limit.as_millis())
            }
            Some(Why::Lost(how)) => {
                counts.redis.lost.count();
                how.clone()
            }
            // Nothing cancels it without a reason.
            None => String::new(),
        }
    }
}

/// The keeper: fills the slot while Redis is there, empties it while not. One log line a change.
async fn keep(url: RedisUrl, patience: Duration, slot: Arc<Slot>, counts: Arc<CacheCounts>) {
    let redis = &counts.redis;
    let (failed, mut failures) = mpsc::unbounded_channel();
    let pool = match Manager::new(&url, patience, Arc::clone(&slot)) {
        Ok(manager) => Pool::builder()
            .max_size(1)
            .connection_timeout(CONNECT_DEADLINE * 2)
            .retry_connection(false)
            .test_on_check_out(false)
            .max_lifetime(None)
            .idle_timeout(None)
            .error_sink(Box::new(Failures(failed)))
            .build_unchecked(manager),
        Err(error) => {
            redis.down(unreachable(&url, describe(&error)));
            slot.tried.cancel();
            return;
        }
    };
    loop {
        let next = Instant::now() + REDIAL_PAUSE.mul_f32(1.0 + 0.5 * fastrand::f32());
        let error = match check_out(&url, &pool, &mut failures).await {
            Ok(link) => {
                slot.link.store(Some(Arc::clone(&*link)));
                if matches!(redis.up(), State::Down(_)) {
                    info!("Redis at {url} is back");
                }
                slot.tried.cancel();
                link.down.cancelled().await;
                unreachable(&url, link.ended(&counts))
            }
            Err(error) => error,
        };
        slot.link.store(None);
        let told = error.to_string();
        if !matches!(redis.down(error), State::Down(_)) {
            warn!("{told}; calls go on without the cache");
        }
        slot.tried.cancel();
        sleep_until(next).await;
    }
}

/// A fresh connection out of the pool. It stays checked out for as long as it is of use, and is
/// returned as broken: bb8 drops it then.
async fn check_out(
    url: &RedisUrl,
    pool: &Pool<Manager>,
    failures: &mut mpsc::UnboundedReceiver<Error>,
) -> Result<PooledConnection<'static, Manager>, Error> {
    tokio::select! {
        link = pool.get_owned() => {
            link.map_err(|_| unreachable(url, "connecting takes too long".to_owned()))
        }
        // Without this, an attempt that failed at once would be noticed only when the pool's own
        // patience ends.
        Some(error) = failures.recv() => Err(error),
    }
}

/// What Redis said, or what happened to the connection, for a log line.
pub(crate) fn describe(error: &RedisError) -> String {
    if error.is_connection_refusal() {
        return "nothing is listening there".to_owned();
    }
    if error.is_timeout() {
        return "it answers too late to be of use".to_owned();
    }
    if error.kind() == ErrorKind::Parse {
        return "what answers there is not Redis".to_owned();
    }
    let text = match (error.code(), error.detail()) {
        (Some(code), Some(detail)) => format!("{code} {detail}"),
        (Some(code), None) => code.to_owned(),
        (None, _) => error.to_string(),
    };
    quote(text.as_bytes())
}

pub(super) fn unreachable(url: &RedisUrl, reason: String) -> Error {
    Error::Unreachable {
        server: url.to_string(),
        reason,
    }
}

#[cfg(test)]
mod tests;
