//! Publishes a request and awaits its reply under a deadline.
//!
//! The connection is made at the first request and kept by a supervisor task, see [`session`]. A
//! request that was under way when the connection was lost is published again on the next one, with
//! the same correlation id and what is left of its deadline: procedures are pure, so asking twice
//! does no harm.

mod channels;
mod pending;
mod requests;
mod retry_budget;
mod session;
#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use lapin::types::ShortString;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tracing::Span;
use uuid::Uuid;

use self::pending::{MOST_IN_FLIGHT, Outcome, Pending};
use self::retry_budget::RetryBudget;
use self::session::{Session, State, Supervisor};
use crate::cache_use::CacheUse;
use crate::counts::BrokerCounts;
use crate::error::Error;
use crate::message::{self, Reply};
use crate::server_url::AmqpUrl;
use crate::single_flight::Deadline;
use crate::trace;

/// Before a request is published again that found no queue, while workers may be restarting.
const UNROUTABLE_PAUSE: Duration = Duration::from_millis(100);

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
    copies: RetryBudget,
    state: watch::Sender<State>,
    /// For who does not call, and only wants to know.
    counts: Arc<BrokerCounts>,
    stop: CancellationToken,
    supervisor: OnceLock<AbortOnDropHandle<()>>,
}

impl Requester {
    pub(crate) fn new(options: RequesterOptions) -> Self {
        Self {
            options,
            pending: Pending::new(MOST_IN_FLIGHT),
            copies: RetryBudget::new(),
            state: watch::Sender::new(State::Connecting),
            counts: Arc::default(),
            stop: CancellationToken::new(),
            supervisor: OnceLock::new(),
        }
    }

    /// What it counts.
    #[cfg(feature = "metrics")]
    pub(crate) fn counts(&self) -> &Arc<BrokerCounts> {
        &self.counts
    }

    /// Asks, and asks again while the connection or the request is lost and time is left. With
    /// `wait`, a worker may come as late as the deadline. Cancel safe: the wait is forgotten; the
    /// request may still be answered.
    pub(crate) async fn request(
        &self,
        id: Uuid,
        body: &str,
        cache: CacheUse,
        wait: bool,
        deadline: &Deadline,
    ) -> Result<Reply, Error> {
        let mut had_session = false;
        let mut nacked = false;
        // A caller who joins the flight may extend the deadline. What is under way then expires at
        // the earlier moment, says so maybe, and is published again.
        let published = AtomicU32::new(0);
        let mut outdated = 0;
        let mut expires = deadline.at();
        let outlived = |expires: &mut Instant| match std::mem::replace(expires, deadline.at()) {
            earlier if earlier < *expires => published.swap(0, Ordering::Relaxed),
            _ => 0,
        };
        self.copies.deposit();
        loop {
            outdated += outlived(&mut expires);
            let outcome = match timeout_at(expires, self.session(had_session)).await {
                Ok(session) => {
                    let session = session?;
                    let patient = wait || had_session;
                    had_session = true;
                    let publish = || {
                        let left = expires.saturating_duration_since(Instant::now());
                        let properties =
                            message::request_properties(id, &session.reply_to, left, cache);
                        let span = self.sending(id, body);
                        let properties = if span.is_disabled() {
                            properties
                        } else {
                            let context = trace::context_of(&span);
                            let asks_steps = trace::asks_workers();
                            message::traced(properties, context.as_ref(), asks_steps)
                        };
                        // A session that came at the last moment came too late.
                        let sent = !left.is_zero() && session.publish(id, body, properties, span);
                        published.fetch_add(u32::from(sent), Ordering::Relaxed);
                        sent
                    };
                    self.ask(id, patient, expires, publish).await?
                }
                Err(_elapsed) => Outcome::Lost,
            };
            outdated += outlived(&mut expires);
            match outcome {
                Outcome::Reply(reply) if reply.is_expired() && outdated > 0 => outdated -= 1,
                Outcome::Reply(reply) => return Ok(reply),
                Outcome::Failed(error) => return Err(error),
                Outcome::Nacked if nacked => {
                    return Err(Error::Overloaded {
                        reason: "the broker refused the request".to_owned(),
                    });
                }
                Outcome::Nacked | Outcome::Unroutable => {
                    nacked |= outcome == Outcome::Nacked;
                    // Elapsed or not, the deadline is looked at next.
                    let _ = timeout_at(expires, sleep(UNROUTABLE_PAUSE)).await;
                }
                Outcome::Lost => {}
            }
            if deadline.at() <= Instant::now() {
                return Err(self.timed_out());
            }
        }
    }

    /// The step that begins with the publishing of a request.
    fn sending(&self, id: Uuid, body: &str) -> Span {
        trace::begin(|| trace::send(self.options.queue.as_str(), &id.to_string(), body.len()))
    }

    /// Publishes and waits until `expires`; after half of that time publishes once more, if the
    /// budget for copies allows it.
    async fn ask(
        &self,
        id: Uuid,
        patient: bool,
        expires: Instant,
        publish: impl Fn() -> bool,
    ) -> Result<Outcome, Error> {
        let Some(mut waiter) = self.pending.register(id, patient) else {
            return Err(Error::Overloaded {
                reason: "too many calls at once from this process".to_owned(),
            });
        };
        if !publish() {
            return Ok(Outcome::Lost);
        }
        let half = expires.saturating_duration_since(Instant::now()) / 2;
        if let Ok(outcome) = timeout(half, waiter.outcome()).await {
            return Ok(outcome);
        }
        // It may be lost without anybody's knowing. If its worker is only slow, the copy finds the
        // answer in the cache.
        if self.copies.withdraw() && !publish() {
            return Ok(Outcome::Lost);
        }
        let outcome = timeout_at(expires, waiter.outcome()).await;
        Ok(outcome.unwrap_or(Outcome::Lost))
    }

    /// The session, once there is one. A call that had none yet fails with the reason if it cannot
    /// be had; one that lost its session waits for the next, as long as its deadline lets it.
    async fn session(&self, patient: bool) -> Result<Arc<Session>, Error> {
        self.supervisor.get_or_init(|| {
            let supervisor = Supervisor {
                options: self.options.clone(),
                pending: self.pending.clone(),
                state: self.state.clone(),
                counts: Arc::clone(&self.counts),
                stop: self.stop.clone(),
            };
            AbortOnDropHandle::new(tokio::spawn(supervisor.run()))
        });
        let mut state = self.state.subscribe();
        let is_settled = |state: &State| match state {
            State::Connecting => false,
            State::Up(session) => !session.is_over(),
            State::Down(_) => !patient,
            State::Closed => true,
        };
        let waits = !is_settled(&state.borrow());
        let _span = waits.then(|| trace::begin(trace::connect_to_rabbitmq));
        let settled = state.wait_for(is_settled).await;
        match settled.as_deref() {
            Ok(State::Up(session)) => Ok(Arc::clone(session)),
            Ok(State::Down(error)) => Err(error.clone()),
            // The sender is ours: it cannot be gone.
            Ok(State::Connecting | State::Closed) | Err(_) => Err(self.closed()),
        }
    }

    fn closed(&self) -> Error {
        Error::Unreachable {
            server: self.options.url.to_string(),
            reason: "this client was closed".to_owned(),
        }
    }

    /// What to tell a caller whose time is up: while there is no connection, the reason for that
    /// says more than the time that has passed.
    pub(crate) fn timed_out(&self) -> Error {
        match &*self.state.borrow() {
            State::Down(error) => error.clone(),
            State::Closed => self.closed(),
            State::Up(_) | State::Connecting => Error::Deadline {
                timeout: Duration::ZERO,
            },
        }
    }

    /// Ends calls that are under way, and closes the connection politely if there is one.
    pub(crate) async fn close(&self) {
        self.stop.cancel();
        if self.supervisor.get().is_none() {
            return;
        }
        let mut state = self.state.subscribe();
        let closed = state.wait_for(|state| matches!(state, State::Closed));
        // A broker that does not answer is not waited for; the socket goes all the same.
        let _ = timeout(CLOSE_DEADLINE, closed).await;
    }
}
