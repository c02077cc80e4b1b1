//! Publishes messages with confirms, and isolates a message that makes the broker close the channel.
//!
//! RabbitMQ refuses a message, such as one above `max_message_size`, by closing the channel, without saying which
//! message it was: every unconfirmed message on the channel fails. A [`Publisher`] reopens the channel and publishes
//! the others again. It identifies the refused message by its size, if the broker names its limit, and otherwise by
//! publishing messages alone. Messages that were accepted before the channel was closed may arrive twice: requests
//! and replies have correlation ids.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::types::ShortString;
use lapin::{BasicProperties, Channel, Confirmation, Connection};
use tokio::sync::Mutex;
use tokio::time::timeout;

use super::{bounded_lapin, describe, hard_error, open_channel, soft_error};
use crate::error::{ErrorCode, Failure};

/// Attempts to publish a message on the shared channel, while others make the broker close it, before it is
/// published alone.
const MAX_ATTEMPTS: u32 = 5;

/// Publishes to the default exchange, with confirms. Lives as long as its connection.
#[derive(Debug)]
pub(crate) struct Publisher {
    connection: Arc<Connection>,
    /// Shared by all messages. Replaced after the broker has closed it.
    channel: ArcSwap<SharedChannel>,
    opening: Mutex<()>,
    /// For one message at a time. `None` before its first use, and while a message is on it.
    alone: Mutex<Option<Channel>>,
    /// The largest body in bytes, once the broker has named it; `usize::MAX` before.
    limit: AtomicUsize,
}

/// The channel of all messages.
#[derive(Debug)]
struct SharedChannel {
    channel: Channel,
    /// Whether its queue is known to take messages from it: it has acked one, or the queue's leader answered when the
    /// channel was opened.
    proven: AtomicBool,
}

/// A message, which may be published several times.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Message<'a> {
    /// The queue.
    pub(crate) to: &'a ShortString,
    /// Whether the broker returns the message if the queue does not exist.
    pub(crate) mandatory: bool,
    pub(crate) body: &'a [u8],
    pub(crate) properties: &'a BasicProperties,
}

/// The outcome of publishing a message.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "the large variant is the common one: boxing it would allocate for each message"
)]
pub(crate) enum Published {
    /// The broker's confirm: an ack, a nack, or an ack with the returned message.
    Confirmed(Confirmation),
    /// A nack by a channel that has acked nothing yet. A quorum queue that elects its leader nacks what a new channel
    /// publishes, and RabbitMQ 3.10 then keeps that channel's idea of the leader: [`Publisher::renew`] replaces it.
    NackedAtFirst,
    /// No confirm within the time given: the node of the queue may be frozen or cut off.
    Unconfirmed,
    /// The broker closed the channel because of this message.
    Refused(Refusal),
}

/// Why the broker refused a message.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// Its body exceeds the broker's limit; both in bytes.
    TooLarge { size: usize, limit: usize },
    /// The broker closed the channel with this error.
    Other(lapin::Error),
}

impl Refusal {
    /// The refusal of a body of this size, if `error` names a limit that it exceeds.
    pub(crate) fn by_size(size: usize, error: &lapin::Error) -> Option<Self> {
        let limit = limit_named(error)?;
        (size > limit).then_some(Self::TooLarge { size, limit })
    }

    /// The failure of the message's call. `what` names the message: "request" or "answer".
    pub(crate) fn failure(&self, what: &str) -> Failure {
        match self {
            Self::TooLarge { size, limit } => Failure {
                code: ErrorCode::TooLarge,
                message: format!("the {what} has {size} bytes, the broker takes {limit} at most"),
            },
            Self::Other(error) => Failure {
                code: ErrorCode::Failed,
                message: format!("the broker refuses the {what}: {}", describe(error)),
            },
        }
    }
}

impl Publisher {
    pub(crate) async fn open(connection: Arc<Connection>) -> lapin::Result<Self> {
        let channel = open_confirming(&connection).await?;
        Ok(Self {
            connection,
            channel: ArcSwap::from_pointee(SharedChannel::new(channel, false)),
            opening: Mutex::default(),
            alone: Mutex::default(),
            limit: AtomicUsize::new(usize::MAX),
        })
    }

    pub(crate) fn connection(&self) -> &Arc<Connection> {
        &self.connection
    }

    /// Publishes a message and waits `within` for its confirm; again if another message makes the broker close the
    /// channel.
    ///
    /// # Errors
    ///
    /// If the connection is lost, or no channel can be opened.
    ///
    /// # Cancellation
    ///
    /// The message may have been published.
    pub(crate) async fn publish(
        &self,
        message: Message<'_>,
        within: Duration,
    ) -> lapin::Result<Published> {
        for _ in 0..MAX_ATTEMPTS {
            if let Some(refusal) = self.too_large(message) {
                return Ok(Published::Refused(refusal));
            }
            // The rare path is boxed: it would enlarge the task of each message.
            let shared = match self.open_channel() {
                Some(shared) => shared,
                None => Box::pin(self.reopen()).await?,
            };
            let error = match send(&shared.channel, message, within).await {
                Ok(Some(confirmed)) => return Ok(shared.published(confirmed)),
                Ok(None) => return Ok(Published::Unconfirmed),
                Err(error) => error,
            };
            // An error that closed the whole connection is the caller's to handle.
            if hard_error(&error).is_some() || !self.connection.status().connected() {
                return Err(error);
            }
            // If the broker does not name its limit, any message in flight may be the cause. Other kinds of errors
            // only mean that the channel was closed already.
            if soft_error(&error).is_some() && !self.learn_limit(&error) {
                break;
            }
        }
        Box::pin(self.publish_alone(message, within)).await
    }

    /// Replaces the channel by a fresh one; `proven` if the queue's leader has just answered. Messages in flight on the
    /// old one are still confirmed there.
    pub(crate) async fn renew(&self, proven: bool) -> lapin::Result<()> {
        let _opening = self.opening.lock().await;
        let channel = open_confirming(&self.connection).await?;
        let fresh = SharedChannel::new(channel, proven);
        self.channel.store(Arc::new(fresh));
        Ok(())
    }

    /// Publishes a message alone on a channel: if the broker closes it, this message is the cause.
    async fn publish_alone(
        &self,
        message: Message<'_>,
        within: Duration,
    ) -> lapin::Result<Published> {
        let mut alone = self.alone.lock().await;
        // Taken out: if this future is dropped, the channel is, too, with its unconfirmed message.
        let channel = match alone.take().filter(|channel| channel.status().connected()) {
            Some(channel) => channel,
            None => open_confirming(&self.connection).await?,
        };
        match send(&channel, message, within).await {
            Ok(Some(confirmed)) => {
                *alone = Some(channel);
                Ok(Published::Confirmed(confirmed))
            }
            Ok(None) => Ok(Published::Unconfirmed),
            Err(error) if soft_error(&error).is_some() => {
                self.learn_limit(&error);
                let refusal = self.too_large(message);
                Ok(Published::Refused(refusal.unwrap_or(Refusal::Other(error))))
            }
            Err(error) => Err(error),
        }
    }

    fn too_large(&self, message: Message<'_>) -> Option<Refusal> {
        let (size, limit) = (message.body.len(), self.limit.load(Ordering::Relaxed));
        (size > limit).then_some(Refusal::TooLarge { size, limit })
    }

    /// Remembers the limit that an error names, for this connection; `false` if it names none.
    fn learn_limit(&self, error: &lapin::Error) -> bool {
        let limit = limit_named(error);
        if let Some(limit) = limit {
            self.limit.store(limit, Ordering::Relaxed);
        }
        limit.is_some()
    }

    /// The shared channel, unless the broker has closed it.
    fn open_channel(&self) -> Option<Arc<SharedChannel>> {
        let shared = self.channel.load_full();
        shared.channel.status().connected().then_some(shared)
    }

    /// Reopens the shared channel, unless another message has done so.
    async fn reopen(&self) -> lapin::Result<Arc<SharedChannel>> {
        let _opening = self.opening.lock().await;
        if let Some(shared) = self.open_channel() {
            return Ok(shared);
        }
        let channel = open_confirming(&self.connection).await?;
        let shared = Arc::new(SharedChannel::new(channel, false));
        self.channel.store(Arc::clone(&shared));
        Ok(shared)
    }
}

impl SharedChannel {
    fn new(channel: Channel, proven: bool) -> Self {
        Self {
            channel,
            proven: AtomicBool::new(proven),
        }
    }

    fn published(&self, confirmed: Confirmation) -> Published {
        match &confirmed {
            Confirmation::Ack(None) => self.proven.store(true, Ordering::Relaxed),
            Confirmation::Nack(_) if !self.proven.load(Ordering::Relaxed) => {
                return Published::NackedAtFirst;
            }
            _ => {}
        }
        Published::Confirmed(confirmed)
    }
}

/// Publishes and waits `within` for the confirm; `None` if there is none.
async fn send(
    channel: &Channel,
    message: Message<'_>,
    within: Duration,
) -> lapin::Result<Option<Confirmation>> {
    let options = BasicPublishOptions {
        mandatory: message.mandatory,
        ..BasicPublishOptions::default()
    };
    let (default_exchange, to) = (ShortString::default(), message.to.clone());
    let properties = message.properties.clone();
    let mut confirm = channel
        .basic_publish(default_exchange, to, options, message.body, properties)
        .await?;
    match timeout(within, &mut confirm).await {
        Ok(confirmed) => confirmed.map(Some),
        Err(_elapsed) => {
            // lapin keeps a confirm until it is awaited, or the channel is closed.
            tokio::spawn(confirm);
            Ok(None)
        }
    }
}

async fn open_confirming(connection: &Connection) -> lapin::Result<Channel> {
    bounded_lapin(async {
        let channel = open_channel(connection).await?;
        let confirms = ConfirmSelectOptions::default();
        channel.confirm_select(confirms).await?;
        Ok(channel)
    })
    .await
}

/// The limit on a body in bytes, if that is why the broker closed a channel.
fn limit_named(error: &lapin::Error) -> Option<usize> {
    match error.kind() {
        lapin::ErrorKind::ProtocolError(error) => limit_in(error.get_message().as_str()),
        _ => None,
    }
}

/// Parses the limit in the broker's message, such as "message size 208988 is larger than configured max size
/// 100000". Versions differ in the words before "max size".
fn limit_in(words: &str) -> Option<usize> {
    let (_, behind) = words.split_once("message size ")?;
    let (size, behind) = leading_number(behind)?;
    let (_, behind) = behind.split_once("max size ")?;
    let (limit, _) = leading_number(behind)?;
    // Ignored if it does not explain the refusal.
    (limit < size).then_some(limit)
}

fn leading_number(text: &str) -> Option<(usize, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit());
    let (digits, behind) = text.split_at(end.unwrap_or(text.len()));
    Some((digits.parse().ok()?, behind))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_parsed_from_the_brokers_message() {
        let configured =
            "PRECONDITION_FAILED - message size 208988 is larger than configured max size 100000";
        assert_eq!(limit_in(configured), Some(100_000));
        let default =
            "PRECONDITION_FAILED - message size 536870913 is larger than max size 536870912";
        assert_eq!(limit_in(default), Some(536_870_912));
    }

    #[test]
    fn a_limit_that_does_not_explain_the_refusal_is_ignored() {
        for words in [
            "",
            "PRECONDITION_FAILED - invalid expiration",
            "message size is larger than max size",
            "message size 5 is larger than max size",
            "message size 5 is larger than max size 5",
            "message size 5 is larger than max size -1",
            "message size 5 is larger than max size 99999999999999999999999999",
            "max size 5, message size 7",
        ] {
            assert_eq!(limit_in(words), None, "{words}");
        }
    }
}
