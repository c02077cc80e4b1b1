//! Connections to RabbitMQ and what is declared there.
//!
//! Every call to the broker that could hang has a deadline here, and every error of lapin's becomes
//! one of ours. Nothing recovers by itself: whoever uses a connection learns that it is lost, and
//! opens another one with fresh names (lapin's own recovery redeclares a server-named queue by name,
//! which the broker refuses).

mod dial;
mod errors;
mod examine;
mod frames;
mod publisher;
mod watch;

use std::io;
use std::time::Duration;

use futures_util::{Stream, StreamExt};
use lapin::options::QueueDeclareOptions;
use lapin::protocol::AMQPSoftError;
use lapin::types::{AMQPValue, FieldTable, LongString, ShortString};
use lapin::{Channel, Connection, Event, Queue};
use tokio::time::timeout;
use tracing::{info, warn};

use self::dial::dial;
pub(crate) use self::errors::{
    describe, is_closed_over_message, is_locked, translate, unreachable,
};
use self::errors::{hard_error, soft_error};
pub use self::examine::Declared;
pub(crate) use self::examine::{Look, Visit};
pub(crate) use self::frames::MAX_BODY;
pub(crate) use self::frames::properties::{CORRELATION_BYTES, OVERSIZED};
pub(crate) use self::publisher::{Message, Published, Publisher, Refusal};
pub use self::watch::{QueueDepth, QueueDepths, QueueWatch};

use crate::counts::BrokerCounts;
use crate::error::{Error, quote};
use crate::server_url::AmqpUrl;

/// To connect, log in and open a channel; and for each declaration.
const DEADLINE: Duration = Duration::from_secs(5);

/// Channels on one connection: for messages, for a message that is published alone, and for looking at queues.
const MIN_CHANNELS: u16 = 3;

/// To say goodbye. A connection that the broker has blocked never hears back.
const CLOSE_DEADLINE: Duration = Duration::from_secs(1);

/// How a worker creates its request queue where it is missing. One that exists is used as it is, with a
/// warning if it is another kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Declare {
    /// A durable quorum queue, as the tutorials declare it since 2026. The default.
    #[default]
    Quorum,
    /// A classic queue that is not durable, as older tutorials do. It is gone when the broker restarts;
    /// RabbitMQ 4.3 refuses it by default.
    Classic,
    /// Not at all: the worker waits until somebody else has created it.
    Never,
}

/// Whether anybody consumes from a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Audience {
    Serving,
    Nobody,
    /// It cannot be told, or this login may not look.
    Unknown,
}

/// Connects and logs in, to whichever node lets us first. `role` names the connection in the broker's
/// lists.
pub(crate) async fn connect(url: &AmqpUrl, role: &str) -> Result<Connection, Error> {
    // In a box: what waits for a connection stays small.
    let dialled = Box::pin(dial(url, role)).await;
    let connection = dialled.map_err(|failure| failure.into_error(url))?;
    has_enough_channels(url, &connection)?;
    Ok(connection)
}

/// An error where the broker allows fewer channels on a connection than a client or worker needs.
fn has_enough_channels(url: &AmqpUrl, connection: &Connection) -> Result<(), Error> {
    let allowed = connection.configuration().channel_max();
    if allowed >= MIN_CHANNELS {
        return Ok(());
    }
    Err(Error::Refused {
        server: url.to_string(),
        reason: format!(
            "its channel_max of {allowed} is too low, {MIN_CHANNELS} are needed on a connection"
        ),
    })
}

/// Waits for a call to the broker, but not for ever.
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

/// Closes a connection politely if it is still there.
pub(crate) async fn close(connection: &Connection) {
    // Whatever comes of it, the socket goes when the connection is dropped.
    let _ = timeout(CLOSE_DEADLINE, connection.close(200, "bye".into())).await;
}

/// Opens a channel.
///
/// After the broker has closed one (a passive declaration of a queue that is not there), lapin may
/// fail the next one with the old one's error: such an error means nothing for a fresh channel.
pub(crate) async fn open_channel(connection: &Connection) -> lapin::Result<Channel> {
    let mut attempts_left = 5;
    loop {
        match connection.create_channel().await {
            Err(error) if soft_error(&error).is_some() && attempts_left > 0 => attempts_left -= 1,
            opened => return opened,
        }
    }
}

/// What can befall a connection on which nobody reads.
pub(crate) enum Trouble {
    /// The broker has raised an alarm and reads no more from it, until further notice.
    Blocked,
    /// It is gone, and why.
    Lost(String),
}

/// Ends when the connection is in trouble. Cancel safe.
pub(crate) async fn trouble(
    connection: &Connection,
    events: &mut (impl Stream<Item = Event> + Unpin),
    counts: &BrokerCounts,
) -> Trouble {
    while let Some(event) = events.next().await {
        match event {
            // Only a channel's, such as that of a look at a queue that is not there.
            Event::Error(_) if connection.status().connected() => {}
            Event::Error(error) => return Trouble::Lost(describe(&error)),
            Event::ConnectionBlocked(reason) => {
                let reason = quote(reason.as_bytes());
                warn!(reason, "RabbitMQ has raised an alarm and takes no messages");
                counts.blocks(true);
                return Trouble::Blocked;
            }
            Event::ConnectionUnblocked => {
                info!("RabbitMQ takes messages again");
                counts.blocks(false);
            }
            _ => {}
        }
    }
    Trouble::Lost("the connection was closed".to_owned())
}

/// How long to wait before the next attempt to connect: up to 1 s, spread so that a fleet does not
/// come back as one.
pub(crate) fn redial_pause(attempt: u32) -> Duration {
    let ceiling = 50_u64.saturating_mul(1 << attempt.min(10)).min(1000);
    Duration::from_millis(fastrand::u64(ceiling / 2..=ceiling))
}

/// Whether anybody serves `queue`. Looks on a channel of its own: the answer "there is no such
/// queue" closes the channel.
pub(crate) async fn audience(connection: &Connection, queue: &ShortString) -> Audience {
    match timeout(DEADLINE, declare_passively(connection, queue)).await {
        Ok(Ok(queue)) if queue.consumer_count() > 0 => Audience::Serving,
        Ok(Ok(queue)) if queue.message_count() > 0 => Audience::Nobody,
        Ok(Err(error)) if soft_error(&error) == Some(AMQPSoftError::NOTFOUND) => Audience::Nobody,
        // Nothing waits, so it may be that a worker that is about to stop still has what it took.
        Ok(Ok(_) | Err(_)) | Err(_) => Audience::Unknown,
    }
}

/// Makes sure that the request queue exists. One that exists is used as it is; where it is not what
/// `declare` says, what the broker says of the difference is returned.
pub(crate) async fn ensure_queue(
    url: &AmqpUrl,
    connection: &Connection,
    queue: &ShortString,
    declare: Declare,
) -> Result<Option<String>, Error> {
    let exists = match bounded_lapin(declare_passively(connection, queue)).await {
        Ok(_) => true,
        Err(error) if soft_error(&error) == Some(AMQPSoftError::NOTFOUND) => false,
        // Newer brokers want rights for a look, too; consuming will tell.
        Err(error) if soft_error(&error) == Some(AMQPSoftError::ACCESSREFUSED) => true,
        Err(error) => return Err(translate(url, &error)),
    };
    if declare == Declare::Never {
        return if exists {
            Ok(None)
        } else {
            let reason = format!("there is no queue {queue}, and this worker creates none");
            Err(unreachable(url, &reason))
        };
    }
    match bounded_lapin(declare_as(connection, queue, declare)).await {
        Ok(_) => Ok(None),
        Err(error) if !exists => Err(translate(url, &error)),
        Err(error) => match soft_error(&error) {
            // Another declaration than ours is somebody's decision.
            Some(AMQPSoftError::PRECONDITIONFAILED) => Ok(Some(describe(&error))),
            // Nor does a worker need the right to create what is there.
            Some(AMQPSoftError::ACCESSREFUSED) => Ok(None),
            _ => Err(translate(url, &error)),
        },
    }
}

/// The same with lapin's own error, for who has to look at it.
pub(crate) async fn bounded_lapin<T>(
    call: impl Future<Output = lapin::Result<T>>,
) -> lapin::Result<T> {
    timeout(DEADLINE, call)
        .await
        .unwrap_or_else(|_| Err(io::Error::from(io::ErrorKind::TimedOut).into()))
}

/// Looks whether a queue exists, on a channel that is thrown away.
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
