//! The connection to Redis: created, checked and replaced by bb8, shared by all calls.
//!
//! One multiplexed connection serves the whole process. A keeper task takes it out of the pool and
//! leaves a clone in a slot that lookups read without a lock. When the connection is lost or its
//! [`Breaker`] trips, the keeper empties the slot, returns the broken connection to
//! the pool (which drops it) and asks for another at most once a second. While the slot is empty, a lookup
//! costs nothing: it misses at once. Nothing here knows about keys or answers.
//!
//! Two cases differ. A connection that is lost after it had worked is replaced at once: commands wait for
//! the new one within their limit, and nothing is logged unless there is none. And a server that answers but
//! cannot serve, a replica for example, is dialled again, its name resolved anew, while lookups go on over
//! the connection that there is.

mod health;
mod keeper;
mod manager;
mod open;
mod sentinel;
mod server;
mod slot;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use redis::aio::MultiplexedConnection;
use redis::{Cmd, ErrorKind, FromRedisValue, Pipeline, RedisError, Value, from_redis_value};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

pub(super) use self::health::Health;
pub(super) use self::open::{Signals, Terms};
pub(super) use self::sentinel::Sentinels;
pub(super) use self::server::{Mode, Server, announced, cluster_size};
use super::breaker::Breaker;
use super::errors::{CommandError, describe};
use crate::counts::{ConnectionMonitor, ConnectionState};
use crate::transport::Endpoint;

/// The process's connection to one Redis. Dropping it ends the keeper and the connection.
#[derive(Debug)]
pub(super) struct Connection {
    slot: Arc<Slot>,
    monitor: Arc<ConnectionMonitor>,
    _keeper: AbortOnDropHandle<()>,
}

/// The place where calls find the connection. The keeper fills and empties it, see [`slot`].
#[derive(Debug, Default)]
struct Slot {
    link: ArcSwapOption<Link>,
    /// While it is empty: whether a new connection is being made, so that waiting is worth while.
    replacing: AtomicBool,
    /// Notified of every change.
    changed: Notify,
    /// Cancelled when the first attempt to connect has ended, or calls may go ahead of its end.
    tried: CancellationToken,
    /// Whether calls of a process that waits for its first connection go ahead of the end of its check,
    /// right behind it: that saves them a round trip.
    ahead: bool,
}

/// One established connection.
#[derive(Debug)]
struct Link {
    connection: MultiplexedConnection,
    /// Where it leads to.
    endpoint: Endpoint,
    breaker: Breaker,
    /// The time in which Redis has to answer.
    patience: Duration,
    health: Arc<Health>,
    /// Set when the check of the connection has ended.
    server: OnceLock<Server>,
    /// Whether commands with several keys are sent key by key: the keys of a cluster are in several slots.
    one_by_one: AtomicBool,
}

/// Why one attempt at a command has no result.
enum Failed {
    /// The connection was lost.
    Lost,
    Late,
    Refused(RedisError),
}

impl From<Failed> for CommandError {
    fn from(failed: Failed) -> Self {
        match failed {
            Failed::Lost | Failed::Late => Self::Unavailable,
            Failed::Refused(error) => Self::Refused(error),
        }
    }
}

/// Commands that are sent in one round trip.
#[derive(Clone, Copy)]
pub(super) enum Request<'a> {
    One(&'a Cmd),
    Several(&'a Pipeline),
}

impl<'a> From<&'a Cmd> for Request<'a> {
    fn from(command: &'a Cmd) -> Self {
        Self::One(command)
    }
}

impl<'a> From<&'a Pipeline> for Request<'a> {
    fn from(commands: &'a Pipeline) -> Self {
        Self::Several(commands)
    }
}

impl Request<'_> {
    async fn send(self, mut connection: MultiplexedConnection) -> Result<Value, RedisError> {
        match self {
            Self::One(command) => command.query_async(&mut connection).await,
            Self::Several(commands) => commands.query_async(&mut connection).await,
        }
    }
}

impl Connection {
    /// Waits until the first attempt to connect has ended, well or not: a second at most.
    pub(super) async fn settled(&self) {
        let mut state = self.monitor.subscribe();
        // The sender cannot be gone: it is ours.
        let _ = state
            .wait_for(|state| *state != ConnectionState::Connecting)
            .await;
    }

    /// Waits until the first attempt to connect has ended, or, where commands may go ahead, until they can be
    /// sent right behind the check of the first connection.
    pub(super) async fn ready(&self) {
        self.slot.tried().await;
    }

    /// Whether commands would be sent now, or in a moment: a connection that was lost is being replaced.
    pub(super) fn is_up(&self) -> bool {
        self.slot.is_filled()
    }

    pub(super) fn state(&self) -> ConnectionState {
        self.monitor.state()
    }

    /// The server that the connection leads to; `None`: there is none, or its check has not ended.
    pub(super) fn server(&self) -> Option<Server> {
        self.slot.link()?.server.get().cloned()
    }

    /// Runs commands, waiting for Redis no longer than `limit`. Cancel safe: what was sent is carried out
    /// all the same.
    pub(super) async fn run<T: FromRedisValue>(
        &self,
        request: impl Into<Request<'_>>,
        limit: Duration,
    ) -> Result<T, CommandError> {
        readable(self.send(request.into(), limit).await)
    }

    /// Runs commands, and returns their replies as they are.
    pub(super) async fn send(
        &self,
        request: Request<'_>,
        limit: Duration,
    ) -> Result<Value, CommandError> {
        let send = async |connection| request.send(connection).await;
        self.within(limit, send).await
    }

    /// Runs commands that may be carried out twice: where the connection turns out to be lost, they are
    /// sent again on the next one, within the same limit.
    pub(super) async fn run_twice<T: FromRedisValue>(
        &self,
        request: impl Into<Request<'_>>,
        limit: Duration,
    ) -> Result<T, CommandError> {
        readable(self.send_twice(request.into(), limit).await)
    }

    async fn within<T>(
        &self,
        limit: Duration,
        send: impl AsyncFnOnce(MultiplexedConnection) -> Result<T, RedisError>,
    ) -> Result<T, CommandError> {
        let started = Instant::now();
        let link = self.link(started + limit).await?;
        Ok(self.attempt(&link, started, limit, send).await?)
    }

    /// Runs commands as [`run_twice`](Self::run_twice) does, and returns their replies as they are.
    pub(super) async fn send_twice(
        &self,
        request: Request<'_>,
        limit: Duration,
    ) -> Result<Value, CommandError> {
        let started = Instant::now();
        let link = self.link(started + limit).await?;
        let send = async |connection| request.send(connection).await;
        match self.attempt(&link, started, limit, send).await {
            Err(Failed::Lost) => {
                let next = self.slot.next(Some(&link), started + limit).await;
                let next = next.ok_or(CommandError::Unavailable)?;
                let left = limit.saturating_sub(started.elapsed());
                let send = async |connection| request.send(connection).await;
                Ok(self.attempt(&next, Instant::now(), left, send).await?)
            }
            first => Ok(first?),
        }
    }

    /// The server's endpoint; `None`: there is no connection.
    pub(super) fn endpoint(&self) -> Option<Endpoint> {
        Some(self.slot.link()?.endpoint.clone())
    }

    /// Whether commands with several keys are sent key by key over the connection that there is.
    pub(super) fn goes_one_by_one(&self) -> bool {
        let link = self.slot.link();
        link.is_some_and(|link| link.one_by_one.load(Ordering::Relaxed))
    }

    /// Remembers for this connection that keys go one by one.
    pub(super) fn go_one_by_one(&self) {
        if let Some(link) = self.slot.link() {
            link.one_by_one.store(true, Ordering::Relaxed);
        }
    }

    /// The connection, or the one that is about to replace it.
    async fn link(&self, deadline: Instant) -> Result<Arc<Link>, CommandError> {
        let link = match self.slot.link() {
            Some(link) => Some(link),
            None => self.slot.next(None, deadline).await,
        };
        link.ok_or(CommandError::Unavailable)
    }

    async fn attempt<T>(
        &self,
        link: &Link,
        started: Instant,
        limit: Duration,
        send: impl AsyncFnOnce(MultiplexedConnection) -> Result<T, RedisError>,
    ) -> Result<T, Failed> {
        let answer = timeout_at(started + limit, send(link.connection.clone())).await;
        if !matches!(answer, Ok(Ok(_))) {
            // A command that went ahead of the check: its result is logged before the call goes on without Redis.
            self.settled().await;
            if link.server.get().is_none() && !self.is_up() {
                // The check has refused that server.
                return Err(Failed::Late);
            }
        }
        match answer {
            Ok(Ok(value)) => {
                link.breaker.answered();
                Ok(value)
            }
            Ok(Err(error)) if error.is_unrecoverable_error() => {
                link.health.lost(|| describe(&error));
                Err(Failed::Lost)
            }
            Ok(Err(error)) => {
                link.breaker.answered();
                Err(Failed::Refused(error))
            }
            Err(_elapsed) => {
                // With less than the whole budget, a time-out says nothing about Redis.
                if limit >= link.patience && link.breaker.timed_out(started, Instant::now()) {
                    link.health.late(limit);
                }
                Err(Failed::Late)
            }
        }
    }
}

/// Converts a reply. Anybody may have stored something else: a reply that cannot be read says nothing about
/// the connection.
pub(super) fn readable<T: FromRedisValue>(
    answer: Result<Value, CommandError>,
) -> Result<T, CommandError> {
    from_redis_value(answer?).map_err(|error| {
        let error = (
            ErrorKind::UnexpectedReturnType,
            "unreadable",
            error.to_string(),
        );
        CommandError::Refused(error.into())
    })
}

#[cfg(test)]
mod tests;
