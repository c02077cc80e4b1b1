//! Replying to a request and settling its delivery.
//!
//! A delivery is acked only once its reply is confirmed, or when there is nobody to take it. A reply
//! that is not known to have arrived ends the session: nothing is settled, and the broker redelivers.
//! That none is acked twice or too early, the types see to: an ack takes the [`Unsettled`] with it,
//! and replying is the only other use there is for one.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use lapin::message::Delivery;
use lapin::options::{BasicAckOptions, BasicPublishOptions, ConfirmSelectOptions};
use lapin::types::ShortString;
use lapin::{BasicProperties, Channel};
use tokio::sync::{Mutex, Semaphore};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::broker;
use crate::error::quote;
use crate::message::is_direct_reply_to;
use crate::server_url::AmqpUrl;

/// Before a reply that was refused is tried again.
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
    /// It may have ended a session before.
    redelivered: bool,
}

impl Unsettled {
    /// Takes the delivery, so that there is one permission only.
    pub(super) fn take(delivery: Delivery) -> (Self, Vec<u8>, BasicProperties) {
        let unsettled = Self {
            tag: delivery.delivery_tag,
            redelivered: delivery.redelivered,
        };
        (unsettled, delivery.data, delivery.properties)
    }
}

/// Replying and acking, for the task of one delivery.
#[derive(Debug, Clone)]
pub(super) struct Post {
    pub(super) acks: Channel,
    replies: Channel,
    /// What replies on their way may occupy, in [`MEASURE`].
    room: Arc<Semaphore>,
    /// For suspect replies, one at a time, over a connection of their own.
    apart: Arc<Mutex<AmqpUrl>>,
    /// Cancelled when the session is of no more use; the reason, where a reply found out, in `why`.
    pub(super) lost: CancellationToken,
    why: Arc<OnceLock<String>>,
}

impl Post {
    pub(super) fn new(
        url: &AmqpUrl,
        acks: Channel,
        replies: Channel,
        lost: CancellationToken,
    ) -> Self {
        Self {
            acks,
            replies,
            room: Arc::new(Semaphore::new(ROOM as usize)),
            apart: Arc::new(Mutex::new(url.clone())),
            lost,
            why: Arc::default(),
        }
    }

    /// The same for deliveries of another channel.
    pub(super) fn with_acks(&self, acks: Channel) -> Self {
        Self {
            acks,
            ..self.clone()
        }
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
    /// ends the session instead.
    pub(super) async fn reply(
        &self,
        unsettled: Unsettled,
        to: ShortString,
        body: &[u8],
        properties: BasicProperties,
    ) {
        let replied = if unsettled.redelivered && is_direct_reply_to(&to) {
            // In a box: connecting is a future of many kilobytes, and each delivery's task would be
            // that large.
            Box::pin(self.reply_apart(to, body, properties)).await
        } else {
            let measures = u32::try_from(body.len() / MEASURE).map_or(ROOM, |size| size.min(ROOM));
            // Never closed.
            let _room = self.room.acquire_many(measures).await;
            let published = publish(&self.replies, to, body, properties).await;
            published.map_err(|error| broker::describe(&error))
        };
        match replied {
            Ok(()) => self.ack(unsettled).await,
            Err(reason) => self.give_up(reason),
        }
    }

    /// Replies by direct reply-to over a connection of its own.
    ///
    /// RabbitMQ (3.10 at least) closes the connection that publishes to a forged name of that kind.
    /// On the connection of all replies, such a request would come back and end it again and again;
    /// on one of its own it is found out, and settled.
    async fn reply_apart(
        &self,
        to: ShortString,
        body: &[u8],
        properties: BasicProperties,
    ) -> Result<(), String> {
        let lost = || "the session is over".to_owned();
        let url = self.apart.lock().await;
        let connecting = broker::connect(&url, "worker suspect reply");
        let connection = match self.lost.run_until_cancelled(connecting).await {
            Some(Ok(connection)) => connection,
            Some(Err(error)) => return Err(error.to_string()),
            None => return Err(lost()),
        };
        let open = async {
            let channel = broker::open_channel(&connection).await?;
            channel
                .confirm_select(ConfirmSelectOptions::default())
                .await?;
            Ok(channel)
        };
        // During an alarm the reply waits, as those on the common connection do.
        let reply = async {
            let channel = broker::bounded_lapin(open).await?;
            publish(&channel, to.clone(), body, properties).await
        };
        let replied = self.lost.run_until_cancelled(reply).await;
        match replied {
            Some(Ok(())) => {
                broker::close(&connection).await;
                Ok(())
            }
            Some(Err(error)) if broker::is_internal_error(&error) => {
                let reply_to = quote(to.as_str().as_bytes());
                warn!(
                    reply_to,
                    "gave up a reply: RabbitMQ fails over its reply_to"
                );
                Ok(())
            }
            Some(Err(error)) => Err(broker::describe(&error)),
            None => Err(lost()),
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

/// Publishes a reply; `Ok` once it has arrived, or there is nobody to take it.
async fn publish(
    channel: &Channel,
    to: ShortString,
    body: &[u8],
    properties: BasicProperties,
) -> lapin::Result<()> {
    let options = BasicPublishOptions {
        // To learn that nobody waits any more.
        mandatory: !is_direct_reply_to(&to),
        ..BasicPublishOptions::default()
    };
    for pause in [Some(NACK_PAUSE), None] {
        let default_exchange = ShortString::default();
        let confirmed = channel
            .basic_publish(
                default_exchange,
                to.clone(),
                options,
                body,
                properties.clone(),
            )
            .await?
            .await?;
        // A returned message may have come with another one's confirm; either way some caller's
        // queue is gone, and there is nobody to reply to.
        if confirmed.is_ack() {
            return Ok(());
        }
        if let Some(pause) = pause {
            sleep(pause).await;
        }
    }
    // A callback queue of somebody's own making that is full and refuses more. Were its request
    // not settled, it would come back for ever.
    debug!(%to, "a caller's queue takes no reply");
    Ok(())
}
