//! One session of the requester with the broker: publishes requests and reads replies.
//!
//! A session has a channel for requests, a callback queue for replies, and a loop ([`Session::serve`]) that publishes
//! what callers ask for, handles confirms, reads replies, and checks every second whether the queue has consumers. A
//! channel that the broker closes because of one request fails that request alone, see [`RequestChannel`].

use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt as _, StreamExt as _};
use lapin::message::Delivery;
use lapin::options::BasicPublishOptions;
use lapin::types::ShortString;
use lapin::{BasicProperties, Channel, Connection, Consumer};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tracing::Span;
use uuid::Uuid;

use super::pending::{MAX_IN_FLIGHT, Outcome, Pending};
use crate::broker::{self, Consumers, Message, Published, Publisher, Refusal, Trouble};
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

/// A caller's access to the current session.
#[derive(Debug)]
pub(super) struct SessionHandle {
    pub(super) reply_to: ShortString,
    /// To the session's task, which publishes: a caller that is cancelled leaves no half-sent request and no pending
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
    pub(super) fn publish(&self, publication: Publication) -> bool {
        self.publications.send(publication).is_ok()
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
    /// For replies; of a one-shot call also for its request.
    pub(super) connection: Connection,
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
                        unconfirmed.push(self.requests.publish(&self.queue, publication));
                    }
                    let Ok(next) = self.publications.try_recv() else { break };
                    publication = next;
                },
                Some(mut confirmed) = unconfirmed.next() => loop {
                    match confirmed {
                        (id, Ok(published)) => self.settle(id, published, recently(seen)),
                        (_, Err(error)) => return broker::translate(url, &error),
                    }
                    // Checked only after a confirm: then a queue without consumers holds the request.
                    if !checked {
                        checked = true;
                        checking.push(broker::consumers(requests, &self.queue));
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
                        checking.push(broker::consumers(requests, &self.queue));
                    }
                }
                event = broker::trouble(requests, &mut events, counts) => match event {
                    Trouble::Blocked => {
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

    pub(super) async fn close(self) {
        let close_requests = async {
            if let RequestChannel::Separate(publisher) = &self.requests {
                broker::close(publisher.connection()).await;
            }
        };
        tokio::join!(close_requests, broker::close(&self.connection));
    }
}

/// Where a session publishes requests.
pub(super) enum RequestChannel {
    /// Of a long-lived client: on a connection of its own, because an alarm blocks it, and on a channel that is
    /// reopened when the broker closes it.
    Separate(Publisher),
    /// Of a one-shot call: on the channel of its reply.
    WithReplies(Channel),
}

impl RequestChannel {
    /// The connection on which requests are published; `replies` is the connection of replies.
    fn connection<'a>(&'a self, replies: &'a Connection) -> &'a Connection {
        match self {
            Self::Separate(publisher) => publisher.connection(),
            Self::WithReplies(_) => replies,
        }
    }

    /// Publishes a request and waits for its confirm. An error means that the session is lost.
    async fn publish(
        &self,
        queue: &ShortString,
        publication: Publication,
    ) -> (Uuid, lapin::Result<Published>) {
        let Publication {
            id,
            body,
            properties,
            span: _span,
        } = publication;
        let published = match self {
            Self::Separate(publisher) => {
                let message = Message {
                    to: queue,
                    mandatory: true,
                    body: &body,
                    properties: &properties,
                };
                publisher.publish(message).await
            }
            Self::WithReplies(channel) => publish_once(channel, queue, &body, properties).await,
        };
        (id, published)
    }
}

async fn publish_once(
    channel: &Channel,
    queue: &ShortString,
    body: &[u8],
    properties: BasicProperties,
) -> lapin::Result<Published> {
    let mandatory = BasicPublishOptions {
        mandatory: true,
        ..BasicPublishOptions::default()
    };
    let confirmed = async {
        channel
            .basic_publish(
                ShortString::default(),
                queue.clone(),
                mandatory,
                body,
                properties,
            )
            .await?
            .await
    };
    match confirmed.await {
        Ok(confirmed) => Ok(Published::Confirmed(confirmed)),
        Err(error) => match Refusal::by_size(body.len(), &error) {
            Some(refusal) => Ok(Published::Refused(refusal)),
            None => Err(error),
        },
    }
}

/// The error of a call whose request the broker refused.
fn refusal_error(url: &AmqpUrl, refusal: &Refusal) -> Error {
    if let Refusal::Other(error) = refusal {
        let error = broker::translate(url, error);
        if error.is_lasting() {
            return error;
        }
    }
    let failure = refusal.failure("request");
    Error::Failed {
        code: failure.code,
        message: failure.message,
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
