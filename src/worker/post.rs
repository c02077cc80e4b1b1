//! Replying to a request and settling its delivery.
//!
//! A delivery is acked only once its reply is confirmed, or when there is nobody to take it. A reply
//! that is not known to have arrived ends the session: nothing is settled, and the broker redelivers.
//! A reply that the broker refuses, such as one that is too large for it, is replaced by a failure.
//! That none is acked twice or too early, the types see to: an ack takes the [`Unsettled`] with it,
//! and replying is the only other use there is for one.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use lapin::message::Delivery;
use lapin::options::BasicAckOptions;
use lapin::types::ShortString;
use lapin::{BasicProperties, Channel, Connection};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::callback_queues::CallbackQueues;
use super::direct::DirectReplies;
use crate::broker::{self, Message, Published, Publisher, Refusal};
use crate::error::quote;
use crate::message::{CorrelationId, Failure, Reply, is_direct_reply_to};
use crate::seldom::Seldom;
use crate::server_url::AmqpUrl;

/// Before a reply that a queue has not taken is tried again.
const NACK_PAUSE: Duration = Duration::from_millis(100);

/// The bytes of replies that are published and not confirmed yet: a large answer that hundreds of
/// requests were waiting for is copied for each of them.
const MEASURE: usize = 1024;
const ROOM: u32 = 32 * 1024;

/// A delivery's one permission to be settled. Dropped, it leaves the delivery to be redelivered when
/// the session ends.
#[must_use]
#[derive(Debug)]
pub(super) struct Unsettled {
    tag: u64,
}

impl Unsettled {
    /// Reads the delivery and takes it, so that there is one permission only.
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

/// Replying and acking, for the task of one delivery.
#[derive(Debug)]
pub(super) struct Post {
    acks: Channel,
    replies: Arc<Replies>,
    /// Cancelled when the session is of no more use; the reason, where a reply found out, in `why`.
    pub(super) lost: CancellationToken,
    why: OnceLock<String>,
}

/// Where replies go, for all deliveries of a session.
#[derive(Debug)]
pub(super) struct Replies {
    to_queues: Publisher,
    direct: DirectReplies,
    callback_queues: CallbackQueues,
    room: Room,
    refused: Seldom,
}

impl Replies {
    /// `connection` is for callback queues; direct reply-to opens others when it needs them.
    pub(super) async fn open(url: &AmqpUrl, connection: Arc<Connection>) -> lapin::Result<Self> {
        Ok(Self {
            callback_queues: CallbackQueues::new(Arc::clone(&connection)),
            to_queues: Publisher::open(connection).await?,
            direct: DirectReplies::new(url.clone()),
            room: Room::new(),
            refused: Seldom::default(),
        })
    }

    /// Whether this queue is exclusive to another connection, so a callback queue; `waits` is called before
    /// it is looked for.
    pub(super) async fn is_callback_queue(&self, name: &ShortString, waits: impl Fn()) -> bool {
        self.callback_queues.has(name, waits).await
    }

    /// Closes the connections that were opened for direct reply-to.
    pub(super) async fn close_direct(&self) {
        self.direct.close().await;
    }

    /// `lost` ends what direct reply-to waits for, and with it the reply.
    async fn publish(
        &self,
        message: Message<'_>,
        lost: &CancellationToken,
        waits: impl Fn(),
    ) -> Result<Sent, String> {
        if is_direct_reply_to(message.to) {
            let sent = self.direct.publish(message, &self.room, waits);
            // In a box: connecting is a future of many kilobytes, and each delivery's task would be
            // that large.
            let sent = Box::pin(lost.run_until_cancelled(sent)).await;
            return sent.ok_or_else(|| "the session is lost".to_owned());
        }
        let _room = self.room.hold(message.body.len()).await;
        let sent = send(&self.to_queues, message).await;
        sent.map_err(|error| broker::describe(&error))
    }

    /// A line for a reply that the broker refused.
    fn log_refused(&self, to: &ShortString, failure: &Failure) {
        if let Some(left_out) = self.refused.happened() {
            let reply_to = quote(to.as_str().as_bytes());
            let reason = &failure.message;
            warn!(
                reply_to,
                left_out, "{reason}; the caller gets that as its reply"
            );
        }
    }
}

impl Post {
    pub(super) fn new(acks: Channel, replies: Arc<Replies>, lost: CancellationToken) -> Self {
        Self {
            acks,
            replies,
            lost,
            why: OnceLock::new(),
        }
    }

    pub(super) fn replies(&self) -> &Arc<Replies> {
        &self.replies
    }

    /// Ends the session.
    fn give_up(&self, reason: String) {
        self.why.get_or_init(|| reason);
        self.lost.cancel();
    }

    /// Why a reply ended the session, if one did.
    pub(super) fn why(&self) -> String {
        self.why.get().cloned().unwrap_or_default()
    }

    /// Publishes a reply, waits for the confirm, and acks. A reply that is not known to have arrived
    /// ends the session instead. `waits` is called where the reply has to wait for those to other
    /// names.
    pub(super) async fn reply(
        &self,
        unsettled: Unsettled,
        to: &ShortString,
        body: &[u8],
        properties: BasicProperties,
        waits: impl Fn(),
    ) {
        match self.publish_or_fail(to, body, &properties, waits).await {
            Ok(()) => self.ack(unsettled).await,
            Err(reason) => self.give_up(reason),
        }
    }

    /// Publishes a reply; in its place the failure that says why, if the broker refuses it.
    async fn publish_or_fail(
        &self,
        to: &ShortString,
        body: &[u8],
        properties: &BasicProperties,
        waits: impl Fn(),
    ) -> Result<(), String> {
        let message = |body, properties| Message {
            to,
            // To learn that nobody waits any more.
            mandatory: !is_direct_reply_to(to),
            body,
            properties,
        };
        let replies = &self.replies;
        let sent = replies.publish(message(body, properties), &self.lost, &waits);
        let refusal = match sent.await? {
            Sent::Settled => return Ok(()),
            Sent::Refused(refusal) => refusal,
        };
        let failure = refusal.failure("answer");
        replies.log_refused(to, &failure);
        let id = CorrelationId::read(properties);
        let (body, properties) = Reply::failure(failure).write(id.as_ref());
        let sent = replies.publish(message(&body, &properties), &self.lost, &waits);
        // In a box: it is rare, and each delivery's task would be larger.
        match Box::pin(sent).await? {
            Sent::Settled => Ok(()),
            // Nothing at all can be published here: not this request's fault.
            Sent::Refused(Refusal::Other(error)) => Err(broker::describe(&error)),
            Sent::Refused(Refusal::TooLarge { limit, .. }) => {
                Err(format!("the broker takes no replies above {limit} bytes"))
            }
        }
    }

    /// Acks what nobody waits for, or what has been replied to.
    pub(super) async fn ack(&self, unsettled: Unsettled) {
        let tag = unsettled.tag;
        if let Err(error) = self.acks.basic_ack(tag, BasicAckOptions::default()).await {
            debug!(%error, "an ack could not be sent: the request will be delivered again");
        }
    }
}

/// What became of a reply.
pub(super) enum Sent {
    /// It has arrived, or there is nobody to take it.
    Settled,
    /// The broker does not take it.
    Refused(Refusal),
}

/// Publishes a reply, twice if the caller's queue does not take it.
pub(super) async fn send(publisher: &Publisher, message: Message<'_>) -> lapin::Result<Sent> {
    for pause in [Some(NACK_PAUSE), None] {
        match publisher.publish(message).await? {
            // A returned message may have come with another one's confirm; either way some caller's
            // queue is gone, and there is nobody to reply to.
            Published::Confirmed(confirmed) if confirmed.is_ack() => return Ok(Sent::Settled),
            Published::Confirmed(_) => {}
            Published::Refused(refusal) => return Ok(Sent::Refused(refusal)),
        }
        if let Some(pause) = pause {
            sleep(pause).await;
        }
    }
    // A callback queue of somebody's own making that is full and refuses more. Were its request
    // not settled, it would come back for ever.
    debug!(to = %message.to, "a caller's queue takes no reply");
    Ok(Sent::Settled)
}

/// What replies on their way may occupy.
#[derive(Debug)]
pub(super) struct Room(Semaphore);

impl Room {
    fn new() -> Self {
        Self(Semaphore::new(ROOM as usize))
    }

    /// Waits for room for so many bytes, and holds it.
    pub(super) async fn hold(&self, bytes: usize) -> Option<SemaphorePermit<'_>> {
        let measures = u32::try_from(bytes / MEASURE).map_or(ROOM, |size| size.min(ROOM));
        // Never closed.
        self.0.acquire_many(measures).await.ok()
    }
}
