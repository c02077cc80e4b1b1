//! Publishes replies and settles deliveries.
//!
//! A delivery is acked once its reply is confirmed, or when its caller's queue is gone or on a node that is silent. A reply that may not
//! have arrived ends the session: its delivery is not settled, and the broker redelivers it. A reply that the
//! broker refuses, such as one above its size limit, is replaced by a failure. The types prevent that a delivery
//! is acked twice or too early: both acking and replying consume its [`Unsettled`].

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use lapin::message::Delivery;
use lapin::options::BasicAckOptions;
use lapin::types::ShortString;
use lapin::{BasicProperties, Channel, Connection};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::callback_queues::CallbackQueues;
use super::direct::DirectReplies;
use crate::broker::{self, Message, Published, Publisher, Refusal};
use crate::error::quote;
use crate::log_throttle::LogThrottle;
use crate::message::{CorrelationId, Failure, Reply, is_direct_reply_to};
use crate::server_url::AmqpUrl;

/// A confirm that takes longer makes its reply wait: it does not count against the prefetch window any more.
const LATE: Duration = Duration::from_millis(500);

/// The longest wait for a confirm. The node of the caller's queue is frozen or cut off by then: it delivers the reply
/// when it is back, and a node that does not come back takes the caller's connection with it, so that the caller
/// publishes its request again.
const MAX_CONFIRM_WAIT: Duration = Duration::from_secs(10);

/// The pause before a reply that a queue has nacked is published again.
const NACK_PAUSE: Duration = Duration::from_millis(100);

/// The limit of published replies that are not confirmed yet, in KiB: an answer that hundreds of requests were
/// waiting for is copied for each of them.
const MAX_UNCONFIRMED_KIB: u32 = 32 * 1024;

/// The one permission to settle a delivery. If it is dropped, the broker redelivers when the session ends.
#[must_use]
#[derive(Debug)]
pub(super) struct Unsettled {
    tag: u64,
}

impl Unsettled {
    /// Reads and consumes the delivery, so that there is one permission only.
    pub(super) fn take<T>(
        delivery: Delivery,
        read: impl FnOnce(Vec<u8>, &BasicProperties) -> T,
    ) -> (Self, T) {
        let unsettled = Self {
            tag: delivery.delivery_tag,
        };
        (unsettled, read(delivery.data, &delivery.properties))
    }
}

/// Replies and acks on one consuming channel.
#[derive(Debug)]
pub(super) struct Replier {
    acks: Channel,
    replies: Arc<ReplyPublisher>,
    /// Cancelled when the session ends or must end.
    pub(super) lost: CancellationToken,
    /// Why it must end, if a reply was the cause.
    reason: OnceLock<String>,
}

/// Publishes the replies of all deliveries of a session.
#[derive(Debug)]
pub(super) struct ReplyPublisher {
    to_queues: Publisher,
    direct: DirectReplies,
    callback_queues: CallbackQueues,
    unconfirmed: UnconfirmedBytes,
    refused: LogThrottle,
}

impl ReplyPublisher {
    /// `connection` is for callback queues; direct reply-to opens its own connections when it needs them.
    pub(super) async fn open(url: &AmqpUrl, connection: Arc<Connection>) -> lapin::Result<Self> {
        Ok(Self {
            callback_queues: CallbackQueues::new(Arc::clone(&connection)),
            to_queues: Publisher::open(connection).await?,
            direct: DirectReplies::new(url.clone()),
            unconfirmed: UnconfirmedBytes::new(),
            refused: LogThrottle::default(),
        })
    }

    /// Whether this queue is exclusive to another connection, as a callback queue is. `on_wait` is called before
    /// the broker is asked.
    pub(super) async fn is_callback_queue(&self, name: &ShortString, on_wait: impl Fn()) -> bool {
        self.callback_queues.has(name, on_wait).await
    }

    /// Closes the connections for direct reply-to, within a second.
    pub(super) async fn close_direct(&self) {
        self.direct.close().await;
    }

    /// Publishes a reply and waits for its confirm. `lost` ends the wait for a connection for direct reply-to,
    /// and so the reply.
    async fn publish(
        &self,
        message: Message<'_>,
        lost: &CancellationToken,
        on_wait: impl Fn(),
    ) -> Result<Sent, String> {
        if is_direct_reply_to(message.to) {
            let sent = self.direct.publish(message, &self.unconfirmed, on_wait);
            // Boxed: connecting is a future of many kilobytes, and each delivery's task would be that large.
            let sent = Box::pin(lost.run_until_cancelled(sent)).await;
            return sent.ok_or_else(|| "the session is lost".to_owned());
        }
        let _permit = self.unconfirmed.acquire(message.body.len()).await;
        let mut sent = std::pin::pin!(send(&self.to_queues, message));
        let sent = match timeout(LATE, &mut sent).await {
            Ok(sent) => sent,
            Err(_elapsed) => {
                on_wait();
                sent.await
            }
        };
        sent.map_err(|error| broker::describe(&error))
    }

    /// Logs a reply that the broker refused.
    fn log_refused(&self, to: &ShortString, failure: &Failure) {
        if let Some(left_out) = self.refused.happened() {
            let reply_to = quote(to.as_str().as_bytes());
            let reason = &failure.message;
            warn!(
                reply_to,
                left_out, "the broker refused a reply: {reason}; replying with that as the failure"
            );
        }
    }
}

impl Replier {
    pub(super) fn new(
        acks: Channel,
        replies: Arc<ReplyPublisher>,
        lost: CancellationToken,
    ) -> Self {
        Self {
            acks,
            replies,
            lost,
            reason: OnceLock::new(),
        }
    }

    pub(super) fn replies(&self) -> &Arc<ReplyPublisher> {
        &self.replies
    }

    fn end_session(&self, reason: String) {
        self.reason.get_or_init(|| reason);
        self.lost.cancel();
    }

    /// Why a reply ended the session; empty if none did.
    pub(super) fn reason(&self) -> String {
        self.reason.get().cloned().unwrap_or_default()
    }

    /// Publishes a reply, waits for the confirm, and acks. A reply that may not have arrived ends the session
    /// instead. `on_wait` is called before the reply waits for replies to other names.
    pub(super) async fn reply(
        &self,
        unsettled: Unsettled,
        to: &ShortString,
        body: &[u8],
        properties: BasicProperties,
        on_wait: impl Fn(),
    ) {
        let published = self.publish_or_fail(to, body, &properties, on_wait);
        match published.await {
            Ok(()) => self.ack(unsettled).await,
            Err(reason) => self.end_session(reason),
        }
    }

    /// Publishes a reply, or, if the broker refuses it, the failure that says why.
    async fn publish_or_fail(
        &self,
        to: &ShortString,
        body: &[u8],
        properties: &BasicProperties,
        on_wait: impl Fn(),
    ) -> Result<(), String> {
        let message = |body, properties| Message {
            to,
            // A returned reply tells that the caller's queue is gone.
            mandatory: !is_direct_reply_to(to),
            body,
            properties,
        };
        let replies = &self.replies;
        let sent = replies.publish(message(body, properties), &self.lost, &on_wait);
        let refusal = match sent.await? {
            Sent::Settled => return Ok(()),
            Sent::Refused(refusal) => refusal,
        };
        let failure = refusal.failure("answer");
        replies.log_refused(to, &failure);
        let id = CorrelationId::read(properties);
        let (body, properties) = Reply::failure(failure).write(id.as_ref());
        let sent = replies.publish(message(&body, &properties), &self.lost, &on_wait);
        // Boxed: this is rare, and each delivery's task would be larger.
        match Box::pin(sent).await? {
            Sent::Settled => Ok(()),
            // Not this request's fault: this channel can publish nothing at all.
            Sent::Refused(Refusal::Other(error)) => Err(broker::describe(&error)),
            Sent::Refused(Refusal::TooLarge { limit, .. }) => {
                Err(format!("the broker takes no replies above {limit} bytes"))
            }
        }
    }

    /// Acks a delivery whose reply is confirmed, or that needs no reply.
    pub(super) async fn ack(&self, unsettled: Unsettled) {
        let tag = unsettled.tag;
        if let Err(error) = self.acks.basic_ack(tag, BasicAckOptions::default()).await {
            debug!(%error, "sending an ack failed: the broker will redeliver the request");
        }
    }
}

/// What became of a published reply.
pub(super) enum Sent {
    /// It has arrived, or its caller's queue is gone or on a node that is silent.
    Settled,
    /// The broker refuses it.
    Refused(Refusal),
}

/// Publishes a reply, a second time if the caller's queue nacks it.
pub(super) async fn send(publisher: &Publisher, message: Message<'_>) -> lapin::Result<Sent> {
    for pause in [Some(NACK_PAUSE), None] {
        match publisher.publish(message, MAX_CONFIRM_WAIT).await? {
            // A returned message may have come with another reply's confirm; either way the queue of some caller
            // is gone, and that reply has nowhere to go.
            Published::Confirmed(confirmed) if confirmed.is_ack() => return Ok(Sent::Settled),
            Published::Confirmed(_) | Published::NackedAtFirst => {}
            Published::Unconfirmed => {
                debug!(to = %message.to, "a reply is not confirmed: the node of the caller's queue is silent");
                return Ok(Sent::Settled);
            }
            Published::Refused(refusal) => return Ok(Sent::Refused(refusal)),
        }
        if let Some(pause) = pause {
            sleep(pause).await;
        }
    }
    // A callback queue with a length limit that is full. If the request were not settled, it would be redelivered
    // for ever.
    debug!(to = %message.to, "dropped a reply: the caller's queue refuses it");
    Ok(Sent::Settled)
}

/// Limits the bytes of replies that are published and not confirmed yet.
#[derive(Debug)]
pub(super) struct UnconfirmedBytes(Semaphore);

impl UnconfirmedBytes {
    fn new() -> Self {
        Self(Semaphore::new(MAX_UNCONFIRMED_KIB as usize))
    }

    /// Waits until so many bytes are below the limit, and counts them until the permit is dropped. A reply above
    /// the limit waits until it is the only one.
    pub(super) async fn acquire(&self, bytes: usize) -> Option<SemaphorePermit<'_>> {
        let kib = u32::try_from(bytes / 1024).unwrap_or(MAX_UNCONFIRMED_KIB);
        // Never closed.
        self.0.acquire_many(kib.min(MAX_UNCONFIRMED_KIB)).await.ok()
    }
}
