//! Publishes a request and waits for its reply until a deadline.
//!
//! A supervisor task connects at the first request and reconnects after a loss, see [`session`]. Requests in
//! flight at a loss are published again on the next connection, with the same correlation id and the time left:
//! procedures are pure, so computing twice is harmless.

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

use self::pending::{MAX_IN_FLIGHT, Outcome, Pending};
use self::retry_budget::RetryBudget;
use self::session::{SessionHandle, SessionState, Supervisor};
use crate::cache_use::CacheUse;
use crate::counts::BrokerCounts;
use crate::error::Error;
use crate::message::{self, Reply};
use crate::server_url::AmqpUrl;
use crate::single_flight::Deadline;
use crate::trace;

/// Pause before publishing a request again that the broker could not route: workers may be restarting.
const UNROUTABLE_PAUSE: Duration = Duration::from_millis(100);

/// Time for the closing handshakes.
const CLOSE_DEADLINE: Duration = Duration::from_secs(3);

/// Where and how requests are sent.
#[derive(Debug, Clone)]
pub(crate) struct RequesterOptions {
    pub(crate) url: AmqpUrl,
    pub(crate) queue: ShortString,
    /// For a process that makes one call: direct reply-to on one connection takes fewer round trips.
    pub(crate) one_shot: bool,
}

/// Sends requests to one queue and returns their replies.
#[derive(Debug)]
pub(crate) struct Requester {
    options: RequesterOptions,
    pending: Pending,
    copies: RetryBudget,
    state: watch::Sender<SessionState>,
    /// The connection's state, for metrics.
    counts: Arc<BrokerCounts>,
    stop: CancellationToken,
    supervisor: OnceLock<AbortOnDropHandle<()>>,
}

impl Requester {
    pub(crate) fn new(options: RequesterOptions) -> Self {
        Self {
            options,
            pending: Pending::new(MAX_IN_FLIGHT),
            copies: RetryBudget::new(),
            state: watch::Sender::new(SessionState::Connecting),
            counts: Arc::default(),
            stop: CancellationToken::new(),
            supervisor: OnceLock::new(),
        }
    }

    /// The connection's state and counters.
    #[cfg(feature = "metrics")]
    pub(crate) fn counts(&self) -> &Arc<BrokerCounts> {
        &self.counts
    }

    /// Sends a request and returns its reply; sends it again if the connection or the request is lost and time is
    /// left. With `wait`, does not fail while no worker serves the queue. Cancel safe: the reply is dropped if the
    /// request is answered later.
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
        // A caller that joins the flight may extend the deadline. Copies in flight then still expire at the earlier
        // moment; their `expired` replies are ignored, and the request is published again.
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
                        // The session may have come at the last moment, with no time left.
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
                    // The deadline is checked next, whether the pause elapsed or was cut.
                    let _ = timeout_at(expires, sleep(UNROUTABLE_PAUSE)).await;
                }
                Outcome::Lost => {}
            }
            if deadline.at() <= Instant::now() {
                return Err(self.timed_out());
            }
        }
    }

    /// The trace's span from publishing a request to its confirm.
    fn sending(&self, id: Uuid, body: &str) -> Span {
        trace::begin(|| trace::send(self.options.queue.as_str(), &id.to_string(), body.len()))
    }

    /// Publishes and waits until `expires`; publishes a copy after half of that time, if the retry budget allows
    /// it.
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
        // The request may be lost unnoticed. If its worker is only slow, the copy finds the answer in the cache.
        if self.copies.withdraw() && !publish() {
            return Ok(Outcome::Lost);
        }
        let outcome = timeout_at(expires, waiter.outcome()).await;
        Ok(outcome.unwrap_or(Outcome::Lost))
    }

    /// Waits for a session. If connecting fails, an impatient call fails with the reason; a `patient` one, such as
    /// a call that lost its session, keeps waiting.
    async fn session(&self, patient: bool) -> Result<Arc<SessionHandle>, Error> {
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
        let is_settled = |state: &SessionState| match state {
            SessionState::Connecting => false,
            SessionState::Up(session) => !session.is_over(),
            SessionState::Down(_) => !patient,
            SessionState::Closed => true,
        };
        let waits = !is_settled(&state.borrow());
        let _span = waits.then(|| trace::begin(trace::connect_to_rabbitmq));
        let settled = state.wait_for(is_settled).await;
        match settled.as_deref() {
            Ok(SessionState::Up(session)) => Ok(Arc::clone(session)),
            Ok(SessionState::Down(error)) => Err(error.clone()),
            // An error is impossible: `self` holds the sender.
            Ok(SessionState::Connecting | SessionState::Closed) | Err(_) => Err(self.closed()),
        }
    }

    fn closed(&self) -> Error {
        Error::Unreachable {
            server: self.options.url.to_string(),
            reason: "this client was closed".to_owned(),
        }
    }

    /// The error of a call that timed out: why there is no connection, if there is none, else the deadline.
    pub(crate) fn timed_out(&self) -> Error {
        match &*self.state.borrow() {
            SessionState::Down(error) => error.clone(),
            SessionState::Closed => self.closed(),
            SessionState::Up(_) | SessionState::Connecting => Error::Deadline {
                timeout: Duration::ZERO,
            },
        }
    }

    /// Fails calls in flight, and closes the connections with AMQP's handshake, within 3 s.
    pub(crate) async fn close(&self) {
        self.stop.cancel();
        if self.supervisor.get().is_none() {
            return;
        }
        let mut state = self.state.subscribe();
        let closed = state.wait_for(|state| matches!(state, SessionState::Closed));
        // If the broker does not answer in time, the socket is closed without the handshake.
        let _ = timeout(CLOSE_DEADLINE, closed).await;
    }
}
