//! Keeps the requester's session with the broker: a task opens one after another, see [`Session`].
//!
//! When any part of a session is lost, the session ends: every waiter is completed as lost, and the next session has
//! new connections and a new callback queue.

use std::sync::Arc;
use std::time::Duration;

use lapin::options::{BasicConsumeOptions, ConfirmSelectOptions, QueueDeclareOptions};
use lapin::types::{FieldTable, ShortString};
use lapin::{Channel, Connection, Consumer};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::RequesterOptions;
use super::pending::{Outcome, Pending};
use super::session::{RequestChannel, Session, SessionHandle};
use crate::broker::{self, Backoff, Publisher};
use crate::counts::BrokerCounts;
use crate::error::Error;

/// How long calls wait for a broker that was lost, which may be restarting; after that they fail at once.
const OUTAGE: Duration = Duration::from_secs(15);

/// The state that the supervisor publishes to callers.
#[derive(Debug, Clone)]
pub(super) enum SessionState {
    Connecting,
    Up(Arc<SessionHandle>),
    Down(Error),
    Closed,
}

/// The task that keeps a requester's session.
pub(super) struct Supervisor {
    pub(super) options: RequesterOptions,
    pub(super) pending: Pending,
    pub(super) state: watch::Sender<SessionState>,
    pub(super) counts: Arc<BrokerCounts>,
    pub(super) stop: CancellationToken,
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
                    let served = session.serve(&self.counts, seen);
                    let lost = self.stop.run_until_cancelled(served).await;
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
        let (connection, channels) = if self.options.one_shot {
            let connection = broker::connect(&url.with_small_frames(), "call").await?;
            let channels = broker::bounded(url, open_direct(&connection)).await?;
            (connection, channels)
        } else {
            let connect = || broker::connect(url, "client");
            let (replies, requests) = tokio::try_join!(connect(), connect())?;
            let channels = broker::bounded(url, open_queue(&replies, requests)).await?;
            (replies, channels)
        };
        let (requests, replies, reply_to) = channels;
        let (handle, publications) = SessionHandle::new(reply_to);
        Ok(Session {
            queue: self.options.queue.clone(),
            url: url.clone(),
            pending: self.pending.clone(),
            handle: Arc::new(handle),
            publications,
            requests,
            replies,
            connection,
        })
    }
}

/// Where to publish, the consumer of replies, and its name for `reply_to`.
type Channels = (RequestChannel, Consumer, ShortString);

/// For a one-shot call: direct reply-to, which needs one channel for both and no queue.
async fn open_direct(connection: &Connection) -> lapin::Result<Channels> {
    let direct = ShortString::from("amq.rabbitmq.reply-to");
    let channel = broker::open_channel(connection).await?;
    let (replies, ()) = tokio::try_join!(
        consume(&channel, direct.clone()),
        channel.confirm_select(ConfirmSelectOptions::default()),
    )?;
    Ok((RequestChannel::WithReplies(channel), replies, direct))
}

/// For a long-lived client: an exclusive queue with a name from the broker.
async fn open_queue(replies: &Connection, requests: Connection) -> lapin::Result<Channels> {
    let callback = async {
        let channel = broker::open_channel(replies).await?;
        let exclusive = QueueDeclareOptions {
            exclusive: true,
            ..QueueDeclareOptions::default()
        };
        let queue = channel
            .queue_declare(ShortString::default(), exclusive, FieldTable::default())
            .await?;
        let name = queue.name().clone();
        Ok((consume(&channel, name.clone()).await?, name))
    };
    let requests = Publisher::open(Arc::new(requests));
    let ((replies, name), requests) = tokio::try_join!(callback, requests)?;
    Ok((RequestChannel::Separate(requests), replies, name))
}

/// Consumes without acks: if a reply is lost with the connection, the request is published again.
async fn consume(channel: &Channel, queue: ShortString) -> lapin::Result<Consumer> {
    let no_ack = BasicConsumeOptions {
        no_ack: true,
        ..BasicConsumeOptions::default()
    };
    channel
        .basic_consume(queue, ShortString::default(), no_ack, FieldTable::default())
        .await
}
