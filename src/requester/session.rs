//! One session of the requester with the broker: publishes requests and reads replies.
//!
//! A session has a channel for requests, a callback queue for replies, and a loop ([`Session::serve`]) that publishes
//! what callers ask for, handles confirms, reads replies, and checks every second whether the queue has consumers. A
//! channel that the broker closes because of one request fails that request alone, see [`RequestChannel`].

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt as _, StreamExt as _};
use lapin::message::Delivery;
use lapin::types::ShortString;
use lapin::{BasicProperties, Connection, Consumer};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tracing::Span;
use uuid::Uuid;

use super::pending::{MAX_IN_FLIGHT, Outcome, Pending};
use super::request_channel::{Renewed, RequestChannel, refusal_error};
use super::successor::Place;
use crate::broker::{self, Consumers, Published, Trouble};
use crate::counts::BrokerCounts;
use crate::error::Error;
use crate::message::{self, Reply};
use crate::server_url::AmqpUrl;

/// How often a client checks whether the queue has consumers.
const CONSUMER_CHECK_PERIOD: Duration = Duration::from_secs(1);

/// A queue without consumers is not reported as unserved for so long after a consumer was seen, or after a
/// reconnect: workers restart and reconnect, too.
const CONSUMER_MEMORY: Duration = Duration::from_secs(5);

const ALARM: &str = "RabbitMQ has raised an alarm and accepts no requests";

/// A request to be published.
#[derive(Debug)]
pub(super) struct Publication {
    pub(super) id: Uuid,
    pub(super) body: Vec<u8>,
    pub(super) properties: BasicProperties,
    /// Closed at the broker's confirm.
    pub(super) span: Span,
}

impl Publication {
    /// The same request, to be published elsewhere, too.
    pub(super) fn copy(&self) -> Self {
        Self {
            id: self.id,
            body: self.body.clone(),
            properties: self.properties.clone(),
            span: Span::none(),
        }
    }
}

/// A caller's access to the current session.
#[derive(Debug)]
pub(super) struct SessionHandle {
    pub(super) reply_to: ShortString,
    /// To the session's task, which publishes: a caller that is cancelled leaves no half-sent request and no pending
    /// confirm behind. Closed when the session ends.
    publications: mpsc::UnboundedSender<Publication>,
    /// Whether the queue had consumers and no message waited in it when the session looked last.
    queue_is_empty: AtomicBool,
}

impl SessionHandle {
    /// A handle, and the receiver of what its callers publish. The session is over when the receiver is closed or
    /// dropped.
    pub(super) fn new(reply_to: ShortString) -> (Self, mpsc::UnboundedReceiver<Publication>) {
        let (sender, publications) = mpsc::unbounded_channel();
        let session = Self {
            reply_to,
            publications: sender,
            queue_is_empty: AtomicBool::new(false),
        };
        (session, publications)
    }

    /// Queues a request for publishing; `false` if the session is over. The caller registers its waiter before:
    /// the end of the session completes it.
    pub(super) fn publish(&self, publication: Publication) -> bool {
        self.publications.send(publication).is_ok()
    }

    pub(super) fn note_queue(&self, is_empty: bool) {
        self.queue_is_empty.store(is_empty, Ordering::Relaxed);
    }

    pub(super) fn queue_is_empty(&self) -> bool {
        self.queue_is_empty.load(Ordering::Relaxed)
    }

    pub(super) fn is_over(&self) -> bool {
        self.publications.is_closed()
    }
}

/// An established session, owned by the supervisor.
pub(super) struct Session {
    pub(super) url: AmqpUrl,
    pub(super) queue: ShortString,
    pub(super) pending: Pending,
    pub(super) handle: Arc<SessionHandle>,
    pub(super) publications: mpsc::UnboundedReceiver<Publication>,
    pub(super) requests: RequestChannel,
    pub(super) replies: Consumer,
    /// For replies; with direct reply-to also for requests.
    pub(super) connection: Connection,
    pub(super) place: Place,
    /// It has ended because its channel had acked nothing, although the queue's leader answered.
    pub(super) leader_answered: bool,
}

impl Session {
    /// Serves callers until the session is lost, with the reason. `seen` is when the queue was last known to have a
    /// consumer.
    pub(super) async fn serve(
        &mut self,
        counts: &BrokerCounts,
        mut seen: Option<Instant>,
    ) -> Error {
        let url = &self.url;
        let requests = self.requests.connection(&self.connection);
        let mut events = Box::pin(requests.events_listener());
        let mut unconfirmed = FuturesUnordered::new();
        let mut checking = FuturesUnordered::new();
        let mut renewing = FuturesUnordered::new();
        let mut check_timer = interval(CONSUMER_CHECK_PERIOD);
        check_timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut checked = false;
        loop {
            // Frequent events are handled in batches, all that are ready: polling every branch for each of them
            // costs more than handling it.
            tokio::select! {
                mut delivery = self.replies.next() => loop {
                    match delivery {
                        Some(Ok(reply)) => self.take(reply),
                        Some(Err(error)) => {
                            // The channel of a one-shot call was closed: its confirm may hold the reason.
                            while let Some(Some((id, Ok(published)))) = unconfirmed.next().now_or_never() {
                                self.settle(id, published, recently(seen));
                            }
                            return broker::translate(url, &error);
                        }
                        None => return broker::unreachable(url, "the callback queue was deleted"),
                    }
                    // A reply shows that a worker consumed the queue just now.
                    seen = Some(Instant::now());
                    let Some(next) = self.replies.next().now_or_never() else { break };
                    delivery = next;
                },
                Some(mut publication) = self.publications.recv() => loop {
                    let id = publication.id;
                    if requests.status().blocked() {
                        // lapin would send it after the alarm, when its caller has timed out.
                        self.pending.complete(id, overloaded(ALARM));
                    } else if unconfirmed.len() >= MAX_IN_FLIGHT {
                        self.pending.complete(id, overloaded("RabbitMQ does not confirm requests"));
                    } else if self.pending.awaits(id) {
                        self.place.watch.publishing(&publication);
                        unconfirmed.push(self.requests.publish(&self.queue, publication));
                    }
                    let Ok(next) = self.publications.try_recv() else { break };
                    publication = next;
                },
                Some(mut confirmed) = unconfirmed.next() => loop {
                    match confirmed {
                        (id, Ok(Published::NackedAtFirst)) => {
                            // Not the request's fault: it is published again.
                            self.pending.complete(id, Outcome::Unroutable);
                            if renewing.is_empty() {
                                renewing.push(self.requests.renew(&self.connection, &self.queue));
                            }
                        }
                        (id, Ok(published)) => self.settle(id, published, recently(seen)),
                        (_, Err(error)) => return broker::translate(url, &error),
                    }
                    self.place.watch.confirmed(!unconfirmed.is_empty());
                    // Checked only after a confirm: then a queue without consumers holds the request.
                    if !checked {
                        checked = true;
                        checking.push(broker::consumers(requests, &self.queue));
                    }
                    let Some(Some(next)) = unconfirmed.next().now_or_never() else { break };
                    confirmed = next;
                },
                Some(renewed) = renewing.next() => match renewed {
                    Renewed::Channel => {}
                    Renewed::WholeSession { leader_answers } => {
                        self.leader_answered = leader_answers;
                        return broker::unreachable(url, "the queue takes no requests");
                    }
                    Renewed::Lost(error) => return broker::translate(url, &error),
                },
                Some(consumers) = checking.next() => {
                    let is_empty = consumers == Consumers::Some { is_empty: true };
                    self.handle.note_queue(is_empty);
                    match consumers {
                        Consumers::Some { .. } => seen = Some(Instant::now()),
                        Consumers::None if !recently(seen) => {
                            self.pending.complete_impatient(&self.no_worker());
                        }
                        Consumers::None | Consumers::Unknown => {}
                    }
                }
                _ = check_timer.tick() => {
                    if checked && checking.is_empty() && !self.pending.is_empty() {
                        checking.push(broker::consumers(requests, &self.queue));
                    }
                }
                event = broker::trouble(requests, &mut events, counts) => match event {
                    Trouble::Blocked => {
                        self.place.watch.confirmed(false);
                        self.pending.complete_all(&overloaded(ALARM));
                    }
                    Trouble::Lost(reason) => return broker::unreachable(url, &reason),
                },
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
                let error = refusal_error(&self.url, &refusal);
                return self.pending.complete(id, Outcome::Failed(error));
            }
            Published::NackedAtFirst | Published::Unconfirmed => {
                return self.pending.complete(id, Outcome::Unroutable);
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
            queue: self.queue.to_string(),
        })
    }

    pub(super) fn is_connected(&self) -> bool {
        self.connection.status().connected()
    }

    /// The connection on which requests are published.
    pub(super) fn requests_connection(&self) -> &Connection {
        self.requests.connection(&self.connection)
    }

    pub(super) async fn close(self) {
        let close_requests = async {
            if let RequestChannel::Separate(publisher) = &self.requests {
                broker::close(publisher.connection()).await;
            }
        };
        tokio::join!(close_requests, broker::close(&self.connection));
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
