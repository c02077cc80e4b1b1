//! The requester's connection: one session after another, kept by a supervisor task.
//!
//! A session is a channel to publish on, a callback queue, and the task that reads replies, settles
//! confirms and looks now and then whether anybody serves. When any part of it is lost, all of it
//! is: every waiter is told, and the next session has fresh connections and a fresh callback queue. Only a
//! channel that the broker closes over one request costs that request alone, see [`Requests`].

use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt as _, StreamExt as _};
use lapin::message::Delivery;
use lapin::types::ShortString;
use lapin::{BasicProperties, Connection, Consumer};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;
use tracing::{Span, info, warn};
use uuid::Uuid;

use super::RequesterOptions;
use super::channels::{Channels, open_direct, open_queue};
use super::pending::{MOST_IN_FLIGHT, Outcome, Pending};
use super::requests::{Publication, Requests, refused};
use crate::broker::{self, Audience, Published, Trouble};
use crate::counts::BrokerCounts;
use crate::error::Error;
use crate::message::{self, Reply};

/// How often a client looks whether anybody serves the queue, at most.
const AUDIENCE_PERIOD: Duration = Duration::from_secs(1);

/// A queue without a consumer is not taken for abandoned if one was seen so recently, or if the
/// connection is so young after a loss: workers restart, and reconnect as we do.
const AUDIENCE_MEMORY: Duration = Duration::from_secs(5);

/// A broker that was there is waited for as long as it may take to restart; only then do calls fail
/// without having waited.
const OUTAGE: Duration = Duration::from_secs(15);

/// A session that ends sooner was none: the next attempt waits longer.
const LIVED: Duration = Duration::from_secs(1);

const ALARM: &str = "RabbitMQ has raised an alarm and takes no requests";

/// What the supervisor has to offer.
#[derive(Debug, Clone)]
pub(super) enum State {
    Connecting,
    Up(Arc<Session>),
    Down(Error),
    Closed,
}

/// An established session, as its callers see it.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) reply_to: ShortString,
    /// To the supervisor, which publishes: a caller that gives up then leaves no half-sent request
    /// and no unresolved confirm behind. Closed when the session is over.
    publications: mpsc::UnboundedSender<Publication>,
}

impl Session {
    /// With what its callers will have published. It is over when that is closed or dropped.
    pub(super) fn new(reply_to: ShortString) -> (Self, mpsc::UnboundedReceiver<Publication>) {
        let (sender, publications) = mpsc::unbounded_channel();
        let session = Self {
            reply_to,
            publications: sender,
        };
        (session, publications)
    }

    /// Has a request published; `false` if the session is over. Its waiter is registered before: it
    /// is told when the session ends after this.
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

/// The task behind a requester.
pub(super) struct Supervisor {
    pub(super) options: RequesterOptions,
    pub(super) pending: Pending,
    pub(super) state: watch::Sender<State>,
    pub(super) counts: Arc<BrokerCounts>,
    pub(super) stop: CancellationToken,
}

/// A session as the supervisor holds it.
struct Held {
    session: Arc<Session>,
    requests: Requests,
    replies: Consumer,
    publications: mpsc::UnboundedReceiver<Publication>,
    /// Replies come by it; requests as well, of a one-shot call alone.
    connection: Connection,
}

impl Supervisor {
    /// Until the requester is closed or dropped.
    pub(super) async fn run(self) {
        self.keep_a_session().await;
        self.state.send_replace(State::Closed);
        self.pending.complete_all(&Outcome::Lost);
    }

    /// One session after another; ends when it was asked to and has closed the last one.
    async fn keep_a_session(&self) {
        let mut attempt = 0;
        let mut lost_at: Option<Instant> = None;
        loop {
            let opening = self.stop.run_until_cancelled(self.open()).await;
            match opening {
                None => return,
                Some(Ok(mut held)) => {
                    let opened = Instant::now();
                    self.counts.up();
                    self.state
                        .send_replace(State::Up(Arc::clone(&held.session)));
                    if lost_at.is_some() {
                        info!("RabbitMQ at {} is back", self.options.url);
                    }
                    // After a loss, workers reconnect as we do: as if one had just been seen.
                    let seen = lost_at.map(|_| opened);
                    let lost = self.serve(&mut held, seen).await;
                    // In this order: who registers a waiter after the second line finds the
                    // session closed when it publishes.
                    held.publications.close();
                    self.state.send_replace(State::Connecting);
                    self.pending.complete_all(&match &lost {
                        Some(error) if error.is_lasting() => Outcome::Failed(error.clone()),
                        _ => Outcome::Lost,
                    });
                    held.close().await;
                    let Some(error) = lost else {
                        return;
                    };
                    warn!("lost RabbitMQ: {error}; reconnecting");
                    self.counts.lost(error);
                    lost_at = Some(Instant::now());
                    attempt = if opened.elapsed() < LIVED {
                        attempt + 1
                    } else {
                        0
                    };
                }
                Some(Err(error)) => {
                    self.counts.down(error.clone());
                    let outage = lost_at.is_some_and(|lost| lost.elapsed() < OUTAGE);
                    if !outage || error.is_lasting() {
                        self.state.send_replace(State::Down(error));
                    }
                    attempt += 1;
                }
            }
            let pause = sleep(broker::redial_pause(attempt));
            self.stop.run_until_cancelled(pause).await;
        }
    }

    async fn open(&self) -> Result<Held, Error> {
        let url = &self.options.url;
        if self.options.one_shot {
            let connection = broker::connect(&url.with_small_frames(), "call").await?;
            let channels = broker::bounded(url, open_direct(&connection)).await?;
            Ok(Held::new(channels, connection))
        } else {
            let connect = || broker::connect(url, "client");
            let (replies, requests) = tokio::try_join!(connect(), connect())?;
            let channels = broker::bounded(url, open_queue(&replies, requests)).await?;
            Ok(Held::new(channels, replies))
        }
    }

    /// Until the session is lost, with the reason, or the requester is closed. `seen` is when the
    /// queue last had a consumer, as far as is known.
    async fn serve(&self, held: &mut Held, mut seen: Option<Instant>) -> Option<Error> {
        let url = &self.options.url;
        let requests = held.requests.connection(&held.connection);
        let mut events = Box::pin(requests.events_listener());
        let mut unconfirmed = FuturesUnordered::new();
        let mut looking = FuturesUnordered::new();
        let mut look = interval(AUDIENCE_PERIOD);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut looked = false;
        let mut stopped = std::pin::pin!(self.stop.cancelled());
        loop {
            // Of what comes in numbers, all that is ready is taken at once: to look at every branch
            // for each of them costs more than most of them do.
            tokio::select! {
                mut delivery = held.replies.next() => loop {
                    match delivery {
                        Some(Ok(reply)) => self.take(reply),
                        Some(Err(error)) => {
                            // A one-shot call's channel was closed: its confirm may say why.
                            while let Some(Some((id, Ok(published)))) = unconfirmed.next().now_or_never() {
                                self.settle(id, published, recently(seen));
                            }
                            return Some(broker::translate(url, &error));
                        }
                        None => return Some(broker::unreachable(url, "the callback queue is gone")),
                    }
                    // Whoever replies was there a moment ago.
                    seen = Some(Instant::now());
                    let Some(next) = held.replies.next().now_or_never() else { break };
                    delivery = next;
                },
                Some(mut publication) = held.publications.recv() => loop {
                    let id = publication.id;
                    if requests.status().blocked() {
                        // lapin would send it when the alarm is over, long after its caller.
                        self.pending.complete(id, overloaded(ALARM));
                    } else if unconfirmed.len() >= MOST_IN_FLIGHT {
                        self.pending.complete(id, overloaded("RabbitMQ does not confirm requests"));
                    } else if self.pending.awaits(id) {
                        unconfirmed.push(held.requests.publish(&self.options.queue, publication));
                    }
                    let Ok(next) = held.publications.try_recv() else { break };
                    publication = next;
                },
                Some(mut confirmed) = unconfirmed.next() => loop {
                    match confirmed {
                        (id, Ok(published)) => self.settle(id, published, recently(seen)),
                        (_, Err(error)) => return Some(broker::translate(url, &error)),
                    }
                    // By now a queue that nobody reads from has the request in it.
                    if !looked {
                        looked = true;
                        looking.push(broker::audience(requests, &self.options.queue));
                    }
                    let Some(Some(next)) = unconfirmed.next().now_or_never() else { break };
                    confirmed = next;
                },
                Some(audience) = looking.next() => match audience {
                    Audience::Serving => seen = Some(Instant::now()),
                    Audience::Nobody if !recently(seen) => {
                        self.pending.complete_impatient(&self.nobody_serving());
                    }
                    Audience::Nobody | Audience::Unknown => {}
                },
                _ = look.tick() => {
                    if looked && looking.is_empty() && !self.pending.is_empty() {
                        looking.push(broker::audience(requests, &self.options.queue));
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

    fn take(&self, delivery: Delivery) {
        if let Some((id, reply)) = Reply::read(delivery) {
            self.pending.complete(id, Outcome::Reply(reply));
        }
    }

    /// What a confirm says. A returned request may come with another one's confirm: whose it is,
    /// its own correlation id tells.
    fn settle(&self, id: Uuid, published: Published, may_come_back: bool) {
        let confirmed = match published {
            Published::Confirmed(confirmed) => confirmed,
            Published::Refused(refusal) => {
                let error = refused(&self.options.url, &refusal);
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
                    self.nobody_serving()
                },
            );
        }
    }

    fn nobody_serving(&self) -> Outcome {
        Outcome::Failed(Error::NobodyServing {
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
    seen.is_some_and(|seen| seen.elapsed() < AUDIENCE_MEMORY)
}

impl Held {
    fn new((requests, replies, reply_to): Channels, connection: Connection) -> Self {
        let (session, publications) = Session::new(reply_to);
        Self {
            session: Arc::new(session),
            requests,
            replies,
            publications,
            connection,
        }
    }

    async fn close(self) {
        let close_requests = async {
            if let Requests::Apart(publisher) = &self.requests {
                broker::close(publisher.connection()).await;
            }
        };
        tokio::join!(close_requests, broker::close(&self.connection));
    }
}
