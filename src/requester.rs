//! Publishes a request and awaits its reply under a deadline.
//!
//! The connection is made at the first request and kept by a supervisor task, see [`session`]. A
//! request that was under way when the connection was lost is published again on the next one, with
//! the same correlation id and what is left of its deadline: procedures are pure, so asking twice
//! does no harm.

mod pending;
mod session;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use lapin::types::ShortString;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tracing::debug;
use uuid::Uuid;

use self::pending::{Outcome, Pending};
use self::session::{Session, State, Supervisor};
use crate::error::{Error, ErrorCode};
use crate::message::{self, CacheUse, Reply};
use crate::server_url::AmqpUrl;
use crate::single_flight::Deadline;

/// To end politely.
const CLOSE_DEADLINE: Duration = Duration::from_secs(3);

/// Where requests go.
#[derive(Debug, Clone)]
pub(crate) struct RequesterOptions {
    pub(crate) url: AmqpUrl,
    pub(crate) queue: ShortString,
    /// One call and the end: direct reply-to on one connection, which takes fewer round trips.
    pub(crate) one_shot: bool,
}

#[derive(Debug)]
pub(crate) struct Requester {
    options: RequesterOptions,
    pending: Pending,
    state: watch::Sender<State>,
    stop: CancellationToken,
    supervisor: OnceLock<AbortOnDropHandle<()>>,
}

impl Requester {
    pub(crate) fn new(options: RequesterOptions) -> Self {
        Self {
            options,
            pending: Pending::default(),
            state: watch::Sender::new(State::Connecting),
            stop: CancellationToken::new(),
            supervisor: OnceLock::new(),
        }
    }

    /// Asks, and asks again while the connection or the request is lost and time is left. Cancel
    /// safe: the wait is forgotten; the request may still be answered.
    pub(crate) async fn request(
        &self,
        id: Uuid,
        body: &str,
        cache: CacheUse,
        deadline: &Deadline,
    ) -> Result<Reply, Error> {
        let mut had_session = false;
        loop {
            // A caller who joins the flight may extend the deadline. The request that is under way
            // then expires at the earlier moment, and is published again.
            let expires = deadline.at();
            if let Ok(session) = timeout_at(expires, self.session(had_session)).await {
                had_session = true;
                match self.ask(&*session?, id, body, cache, expires).await? {
                    Some(reply) if expired(&reply) && deadline.at() > expires => {}
                    Some(reply) => return Ok(reply),
                    None => {}
                }
            }
            if deadline.at() <= Instant::now() {
                return Err(self.timed_out());
            }
        }
    }

    /// Publishes once and waits. `None`: lost or expired, and worth another try while time is left.
    async fn ask(
        &self,
        session: &Session,
        id: Uuid,
        body: &str,
        cache: CacheUse,
        expires: Instant,
    ) -> Result<Option<Reply>, Error> {
        let Some(mut waiter) = self.pending.register(id) else {
            return Err(Error::Overloaded {
                reason: "too many calls at once from this process".to_owned(),
            });
        };
        let left = expires.saturating_duration_since(Instant::now());
        let properties = message::request_properties(id, &session.reply_to, left, cache);
        let publish = session.publish(&self.options.queue, id, body, properties);
        match timeout_at(expires, publish).await {
            Ok(Ok(())) => {}
            unsent => {
                debug!(?unsent, "a request was not sent");
                // lapin would send it whenever the broker reads again, long after its caller gave
                // up: such a connection is given up.
                session.useless.cancel();
                return Ok(None);
            }
        }
        tokio::select! {
            outcome = waiter.outcome() => match outcome {
                Outcome::Reply(reply) => Ok(Some(reply)),
                Outcome::Lost => Ok(None),
                Outcome::NobodyServing => Err(Error::NobodyServing {
                    queue: self.options.queue.to_string(),
                }),
                Outcome::Nacked => Err(Error::Overloaded {
                    reason: "the broker refused the request".to_owned(),
                }),
            },
            () = sleep_until(expires) => Ok(None),
        }
    }

    /// The session, once there is one. A call that had none yet fails with the reason if it cannot
    /// be had; one that lost its session waits for the next, as long as its deadline lets it.
    async fn session(&self, patient: bool) -> Result<Arc<Session>, Error> {
        self.supervisor.get_or_init(|| {
            let supervisor = Supervisor {
                options: self.options.clone(),
                pending: self.pending.clone(),
                state: self.state.clone(),
                stop: self.stop.clone(),
            };
            AbortOnDropHandle::new(tokio::spawn(supervisor.run()))
        });
        let mut state = self.state.subscribe();
        let settled = state
            .wait_for(|state| match state {
                State::Connecting => false,
                State::Up(session) => !session.useless.is_cancelled(),
                State::Down(_) => !patient,
            })
            .await;
        match settled.as_deref() {
            Ok(State::Up(session)) => Ok(Arc::clone(session)),
            Ok(State::Down(error)) => Err(error.clone()),
            // Neither can be: the sender is ours.
            Ok(State::Connecting) | Err(_) => Err(self.timed_out()),
        }
    }

    /// What to tell a caller whose time is up: while there is no connection, the reason for that
    /// says more than the time that has passed.
    pub(crate) fn timed_out(&self) -> Error {
        match &*self.state.borrow() {
            State::Down(error) => error.clone(),
            State::Connecting => Error::Unreachable {
                server: self.options.url.to_string(),
                reason: "not connected when the time was up".to_owned(),
            },
            State::Up(_) => Error::Deadline {
                timeout: Duration::ZERO,
            },
        }
    }

    /// Closes the connection politely, if there is one.
    pub(crate) async fn close(&self) {
        self.stop.cancel();
        if self.supervisor.get().is_none() {
            return;
        }
        let mut state = self.state.subscribe();
        // A broker that does not answer is not waited for; the socket goes all the same.
        let _ = timeout(
            CLOSE_DEADLINE,
            state.wait_for(|state| matches!(state, State::Down(_))),
        )
        .await;
    }
}

fn expired(reply: &Reply) -> bool {
    matches!(&reply.outcome, Err(failure) if failure.code == ErrorCode::Expired)
}
