//! The requester's connection: one session after another, kept by a supervisor task.
//!
//! A session is a channel to publish on, a callback queue, and the task that reads replies, settles
//! confirms and looks now and then whether anybody serves. When any part of it is lost, all of it
//! is: every waiter is told, and the next session has fresh connections and a fresh callback queue.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use lapin::options::{
    BasicConsumeOptions, BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions,
};
use lapin::types::{FieldTable, ShortString};
use lapin::{BasicProperties, Channel, Confirmation, Connection, Consumer, PublisherConfirm};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;
use tracing::warn;
use uuid::Uuid;

use super::RequesterOptions;
use super::pending::{Outcome, Pending};
use crate::broker::{self, Audience};
use crate::error::Error;
use crate::message::{self, Reply};

/// How often a client looks whether anybody serves the queue, at most.
const AUDIENCE_PERIOD: Duration = Duration::from_secs(1);

/// A queue without a consumer is not taken for abandoned if one was seen so recently: workers
/// restart.
const AUDIENCE_MEMORY: Duration = Duration::from_secs(5);

/// What the supervisor has to offer.
#[derive(Debug, Clone)]
pub(super) enum State {
    Connecting,
    Up(Arc<Session>),
    Down(Error),
}

/// An established session, as far as publishing needs it.
#[derive(Debug)]
pub(super) struct Session {
    channel: Channel,
    pub(super) reply_to: ShortString,
    /// To the supervisor: no confirm may be left unresolved, and a caller may give up.
    confirms: mpsc::UnboundedSender<(Uuid, PublisherConfirm)>,
    /// Cancelled by whoever finds that the session is of no more use.
    pub(super) useless: CancellationToken,
}

impl Session {
    /// Publishes a request. Not cancel safe: lapin may send it later, see [`Self::useless`].
    pub(super) async fn publish(
        &self,
        queue: &ShortString,
        id: Uuid,
        body: &str,
        properties: BasicProperties,
    ) -> lapin::Result<()> {
        let mandatory = BasicPublishOptions {
            mandatory: true,
            ..BasicPublishOptions::default()
        };
        let default_exchange = ShortString::default();
        let confirm = self
            .channel
            .basic_publish(
                default_exchange,
                queue.clone(),
                mandatory,
                body.as_bytes(),
                properties,
            )
            .await?;
        // At most as many are under way as there are waiters. Nobody receives any more when the
        // session has just ended; the waiter learns it then.
        let _ = self.confirms.send((id, confirm));
        Ok(())
    }
}

/// The task behind a requester.
pub(super) struct Supervisor {
    pub(super) options: RequesterOptions,
    pub(super) pending: Pending,
    pub(super) state: watch::Sender<State>,
    pub(super) stop: CancellationToken,
}

/// A session as the supervisor holds it.
struct Held {
    session: Arc<Session>,
    replies: Consumer,
    confirms: mpsc::UnboundedReceiver<(Uuid, PublisherConfirm)>,
    /// Of a long-lived client: replies come by the first connection, requests go by the second,
    /// since an alarm stops the second. A one-shot call has a single one.
    connections: (Connection, Option<Connection>),
}

impl Supervisor {
    /// Until the requester is closed or dropped.
    pub(super) async fn run(self) {
        self.keep_a_session().await;
        self.state.send_replace(State::Down(Error::Unreachable {
            server: self.options.url.to_string(),
            reason: "this client was closed".to_owned(),
        }));
    }

    async fn keep_a_session(&self) {
        let mut attempt = 0;
        loop {
            let opened = tokio::select! {
                opened = self.open() => opened,
                () = self.stop.cancelled() => return,
            };
            match opened {
                Ok(mut held) => {
                    attempt = 0;
                    self.state
                        .send_replace(State::Up(Arc::clone(&held.session)));
                    let lost = tokio::select! {
                        reason = self.serve(&mut held) => Some(reason),
                        () = self.stop.cancelled() => None,
                    };
                    held.session.useless.cancel();
                    let Some(reason) = lost else {
                        return held.close().await;
                    };
                    warn!(
                        "lost RabbitMQ at {}: {reason}; reconnecting",
                        self.options.url
                    );
                    self.state.send_replace(State::Connecting);
                    self.pending.complete_all(&Outcome::Lost);
                }
                Err(error) => {
                    self.state.send_replace(State::Down(error));
                    attempt += 1;
                }
            }
            tokio::select! {
                () = sleep(broker::redial_pause(attempt)) => {}
                () = self.stop.cancelled() => return,
            }
        }
    }

    async fn open(&self) -> Result<Held, Error> {
        let url = &self.options.url;
        if self.options.one_shot {
            let connection = broker::connect(url, "call").await?;
            let channels = broker::bounded(url, open_direct(&connection)).await?;
            Ok(Held::new(channels, (connection, None)))
        } else {
            let connect = || broker::connect(url, "client");
            let (replies, requests) = tokio::try_join!(connect(), connect())?;
            let channels = broker::bounded(url, open_queue(&replies, &requests)).await?;
            Ok(Held::new(channels, (replies, Some(requests))))
        }
    }

    /// Until the session is lost; why it was.
    async fn serve(&self, held: &mut Held) -> String {
        let (replies, requests) = &held.connections;
        let requests = requests.as_ref().unwrap_or(replies);
        let mut events = Box::pin(requests.events_listener());
        let mut unconfirmed = FuturesUnordered::new();
        let mut looking = FuturesUnordered::new();
        looking.push(broker::audience(requests, &self.options.queue));
        let mut look = interval(AUDIENCE_PERIOD);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut seen: Option<Instant> = None;
        loop {
            tokio::select! {
                delivery = held.replies.next() => match delivery {
                    Some(Ok(delivery)) => {
                        if let Some((id, reply)) = Reply::read(delivery) {
                            self.pending.complete(id, Outcome::Reply(reply));
                        }
                    }
                    Some(Err(error)) => return broker::describe(&error),
                    None => return "the callback queue is gone".to_owned(),
                },
                Some((id, confirm)) = held.confirms.recv() => {
                    unconfirmed.push(async move { (id, confirm.await) });
                }
                Some((id, confirmed)) = unconfirmed.next() => match confirmed {
                    Ok(confirmed) => self.settle(id, confirmed),
                    Err(error) => return broker::describe(&error),
                },
                Some(audience) = looking.next() => match audience {
                    Audience::Serving => seen = Some(Instant::now()),
                    Audience::Unknown => {}
                    Audience::Nobody => {
                        if seen.is_none_or(|seen| seen.elapsed() > AUDIENCE_MEMORY) {
                            self.pending.complete_all(&Outcome::NobodyServing);
                        }
                    }
                },
                _ = look.tick() => {
                    if looking.is_empty() && !self.pending.is_empty() {
                        looking.push(broker::audience(requests, &self.options.queue));
                    }
                }
                reason = broker::lost(requests, &mut events) => return reason,
                () = held.session.useless.cancelled() => return "publishing failed".to_owned(),
            }
        }
    }

    /// What a confirm says. A returned request may come with another one's confirm: whose it is,
    /// its own correlation id tells.
    fn settle(&self, id: Uuid, confirmed: Confirmation) {
        if confirmed.is_nack() {
            self.pending.complete(id, Outcome::Nacked);
        }
        if let Some(returned) = confirmed.take_message()
            && let Some(id) = message::correlation_id(&returned.properties)
        {
            self.pending.complete(id, Outcome::NobodyServing);
        }
    }
}

/// A channel to publish on, a consumer of replies, and the name to reach it by.
type Channels = (Channel, Consumer, ShortString);

impl Held {
    fn new(
        (channel, replies, reply_to): Channels,
        connections: (Connection, Option<Connection>),
    ) -> Self {
        let (sender, confirms) = mpsc::unbounded_channel();
        let session = Session {
            channel,
            reply_to,
            confirms: sender,
            useless: CancellationToken::new(),
        };
        Self {
            session: Arc::new(session),
            replies,
            confirms,
            connections,
        }
    }

    async fn close(self) {
        let (replies, requests) = &self.connections;
        for connection in requests.iter().chain([replies]) {
            broker::close(connection).await;
        }
    }
}

/// For one call and the end: direct reply-to, which wants everything on one channel and no queue.
async fn open_direct(connection: &Connection) -> lapin::Result<Channels> {
    let direct = ShortString::from("amq.rabbitmq.reply-to");
    let channel = broker::open_channel(connection).await?;
    let (replies, ()) = tokio::try_join!(
        consume(&channel, direct.clone()),
        channel.confirm_select(ConfirmSelectOptions::default()),
    )?;
    Ok((channel, replies, direct))
}

/// For a long-lived client: an exclusive queue that the broker names.
async fn open_queue(replies: &Connection, requests: &Connection) -> lapin::Result<Channels> {
    let (replies, requests) = tokio::try_join!(
        broker::open_channel(replies),
        broker::open_channel(requests)
    )?;
    let callback = async {
        let exclusive = QueueDeclareOptions {
            exclusive: true,
            ..QueueDeclareOptions::default()
        };
        let queue = replies
            .queue_declare(ShortString::default(), exclusive, FieldTable::default())
            .await?;
        let name = queue.name().clone();
        Ok((consume(&replies, name.clone()).await?, name))
    };
    let ((replies, name), ()) = tokio::try_join!(
        callback,
        requests.confirm_select(ConfirmSelectOptions::default()),
    )?;
    Ok((requests, replies, name))
}

/// Without acks: a reply that is lost with the connection is asked for again.
async fn consume(channel: &Channel, queue: ShortString) -> lapin::Result<Consumer> {
    let no_ack = BasicConsumeOptions {
        no_ack: true,
        ..BasicConsumeOptions::default()
    };
    channel
        .basic_consume(queue, ShortString::default(), no_ack, FieldTable::default())
        .await
}
