//! Connects to RabbitMQ, declares queues and publishes.
//!
//! Every call to the broker that could hang has a deadline here, and lapin's errors become
//! [`crate::Error`]s. Connections do not recover by themselves: their owner notices the loss and opens new ones
//! with new queue names. lapin's own recovery redeclares a server-named queue by its name, which the broker
//! refuses.

mod backoff;
mod dial;
mod errors;
mod frames;
mod inspect;
mod node;
mod publisher;
mod queue_watch;

use std::io;
use std::time::Duration;

use futures_util::{Stream, StreamExt};
use lapin::options::QueueDeclareOptions;
use lapin::protocol::AMQPSoftError;
use lapin::types::{AMQPValue, FieldTable, LongString, ShortString};
use lapin::{Channel, Connection, Event, Queue};
use tokio::time::timeout;
use tracing::{info, warn};

pub(crate) use self::backoff::Backoff;
use self::dial::dial;
pub(crate) use self::errors::{
    describe, is_closed_over_message, is_locked, translate, unreachable,
};
use self::errors::{hard_error, soft_error};
pub(crate) use self::frames::MAX_BODY;
pub(crate) use self::frames::properties::{CORRELATION_BYTES, OVERSIZED};
pub use self::inspect::Declared;
pub(crate) use self::inspect::{Inspector, QueueStatus};
pub(crate) use self::node::{
    Pair, declare_exclusive, is_partitioned, is_seen_by_others, leader_answers, move_pause,
    preferred_is_back, silence,
};
pub(crate) use self::publisher::{Message, Published, Publisher, Refusal};
pub use self::queue_watch::{QueueDepth, QueueDepths, QueueWatch};

use crate::counts::BrokerCounts;
use crate::error::{Error, quote};
use crate::server_url::AmqpUrl;
use crate::transport::Endpoint;

/// Time to connect, log in and open a channel; and for each declaration.
const DEADLINE: Duration = Duration::from_secs(5);

/// Channels on one connection: for messages, for a message published alone, and for passive declarations.
const MIN_CHANNELS: u16 = 3;

/// Time for the closing handshake. The broker never answers it on a connection that it has blocked.
const CLOSE_DEADLINE: Duration = Duration::from_secs(1);

/// How a worker declares its request queue. An existing queue is used as it is, with a warning if its
/// properties differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Declare {
    /// As a durable quorum queue, like the tutorials since 2026. The default.
    #[default]
    Quorum,
    /// As a classic queue that is not durable, like older tutorials. It is lost when the broker restarts, and
    /// RabbitMQ 4.3 refuses it by default.
    Classic,
    /// Not at all: the worker waits until the queue exists.
    Never,
}

/// Whether a queue has consumers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Consumers {
    Some {
        /// Whether no message waits in the queue.
        is_empty: bool,
    },
    None,
    /// Not known: this login lacks the right, or the queue is empty and a stopping worker may still hold its
    /// last messages.
    Unknown,
}

/// Connects and logs in to the first node that accepts. `role` is part of the connection's name in the broker's
/// lists.
pub(crate) async fn connect(url: &AmqpUrl, role: &str) -> Result<Connection, Error> {
    Ok(connect_to_one(url, role).await?.0)
}

/// Connects and logs in to the first node that accepts, and returns which it is.
pub(crate) async fn connect_to_one(
    url: &AmqpUrl,
    role: &str,
) -> Result<(Connection, Endpoint), Error> {
    // Boxed: futures that wait for a connection stay small.
    let dialled = Box::pin(dial(url, role)).await;
    let (connection, node) = dialled.map_err(|failure| failure.into_error(url))?;
    check_channel_max(url, &connection)?;
    Ok((connection, node))
}

/// Fails if the broker allows fewer channels per connection than a client or worker needs.
fn check_channel_max(url: &AmqpUrl, connection: &Connection) -> Result<(), Error> {
    let allowed = connection.configuration().channel_max();
    if allowed >= MIN_CHANNELS {
        return Ok(());
    }
    Err(Error::Refused {
        server: url.to_string(),
        reason: format!(
            "its channel_max of {allowed} is too low: a connection needs {MIN_CHANNELS} channels"
        ),
    })
}

/// Waits for a call to the broker, at most 5 s, and translates its error.
pub(crate) async fn bounded<T>(
    url: &AmqpUrl,
    call: impl Future<Output = lapin::Result<T>>,
) -> Result<T, Error> {
    match timeout(DEADLINE, call).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(translate(url, &error)),
        Err(_) => {
            let reason = format!("no answer within {} s", DEADLINE.as_secs());
            Err(unreachable(url, &reason))
        }
    }
}

/// Closes a connection with AMQP's handshake, within a second.
pub(crate) async fn close(connection: &Connection) {
    // Errors are ignored: the socket is closed when the connection is dropped.
    let _ = timeout(CLOSE_DEADLINE, connection.close(200, "bye".into())).await;
}

/// Opens a channel.
///
/// Retries on a channel's error: after the broker has closed a channel (a passive declaration of a missing
/// queue), lapin may fail the next one with the old one's error.
pub(crate) async fn open_channel(connection: &Connection) -> lapin::Result<Channel> {
    let mut attempts_left = 5;
    loop {
        match connection.create_channel().await {
            Err(error) if soft_error(&error).is_some() && attempts_left > 0 => attempts_left -= 1,
            opened => return opened,
        }
    }
}

/// An event that stops publishing on a connection.
pub(crate) enum Trouble {
    /// The broker has raised an alarm, and reads nothing from the connection until the alarm ends.
    Blocked,
    /// The connection is lost, with the reason.
    Lost(String),
}

/// Waits until the connection is blocked or lost. Counts and logs alarms. Cancel safe.
pub(crate) async fn trouble(
    connection: &Connection,
    events: &mut (impl Stream<Item = Event> + Unpin),
    counts: &BrokerCounts,
) -> Trouble {
    while let Some(event) = events.next().await {
        match event {
            // An error of a channel alone, such as of a passive declaration of a missing queue.
            Event::Error(_) if connection.status().connected() => {}
            Event::Error(error) => return Trouble::Lost(describe(&error)),
            Event::ConnectionBlocked(reason) => {
                let reason = quote(reason.as_bytes());
                warn!(
                    reason,
                    "RabbitMQ has raised an alarm and accepts no messages"
                );
                counts.set_blocked(true);
                return Trouble::Blocked;
            }
            Event::ConnectionUnblocked => {
                info!("RabbitMQ accepts messages again");
                counts.set_blocked(false);
            }
            _ => {}
        }
    }
    Trouble::Lost("the connection was closed".to_owned())
}

/// Whether `queue` has consumers. Uses a channel of its own, which the broker closes if the queue is missing.
pub(crate) async fn consumers(connection: &Connection, queue: &ShortString) -> Consumers {
    match timeout(DEADLINE, declare_passively(connection, queue)).await {
        Ok(Ok(queue)) if queue.consumer_count() > 0 => Consumers::Some {
            is_empty: queue.message_count() == 0,
        },
        Ok(Ok(queue)) if queue.message_count() > 0 => Consumers::None,
        Ok(Err(error)) if soft_error(&error) == Some(AMQPSoftError::NOTFOUND) => Consumers::None,
        // The queue is empty: a worker that is stopping may have cancelled its consumer, and still hold requests.
        Ok(Ok(_) | Err(_)) | Err(_) => Consumers::Unknown,
    }
}

/// Declares the request queue unless it exists. Returns the broker's message if an existing queue differs from
/// `declare`.
pub(crate) async fn ensure_queue(
    url: &AmqpUrl,
    connection: &Connection,
    queue: &ShortString,
    declare: Declare,
) -> Result<Option<String>, Error> {
    let exists = match bounded_lapin(declare_passively(connection, queue)).await {
        Ok(_) => true,
        Err(error) if soft_error(&error) == Some(AMQPSoftError::NOTFOUND) => false,
        // Newer brokers require a right for passive declarations, too. Consuming shows whether the queue exists.
        Err(error) if soft_error(&error) == Some(AMQPSoftError::ACCESSREFUSED) => true,
        Err(error) => return Err(translate(url, &error)),
    };
    if declare == Declare::Never {
        return if exists {
            Ok(None)
        } else {
            let reason = format!("there is no queue {queue}, and this worker does not create it");
            Err(unreachable(url, &reason))
        };
    }
    match bounded_lapin(declare_as(connection, queue, declare)).await {
        Ok(_) => Ok(None),
        Err(error) if !exists => Err(translate(url, &error)),
        Err(error) => match soft_error(&error) {
            // Declared differently on purpose: used as it is.
            Some(AMQPSoftError::PRECONDITIONFAILED) => Ok(Some(describe(&error))),
            // No right to declare is needed for a queue that exists.
            Some(AMQPSoftError::ACCESSREFUSED) => Ok(None),
            _ => Err(translate(url, &error)),
        },
    }
}

/// Waits for a call to the broker, at most 5 s, and keeps lapin's error.
pub(crate) async fn bounded_lapin<T>(
    call: impl Future<Output = lapin::Result<T>>,
) -> lapin::Result<T> {
    timeout(DEADLINE, call)
        .await
        .unwrap_or_else(|_| Err(io::Error::from(io::ErrorKind::TimedOut).into()))
}

/// Declares a queue passively, which fails if it does not exist, on a channel of its own.
pub(crate) async fn declare_passively(
    connection: &Connection,
    queue: &ShortString,
) -> lapin::Result<Queue> {
    let passive = QueueDeclareOptions {
        passive: true,
        ..QueueDeclareOptions::default()
    };
    let channel = open_channel(connection).await?;
    let found = channel
        .queue_declare(queue.clone(), passive, FieldTable::default())
        .await?;
    // Dropping the channel closes it.
    Ok(found)
}

async fn declare_as(
    connection: &Connection,
    queue: &ShortString,
    declare: Declare,
) -> lapin::Result<Queue> {
    let mut options = QueueDeclareOptions::default();
    let mut arguments = FieldTable::default();
    if declare == Declare::Quorum {
        options.durable = true;
        arguments.insert(
            "x-queue-type".into(),
            AMQPValue::LongString(LongString::from("quorum")),
        );
    }
    let channel = open_channel(connection).await?;
    channel
        .queue_declare(queue.clone(), options, arguments)
        .await
}
