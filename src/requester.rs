//! Publishes a request and waits for its reply until a deadline.
//!
//! [`Requester::request`] is the whole path of a request. A waiter in [`pending`] gets its outcome; [`session`]
//! publishes it and reads its reply. Beside that path, [`supervisor`] connects at the first request and reconnects
//! after a loss. Requests in flight at a loss are published again on the next connection, with the same correlation
//! id and the time left: procedures are pure, so computing twice is harmless.

mod pending;
mod request_channel;
mod retry_budget;
mod session;
mod standby;
mod successor;
mod supervisor;
#[cfg(test)]
mod tests;

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use lapin::types::ShortString;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use uuid::Uuid;

use self::pending::{MAX_IN_FLIGHT, Outcome, Pending};
use self::retry_budget::RetryBudget;
use self::session::{Publication, SessionHandle};
use self::supervisor::{SessionState, Supervisor};
use crate::cache_use::CacheUse;
use crate::counts::BrokerCounts;
use crate::error::Error;
use crate::message::{self, Reply};
use crate::server_url::AmqpUrl;
use crate::single_flight::Deadline;
use crate::trace;

/// Pause before publishing a request again that the broker could not route: workers may be restarting.
const UNROUTABLE_PAUSE: Duration = Duration::from_millis(100);

/// Copies of a request in one session.
const MAX_COPIES: u32 = 3;

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
        let mut request = Outgoing::new(id, body, cache, deadline);
        let (mut had_session, mut nacked) = (false, false);
        self.copies.deposit();
        loop {
            request.follow_deadline();
            let outcome = match timeout_at(request.expires, self.session(had_session)).await {
                Ok(session) => {
                    let session = session?;
                    // After a loss, workers reconnect, too.
                    let patient = wait || had_session;
                    had_session = true;
                    self.attempt(&mut request, &session, patient).await?
                }
                Err(_elapsed) => Outcome::Lost,
            };
            request.follow_deadline();
            match outcome {
                Outcome::Reply(reply) => {
                    if !request.is_outdated(&reply) {
                        return Ok(reply);
                    }
                }
                Outcome::Failed(error) => return Err(error),
                Outcome::Nacked if nacked => {
                    return Err(overloaded("the broker refused the request"));
                }
                Outcome::Nacked | Outcome::Unroutable => {
                    nacked |= outcome == Outcome::Nacked;
                    // The deadline is checked next, whether the pause elapsed or was cut.
                    let _ = timeout_at(request.expires, sleep(UNROUTABLE_PAUSE)).await;
                }
                Outcome::Lost => {}
            }
            if deadline.at() <= Instant::now() {
                return Err(self.timed_out());
            }
        }
    }

    /// Publishes the request in one session and waits for the outcome, until the request expires. Publishes a copy
    /// after half of that time, and up to two more, each after half of the rest, if the retry budget allows it or the
    /// queue is empty.
    async fn attempt(
        &self,
        request: &mut Outgoing<'_>,
        session: &SessionHandle,
        patient: bool,
    ) -> Result<Outcome, Error> {
        // Registered first: an outcome may come at once, and the end of the session is one.
        let Some(mut waiter) = self.pending.register(request.id, patient) else {
            return Err(overloaded("too many calls at once from this process"));
        };
        let queue = self.options.queue.as_str();
        if !request.publish(session, queue) {
            return Ok(Outcome::Lost);
        }
        // The request may be lost unnoticed, and so may a copy: a node that is cut off holds what the workers
        // there have not acked. If its worker is only slow, a copy finds the answer in the cache.
        for _ in 0..MAX_COPIES {
            let half = request.time_left() / 2;
            if let Ok(outcome) = timeout(half, waiter.outcome()).await {
                return Ok(outcome);
            }
            // Where nothing waits in the queue, a copy delays no other request.
            let may_copy = session.queue_is_empty() || self.copies.withdraw();
            if may_copy && !request.publish(session, queue) {
                return Ok(Outcome::Lost);
            }
        }
        let outcome = timeout_at(request.expires, waiter.outcome()).await;
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
                leader_answered: AtomicBool::new(false),
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

/// A request, and which of its publications have expired by now.
///
/// A caller that joins the flight may extend the deadline. What was published before then still expires at the earlier
/// moment, and is answered `expired` by the worker that takes it: such a reply says nothing about the request.
struct Outgoing<'a> {
    id: Uuid,
    body: &'a str,
    cache: CacheUse,
    deadline: &'a Deadline,
    /// When publications expire from now on: the deadline, when it was last read.
    expires: Instant,
    /// Publications that expire then.
    current: u32,
    /// Publications that expire earlier, and whose expiry was not replied yet.
    outdated: u32,
}

impl<'a> Outgoing<'a> {
    fn new(id: Uuid, body: &'a str, cache: CacheUse, deadline: &'a Deadline) -> Self {
        Self {
            id,
            body,
            cache,
            deadline,
            expires: deadline.at(),
            current: 0,
            outdated: 0,
        }
    }

    /// Reads the deadline; if it was extended, what was published before is outdated.
    fn follow_deadline(&mut self) {
        let earlier = std::mem::replace(&mut self.expires, self.deadline.at());
        if earlier < self.expires {
            self.outdated += std::mem::take(&mut self.current);
        }
    }

    /// Whether this is the reply to an outdated publication. Each is replied to once.
    fn is_outdated(&mut self, reply: &Reply) -> bool {
        let is_outdated = reply.is_expired() && self.outdated > 0;
        self.outdated -= u32::from(is_outdated);
        is_outdated
    }

    /// The time until what is published now expires.
    fn time_left(&self) -> Duration {
        self.expires.saturating_duration_since(Instant::now())
    }

    /// Gives the request to the session to publish. `false` if the session is over, or no time is left.
    fn publish(&mut self, session: &SessionHandle, queue: &str) -> bool {
        let left = self.time_left();
        // The session may have come at the last moment.
        if left.is_zero() {
            return false;
        }
        let mut properties =
            message::request_properties(self.id, &session.reply_to, left, self.cache);
        let span = trace::begin(|| trace::send(queue, &self.id.to_string(), self.body.len()));
        if !span.is_disabled() {
            let context = trace::context_of(&span);
            properties = message::traced(properties, context.as_ref(), trace::asks_workers());
        }
        let is_published = session.publish(Publication {
            id: self.id,
            body: self.body.as_bytes().to_vec(),
            properties,
            span,
        });
        self.current += u32::from(is_published);
        is_published
    }
}

fn overloaded(reason: &str) -> Error {
    Error::Overloaded {
        reason: reason.to_owned(),
    }
}
