//! Publishing on a channel that may be closed over one message without any loss to the others.
//!
//! RabbitMQ refuses a publish by closing its channel, for instance one above `max_message_size`, and does
//! not say which one it was: all that is not confirmed on that channel fails alike. A [`Publisher`] opens
//! the channel again and publishes the others once more. The refused message is known by its size, where
//! the broker names its limit, and by publishing one message at a time otherwise. What was accepted before
//! the channel was closed may arrive twice: requests and replies have correlation ids.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arc_swap::ArcSwap;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::types::ShortString;
use lapin::{BasicProperties, Channel, Confirmation, Connection};
use tokio::sync::Mutex;

use super::{bounded_lapin, describe, hard_error, open_channel, soft_error};
use crate::error::{ErrorCode, Failure};

/// How often a message that was in flight beside a refused one is published on the shared channel again,
/// before it is published alone.
const MAX_ATTEMPTS: u32 = 5;

/// Publishes to the default exchange, with confirms. Lives as long as its connection.
#[derive(Debug)]
pub(crate) struct Publisher {
    connection: Arc<Connection>,
    /// Shared by all messages. Replaced when the broker has closed it.
    channel: ArcSwap<Channel>,
    opening: Mutex<()>,
    /// For one message at a time. `None` until it is needed, and while a message is on it.
    alone: Mutex<Option<Channel>>,
    /// The largest body in bytes, as the broker has said; `usize::MAX` until then.
    limit: AtomicUsize,
}

/// One message, as it is published again if it has to be.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Message<'a> {
    /// The queue.
    pub(crate) to: &'a ShortString,
    /// Whether the broker returns it where there is no such queue.
    pub(crate) mandatory: bool,
    pub(crate) body: &'a [u8],
    pub(crate) properties: &'a BasicProperties,
}

/// What became of a message.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "the large one is the ordinary one: a box would be made for each message"
)]
pub(crate) enum Published {
    /// The broker has confirmed it: an ack, a nack, or an ack with the returned message.
    Confirmed(Confirmation),
    /// The broker closes the channel over this message.
    Refused(Refusal),
}

/// Why the broker refuses a message.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// Its body is larger than the broker lets messages be; both in bytes.
    TooLarge { size: usize, limit: usize },
    /// The broker closed the channel with this error.
    Other(lapin::Error),
}

impl Refusal {
    /// Why a body of this size closed its channel with this error, if its size is the reason.
    pub(crate) fn by_size(size: usize, error: &lapin::Error) -> Option<Self> {
        let limit = limit_named(error)?;
        (size > limit).then_some(Self::TooLarge { size, limit })
    }

    /// The failure of the call whose message it was; `what` is the message: "request" or "answer".
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
            channel: ArcSwap::from_pointee(channel),
            opening: Mutex::default(),
            alone: Mutex::default(),
            limit: AtomicUsize::new(usize::MAX),
        })
    }

    pub(crate) fn connection(&self) -> &Arc<Connection> {
        &self.connection
    }

    /// Publishes a message and waits for its confirm; again if the channel is closed over another one.
    ///
    /// # Errors
    ///
    /// When the connection is lost, or no channel can be opened on it.
    ///
    /// # Cancellation
    ///
    /// The message may have been published.
    pub(crate) async fn publish(&self, message: Message<'_>) -> lapin::Result<Published> {
        for _ in 0..MAX_ATTEMPTS {
            if let Some(refusal) = self.too_large(message) {
                return Ok(Published::Refused(refusal));
            }
            // What is rare is in a box: each message's task would be larger.
            let channel = match self.open_channel() {
                Some(channel) => channel,
                None => Box::pin(self.reopen()).await?,
            };
            let error = match send(&channel, message).await {
                Ok(confirmed) => return Ok(Published::Confirmed(confirmed)),
                Err(error) => error,
            };
            // Of a connection that was closed over a message, the error says so.
            if hard_error(&error).is_some() || !self.connection.status().connected() {
                return Err(error);
            }
            // Where the broker has not named its limit, any of those in flight may be the cause. Another
            // kind of error only says that the channel was closed already.
            if soft_error(&error).is_some() && !self.learn_limit(&error) {
                break;
            }
        }
        Box::pin(self.publish_alone(message)).await
    }

    /// Publishes with nothing beside it on its channel: whatever closes that, this message does.
    async fn publish_alone(&self, message: Message<'_>) -> lapin::Result<Published> {
        let mut alone = self.alone.lock().await;
        // Taken out: where this future is dropped, its unconfirmed message goes with the channel.
        let channel = match alone.take().filter(|channel| channel.status().connected()) {
            Some(channel) => channel,
            None => open_confirming(&self.connection).await?,
        };
        match send(&channel, message).await {
            Ok(confirmed) => {
                *alone = Some(channel);
                Ok(Published::Confirmed(confirmed))
            }
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

    /// Keeps the limit that an error names, for as long as the connection lives; `false` if it names none.
    fn learn_limit(&self, error: &lapin::Error) -> bool {
        let limit = limit_named(error);
        if let Some(limit) = limit {
            self.limit.store(limit, Ordering::Relaxed);
        }
        limit.is_some()
    }

    /// The shared channel, unless the broker has closed it.
    fn open_channel(&self) -> Option<Arc<Channel>> {
        let channel = self.channel.load_full();
        channel.status().connected().then_some(channel)
    }

    /// The shared channel, opened again if nobody else does.
    async fn reopen(&self) -> lapin::Result<Arc<Channel>> {
        let _opening = self.opening.lock().await;
        if let Some(channel) = self.open_channel() {
            return Ok(channel);
        }
        let channel = Arc::new(open_confirming(&self.connection).await?);
        self.channel.store(Arc::clone(&channel));
        Ok(channel)
    }
}

async fn send(channel: &Channel, message: Message<'_>) -> lapin::Result<Confirmation> {
    let options = BasicPublishOptions {
        mandatory: message.mandatory,
        ..BasicPublishOptions::default()
    };
    let (default_exchange, to) = (ShortString::default(), message.to.clone());
    let properties = message.properties.clone();
    channel
        .basic_publish(default_exchange, to, options, message.body, properties)
        .await?
        .await
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

/// The limit on a message's body, where that is why the broker closed a channel.
fn limit_named(error: &lapin::Error) -> Option<usize> {
    match error.kind() {
        lapin::ErrorKind::ProtocolError(error) => limit_in(error.get_message().as_str()),
        _ => None,
    }
}

/// The limit on a message's body in the broker's words, such as "message size 208988 is larger than
/// configured max size 100000". Others may come with other versions: a number behind "max size".
fn limit_in(words: &str) -> Option<usize> {
    let (_, behind) = words.split_once("message size ")?;
    let (size, behind) = leading_number(behind)?;
    let (_, behind) = behind.split_once("max size ")?;
    let (limit, _) = leading_number(behind)?;
    // Not believed where it does not explain the refusal.
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
    fn limit_is_read_from_the_brokers_words() {
        let configured =
            "PRECONDITION_FAILED - message size 208988 is larger than configured max size 100000";
        assert_eq!(limit_in(configured), Some(100_000));
        let default =
            "PRECONDITION_FAILED - message size 536870913 is larger than max size 536870912";
        assert_eq!(limit_in(default), Some(536_870_912));
    }

    #[test]
    fn limit_that_explains_nothing_is_not_believed() {
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
