//! Keeps the requester's session with the broker: a task opens one after another, see [`Session`].
//!
//! When any part of a session is lost, the session ends: every waiter is completed as lost, and the next session has
//! new connections and a new callback queue.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use lapin::options::{BasicConsumeOptions, ConfirmSelectOptions};
use lapin::types::{FieldTable, ShortString};
use lapin::{Channel, Connection, Consumer};
use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::RequesterOptions;
use super::pending::{Outcome, Pending};
use super::request_channel::RequestChannel;
use super::session::{Session, SessionHandle};
use super::successor::{Place, Watch};
use crate::broker::{self, Backoff, Pair, Publisher};
use crate::counts::BrokerCounts;
use crate::error::Error;
use crate::server_url::AmqpUrl;
use crate::transport::Endpoint;

/// How long calls wait for a broker that was lost, which may be restarting; after that they fail at once.
const OUTAGE: Duration = Duration::from_secs(15);

/// Time to declare a callback queue; after that, replies come by direct reply-to.
const DECLARE_PATIENCE: Duration = Duration::from_millis(500);

/// How a session ended, if not by the supervisor's end.
#[expect(clippy::large_enum_variant, reason = "one at a time")]
enum Ended {
    Lost(Error),
    /// Another one takes its place.
    Succeeded(Session),
}

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
    /// Whether the last session ended although the queue's leader answered: a nack in the next one is the queue's own.
    pub(super) leader_answered: AtomicBool,
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
        let mut next = None;
        loop {
            let opening = if let Some(next) = next.take() {
                Some(Ok(next))
            } else {
                let opening = self.open(&self.options.url);
                self.stop.run_until_cancelled(opening).await
            };
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
                    let place = session.place.clone();
                    let served = async {
                        tokio::select! {
                            error = session.serve(&self.counts, seen) => Ended::Lost(error),
                            next = self.successor(place) => Ended::Succeeded(next),
                        }
                    };
                    let ended = self.stop.run_until_cancelled(Box::pin(served)).await;
                    let lost = match ended {
                        Some(Ended::Lost(error)) => {
                            let answered = session.leader_answered;
                            self.leader_answered.store(answered, Ordering::Relaxed);
                            Some(error)
                        }
                        Some(Ended::Succeeded(successor)) => {
                            session.publications.close();
                            let was_empty = session.handle.queue_is_empty();
                            successor.handle.note_queue(was_empty);
                            // Requests in flight are published again there.
                            let handle = Arc::clone(&successor.handle);
                            self.state.send_replace(SessionState::Up(handle));
                            self.pending.complete_all(&Outcome::Lost);
                            info!("RabbitMQ: going on at {}", successor.place.node);
                            tokio::spawn(session.close());
                            lost_at = Some(Instant::now());
                            next = Some(successor);
                            continue;
                        }
                        None => None,
                    };
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

    pub(super) async fn open(&self, url: &AmqpUrl) -> Result<Session, Error> {
        if self.options.one_shot {
            return self.open_direct(url).await;
        }
        let pair = Pair::connect(url, "client", "client").await?;
        let opened = timeout(DECLARE_PATIENCE, open_callback_queue(&pair.consuming)).await;
        let (channels, has_queue) = match opened {
            Ok(opened) => {
                let (replies, name) = opened.map_err(|error| broker::translate(url, &error))?;
                let requests = Publisher::open(Arc::new(pair.publishing));
                let requests = broker::bounded(url, requests).await?;
                ((RequestChannel::Separate(requests), replies, name), true)
            }
            // All nodes must agree on a new queue: one that is frozen or cut off holds that up.
            Err(_elapsed) => {
                let direct = broker::bounded(url, self.open_direct_on(&pair.consuming)).await?;
                (direct, false)
            }
        };
        Ok(self.session(pair.consuming, pair.node, channels, has_queue))
    }

    /// Opens a session with direct reply-to over one connection, in the fewest round trips.
    pub(super) async fn open_direct(&self, url: &AmqpUrl) -> Result<Session, Error> {
        let url = url.with_small_frames();
        let role = if self.options.one_shot {
            "call"
        } else {
            "client standby"
        };
        let (connection, node) = broker::connect_to_one(&url, role).await?;
        let channels = broker::bounded(&url, self.open_direct_on(&connection)).await?;
        Ok(self.session(connection, node, channels, self.options.one_shot))
    }

    /// Opens direct reply-to, which needs one channel for requests and replies, and no queue.
    async fn open_direct_on(&self, connection: &Connection) -> lapin::Result<Channels> {
        let direct = ShortString::from("amq.rabbitmq.reply-to");
        let channel = broker::open_channel(connection).await?;
        let (replies, ()) = tokio::try_join!(
            consume(&channel, direct.clone()),
            channel.confirm_select(ConfirmSelectOptions::default()),
        )?;
        let is_proven = self.leader_answered.swap(false, Ordering::Relaxed);
        let requests = RequestChannel::WithReplies {
            channel,
            is_proven: AtomicBool::new(is_proven),
        };
        Ok((requests, replies, direct))
    }

    /// `is_complete`: it has a callback queue, if it is to have one.
    fn session(
        &self,
        connection: Connection,
        node: Endpoint,
        (requests, replies, reply_to): Channels,
        is_complete: bool,
    ) -> Session {
        let (handle, publications) = SessionHandle::new(reply_to);
        let place = Place {
            is_settled: is_complete && self.options.url.prefers(&node),
            node,
            watch: Watch::default(),
        };
        Session {
            queue: self.options.queue.clone(),
            url: self.options.url.clone(),
            pending: self.pending.clone(),
            handle: Arc::new(handle),
            publications,
            requests,
            replies,
            connection,
            place,
            leader_answered: false,
        }
    }
}

/// Where to publish, the consumer of replies, and its name for `reply_to`.
type Channels = (RequestChannel, Consumer, ShortString);

/// For a long-lived client: an exclusive queue with a name from the broker.
async fn open_callback_queue(connection: &Connection) -> lapin::Result<(Consumer, ShortString)> {
    let (channel, name) = broker::declare_exclusive(connection).await?;
    Ok((consume(&channel, name.clone()).await?, name))
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
