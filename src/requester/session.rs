//! Keeps the requester's session with the broker: a supervisor task opens one after another.
//!
//! A session has a channel for requests, a callback queue for replies, and a loop that reads replies, handles
//! confirms and checks every second whether the queue has consumers. If any part is lost, the session ends: every
//! waiter is completed as lost, and the next session has new connections and a new callback queue. A channel
//! that the broker closes because of one request fails that request alone, see [`RequestChannel`].

use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt as _, StreamExt as _};
use lapin::message::Delivery;
use lapin::types::ShortString;
use lapin::{BasicProperties, Connection, Consumer};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::{Span, info, warn};
use uuid::Uuid;

use super::RequesterOptions;
use super::channels::{Channels, open_direct, open_queue};
use super::pending::{MAX_IN_FLIGHT, Outcome, Pending};
use super::requests::{Publication, RequestChannel, refusal_error};
use crate::broker::{self, Backoff, Consumers, Published, Trouble};
use crate::counts::BrokerCounts;
use crate::error::Error;
use crate::message::{self, Reply};

/// How often a client checks whether the queue has consumers.
const CONSUMER_CHECK_PERIOD: Duration = Duration::from_secs(1);

/// A queue without consumers is not reported as unserved for so long after a consumer was seen, or after a
/// reconnect: workers restart and reconnect, too.
const CONSUMER_MEMORY: Duration = Duration::from_secs(5);

/// How long calls wait for a broker that was lost, which may be restarting; after that they fail at once.
const OUTAGE: Duration = Duration::from_secs(15);

const ALARM: &str = "RabbitMQ has raised an alarm and accepts no requests";

/// The state that the supervisor publishes to callers.
#[derive(Debug, Clone)]
pub(super) enum SessionState {
    Connecting,
    Up(Arc<SessionHandle>),
    Down(Error),
    Closed,
}

/// A caller's access to the current session.
#[derive(Debug)]
pub(super) struct SessionHandle {
    pub(super) reply_to: ShortString,
    /// To the supervisor, which publishes: a caller that is cancelled leaves no half-sent request and no pending
    /// confirm behind. Closed when the session ends.
    publications: mpsc::UnboundedSender<Publication>,
}

impl SessionHandle {
    /// A handle, and the receiver of what its callers publish. The session is over when the receiver is closed or
    /// dropped.
    pub(super) fn new(reply_to: ShortString) -> (Self, mpsc::UnboundedReceiver<Publication>) {
        let (sender, publications) = mpsc::unbounded_channel();
        let session = Self {
            reply_to,
            publications: sender,
        };
        (session, publications)
    }

    /// Queues a request for publishing; `false` if the session is over. The caller registers its waiter before:
    /// the end of the session completes it.
    pub(super) fn publish(
        &self,
        id: Uuid,
        body: &str,
        properties: BasicProperties,
        span: Span,
    ) -> bool {
        let publication = Publication {
            id,
            body: body.as_bytes().to_vec(),
            properties,
            span,
        };
        self.publications.send(publication).is_ok()
    }

    pub(super) fn is_over(&self) -> bool {
        self.publications.is_closed()
    }
}

/// The task that keeps a requester's session.
pub(super) struct Supervisor {
    pub(super) options: RequesterOptions,
    pub(super) pending: Pending,
    pub(super) state: watch::Sender<SessionState>,
    pub(super) counts: Arc<BrokerCounts>,
    pub(super) stop: CancellationToken,
}

/// An established session, owned by the supervisor.
struct Session {
    handle: Arc<SessionHandle>,
    requests: RequestChannel,
    replies: Consumer,
    publications: mpsc::UnboundedReceiver<Publication>,
    /// For replies; of a one-shot call also for its request.
    connection: Connection,
}

impl Supervisor {
    /// Runs until the requester is closed or dropped.
    pub(super) async fn run(self) {
        self.keep_a_session().await;
        self.state.send_replace(SessionState::Closed);
        self.pending.complete_all(&Outcome::Lost);
    }

    /// Opens one session after another. Ends when stopped, after closing the last one.
    async fn keep_a_session(&self) {
        let mut backoff = Backoff::default();
        let mut lost_at: Option<Instant> = None;
        loop {
            let opening = self.stop.run_until_cancelled(self.open()).await;
            match opening {
                None => return,
                Some(Ok(mut session)) => {
                    let opened = Instant::now();
                    self.counts.up();
                    self.state
                        .send_replace(SessionState::Up(Arc::clone(&session.handle)));
                    if lost_at.is_some() {
                        info!("RabbitMQ at {} is back", self.options.url);
                    }
                    // After a loss, workers reconnect, too: treated as if one had just been seen.
                    let seen = lost_at.map(|_| opened);
                    let lost = self.serve(&mut session, seen).await;
                    // Closed before waiters are completed: a caller that registers a waiter later finds the session
                    // closed when it publishes.
                    session.publications.close();
                    self.state.send_replace(SessionState::Connecting);
                    self.pending.complete_all(&match &lost {
                        Some(error) if error.is_lasting() => Outcome::Failed(error.clone()),
                        _ => Outcome::Lost,
                    });
                    session.close().await;
                    let Some(error) = lost else {
                        return;
                    };
                    warn!("lost RabbitMQ: {error}; reconnecting");
                    self.counts.lost(error);
                    lost_at = Some(Instant::now());
                    backoff.session_ended(opened);
                }
                Some(Err(error)) => {
                    self.counts.down(error.clone());
                    let outage = lost_at.is_some_and(|lost| lost.elapsed() < OUTAGE);
                    if !outage || error.is_lasting() {
                        self.state.send_replace(SessionState::Down(error));
                    }
                    backoff.failed();
                }
            }
            self.stop.run_until_cancelled(backoff.pause()).await;
        }
    }

    async fn open(&self) -> Result<Session, Error> {
        let url = &self.options.url;
        if self.options.one_shot {
            let connection = broker::connect(&url.with_small_frames(), "call").await?;
            let channels = broker::bounded(url, open_direct(&connection)).await?;
            Ok(Session::new(channels, connection))
        } else {
            let connect = || broker::connect(url, "client");
            let (replies, requests) = tokio::try_join!(connect(), connect())?;
            let channels = broker::bounded(url, open_queue(&replies, requests)).await?;
            Ok(Session::new(channels, replies))
        }
    }

    /// Serves callers until the session is lost, with the reason, or the requester is closed (`None`). `seen` is
    /// when the queue was last known to have a consumer.
    async fn serve(&self, session: &mut Session, mut seen: Option<Instant>) -> Option<Error> {
        let url = &self.options.url;
        let requests = session.requests.connection(&session.connection);
        let mut events = Box::pin(requests.events_listener());
        let mut unconfirmed = FuturesUnordered::new();
        let mut checking = FuturesUnordered::new();
        let mut check_timer = interval(CONSUMER_CHECK_PERIOD);
        check_timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut checked = false;
        let mut stopped = std::pin::pin!(self.stop.cancelled());
        loop {
            // Frequent events are handled in batches, all that are ready: polling every branch for each of them
            // costs more than handling it.
            tokio::select! {
                mut delivery = session.replies.next() => loop {
                    match delivery {
                        Some(Ok(reply)) => self.take(reply),
                        Some(Err(error)) => {
                            // The channel of a one-shot call was closed: its confirm may hold the reason.
                            while let Some(Some((id, Ok(published)))) = unconfirmed.next().now_or_never() {
                                self.settle(id, published, recently(seen));
                            }
                            return Some(broker::translate(url, &error));
                        }
                        None => return Some(broker::unreachable(url, "the callback queue was deleted")),
                    }
                    // A reply shows that a worker consumed the queue just now.
                    seen = Some(Instant::now());
                    let Some(next) = session.replies.next().now_or_never() else { break };
                    delivery = next;
                },
                Some(mut publication) = session.publications.recv() => loop {
                    let id = publication.id;
                    if requests.status().blocked() {
                        // lapin would send it after the alarm, when its caller has timed out.
                        self.pending.complete(id, overloaded(ALARM));
                    } else if unconfirmed.len() >= MAX_IN_FLIGHT {
                        self.pending.complete(id, overloaded("RabbitMQ does not confirm requests"));
                    } else if self.pending.awaits(id) {
                        unconfirmed.push(session.requests.publish(&self.options.queue, publication));
                    }
                    let Ok(next) = session.publications.try_recv() else { break };
                    publication = next;
                },
                Some(mut confirmed) = unconfirmed.next() => loop {
                    match confirmed {
                        (id, Ok(published)) => self.settle(id, published, recently(seen)),
                        (_, Err(error)) => return Some(broker::translate(url, &error)),
                    }
                    // Checked only after a confirm: then a queue without consumers holds the request.
                    if !checked {
                        checked = true;
                        checking.push(broker::consumers(requests, &self.options.queue));
                    }
                    let Some(Some(next)) = unconfirmed.next().now_or_never() else { break };
                    confirmed = next;
                },
                Some(consumers) = checking.next() => match consumers {
                    Consumers::Some => seen = Some(Instant::now()),
                    Consumers::None if !recently(seen) => {
                        self.pending.complete_impatient(&self.no_worker());
                    }
                    Consumers::None | Consumers::Unknown => {}
                },
                _ = check_timer.tick() => {
                    if checked && checking.is_empty() && !self.pending.is_empty() {
                        checking.push(broker::consumers(requests, &self.options.queue));
                    }
                }
                event = broker::trouble(requests, &mut events, &self.counts) => match event {
                    Trouble::Blocked => {
                        self.pending.complete_all(&overloaded(ALARM));
                    }
                    Trouble::Lost(reason) => return Some(broker::unreachable(url, &reason)),
                },
                () = &mut stopped => return None,
            }
        }
    }

    /// Completes the waiter of a reply.
    fn take(&self, delivery: Delivery) {
        if let Some((id, reply)) = Reply::read(delivery) {
            self.pending.complete(id, Outcome::Reply(reply));
        }
    }

    /// Handles a confirm. lapin may attach a returned request to another request's confirm: the correlation id
    /// of the returned one identifies it.
    fn settle(&self, id: Uuid, published: Published, may_come_back: bool) {
        let confirmed = match published {
            Published::Confirmed(confirmed) => confirmed,
            Published::Refused(refusal) => {
                let error = refusal_error(&self.options.url, &refusal);
                return self.pending.complete(id, Outcome::Failed(error));
            }
        };
        if confirmed.is_nack() {
            self.pending.complete(id, Outcome::Nacked);
        }
        if let Some(returned) = confirmed.take_message()
            && let Some(id) = message::correlation_id(&returned.properties)
        {
            self.pending.complete(
                id,
                if may_come_back || self.pending.is_patient(id) {
                    Outcome::Unroutable
                } else {
                    self.no_worker()
                },
            );
        }
    }

    fn no_worker(&self) -> Outcome {
        Outcome::Failed(Error::NoWorkers {
            queue: self.options.queue.to_string(),
        })
    }
}

fn overloaded(reason: &str) -> Outcome {
    Outcome::Failed(Error::Overloaded {
        reason: reason.to_owned(),
    })
}

fn recently(seen: Option<Instant>) -> bool {
    seen.is_some_and(|seen| seen.elapsed() < CONSUMER_MEMORY)
}

impl Session {
    fn new((requests, replies, reply_to): Channels, connection: Connection) -> Self {
        let (handle, publications) = SessionHandle::new(reply_to);
        Self {
            handle: Arc::new(handle),
            requests,
            replies,
            publications,
            connection,
        }
    }

    async fn close(self) {
        let close_requests = async {
            if let RequestChannel::Separate(publisher) = &self.requests {
                broker::close(publisher.connection()).await;
            }
        };
        tokio::join!(close_requests, broker::close(&self.connection));
    }
}
