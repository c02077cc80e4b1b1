//! Inspects queues and rights of a login, by attempts that change nothing.
//!
//! For [`crate::doctor`] and [`super::QueueWatch`]. Each attempt uses a channel of its own, which the broker
//! closes if it refuses.

use std::fmt;

use lapin::options::{BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions};
use lapin::protocol::AMQPSoftError;
use lapin::types::{AMQPValue, FieldTable, LongString, ShortString};
use lapin::{BasicProperties, Connection, Queue};
use uuid::Uuid;

use super::dial::{DialError, dial};
use super::{bounded_lapin, check_channel_max, close, declare_passively, describe, hard_error};
use super::{open_channel, soft_error, translate};
use crate::error::{Error, quote};
use crate::server_url::AmqpUrl;
use lapin::protocol::AMQPHardError;

/// How a queue is declared, as far as the broker reveals it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Declared {
    /// A durable quorum queue.
    Quorum,
    /// A durable classic queue.
    Classic,
    /// A queue that is not durable, and therefore classic.
    Transient,
    /// A durable quorum queue with other arguments than a worker declares, with the broker's message on the
    /// first of them.
    QuorumWithArguments(String),
    /// Of another type, or with other arguments than a worker declares, with the broker's message on the first
    /// difference.
    Otherwise(String),
    /// Not known: this login may not declare it.
    Unknown,
}

/// A connection that inspects queues and rights.
#[derive(Debug)]
pub(crate) struct Inspector {
    url: AmqpUrl,
    connection: Connection,
}

/// The result of inspecting a queue.
pub(crate) enum QueueStatus {
    Exists {
        consumers: u32,
        waiting: u32,
    },
    Missing,
    /// It is exclusive to another program's connection.
    Exclusive,
    /// This login may not inspect it, with the broker's message.
    NotPermitted(String),
}

impl Inspector {
    /// Logs in to the first node that accepts. The outer error is the login's, the inner one the vhost's. `role`
    /// is part of the connection's name in the broker's lists.
    pub(crate) async fn connect(url: &AmqpUrl, role: &str) -> Result<Result<Self, Error>, Error> {
        match Box::pin(dial(url, role)).await {
            Ok((connection, _node)) => {
                check_channel_max(url, &connection)?;
                let url = url.clone();
                Ok(Ok(Self { url, connection }))
            }
            // The vhost is refused only after the password was accepted.
            Err(DialError::Amqp(error))
                if hard_error(&error) == Some(AMQPHardError::NOTALLOWED) =>
            {
                Ok(Err(translate(url, &error)))
            }
            Err(error) => Err(error.into_error(url)),
        }
    }

    pub(crate) fn user(&self) -> String {
        quote(self.connection.status().username().as_bytes())
    }

    pub(crate) fn vhost(&self) -> String {
        quote(self.connection.status().vhost().as_str().as_bytes())
    }

    /// Tests whether this login may publish requests, by a message to a queue that does not exist, which the
    /// broker returns. The inner error is the broker's message.
    pub(crate) async fn may_publish(&self) -> Result<Result<(), String>, Error> {
        let missing = ShortString::from(format!("rpcache.doctor.{}", Uuid::new_v4().simple()));
        let mandatory = BasicPublishOptions {
            mandatory: true,
            ..BasicPublishOptions::default()
        };
        let published = bounded_lapin(async {
            let channel = open_channel(&self.connection).await?;
            channel
                .confirm_select(ConfirmSelectOptions::default())
                .await?;
            let properties = BasicProperties::default();
            channel
                .basic_publish(ShortString::default(), missing, mandatory, b"", properties)
                .await?
                .await
        });
        match published.await {
            Ok(_) => Ok(Ok(())),
            Err(error) if soft_error(&error) == Some(AMQPSoftError::ACCESSREFUSED) => {
                Ok(Err(describe(&error)))
            }
            Err(_) if self.connection.status().blocked() => Err(Error::Overloaded {
                reason: "RabbitMQ has raised an alarm and accepts no requests".to_owned(),
            }),
            Err(error) => Err(translate(&self.url, &error)),
        }
    }

    /// Inspects a queue: whether it exists, its consumers and its waiting messages.
    pub(crate) async fn queue_status(&self, queue: &ShortString) -> Result<QueueStatus, Error> {
        let declared = bounded_lapin(declare_passively(&self.connection, queue)).await;
        status_of(declared).map_err(|error| translate(&self.url, &error))
    }

    /// Finds out how a queue is declared, by a declaration that can never create one.
    ///
    /// For an existing queue, the broker compares the properties that its type can have, durability before type,
    /// and names the first that differs. `x-max-age` belongs to streams, so it is not compared. If the queue does
    /// not exist (any more), the broker refuses `x-max-age`: a quorum queue has none, and `none` is not an age.
    pub(crate) async fn declared(&self, queue: &ShortString) -> Result<Declared, Error> {
        let durable = QueueDeclareOptions {
            durable: true,
            ..QueueDeclareOptions::default()
        };
        let mut arguments = FieldTable::default();
        let quorum = AMQPValue::LongString(LongString::from("quorum"));
        arguments.insert("x-queue-type".into(), quorum);
        let no_age = AMQPValue::LongString(LongString::from("none"));
        arguments.insert("x-max-age".into(), no_age);
        let answer = bounded_lapin(async {
            let channel = open_channel(&self.connection).await?;
            channel
                .queue_declare(queue.clone(), durable, arguments)
                .await
        });
        declared(answer.await).map_err(|error| translate(&self.url, &error))
    }

    /// Whether the connection is still open.
    pub(crate) fn is_connected(&self) -> bool {
        self.connection.status().connected()
    }

    /// Closes the connection, within a second.
    pub(crate) async fn close(&self) {
        close(&self.connection).await;
    }
}

fn status_of(declared: lapin::Result<Queue>) -> lapin::Result<QueueStatus> {
    match declared {
        Ok(queue) => Ok(QueueStatus::Exists {
            consumers: queue.consumer_count(),
            waiting: queue.message_count(),
        }),
        Err(error) => match soft_error(&error) {
            Some(AMQPSoftError::NOTFOUND) => Ok(QueueStatus::Missing),
            Some(AMQPSoftError::RESOURCELOCKED) => Ok(QueueStatus::Exclusive),
            // Newer brokers require a right for passive declarations, too.
            Some(AMQPSoftError::ACCESSREFUSED) => Ok(QueueStatus::NotPermitted(describe(&error))),
            _ => Err(error),
        },
    }
}

/// Arguments that only quorum queues have, quoted as in the broker's messages.
const QUORUM_ARGUMENTS: [&str; 4] = [
    "'x-delivery-limit'",
    "'x-quorum-initial-group-size'",
    "'x-quorum-target-group-size'",
    "'x-dead-letter-strategy'",
];

fn declared(answer: lapin::Result<Queue>) -> lapin::Result<Declared> {
    let Err(error) = answer else {
        return Ok(Declared::Quorum);
    };
    match soft_error(&error) {
        Some(AMQPSoftError::PRECONDITIONFAILED) => Ok(from_difference(&describe(&error))),
        Some(
            AMQPSoftError::ACCESSREFUSED | AMQPSoftError::RESOURCELOCKED | AMQPSoftError::NOTFOUND,
        ) => Ok(Declared::Unknown),
        _ => Err(error),
    }
}

/// Parses the broker's message, such as "inequivalent arg 'durable' for queue ...: received 'true' but current
/// is 'false'".
fn from_difference(message: &str) -> Declared {
    let Some((_, difference)) = message.split_once("inequivalent arg ") else {
        // Refused before any comparison: the queue does not exist.
        return Declared::Unknown;
    };
    let current = difference.rsplit("current is ").next().unwrap_or_default();
    if difference.starts_with("'durable'") {
        Declared::Transient
    } else if difference.starts_with("'x-queue-type'")
        && (current.contains("'classic'") || current.starts_with("none"))
    {
        Declared::Classic
    } else if QUORUM_ARGUMENTS
        .iter()
        .any(|argument| difference.starts_with(argument))
    {
        Declared::QuorumWithArguments(message.to_owned())
    } else {
        Declared::Otherwise(message.to_owned())
    }
}

impl fmt::Display for Declared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Quorum => "quorum, durable",
            Self::Classic => "classic, durable",
            Self::Transient => {
                "classic, not durable: it and its requests are lost when the broker restarts"
            }
            Self::QuorumWithArguments(message) => {
                return write!(
                    f,
                    "quorum, durable, with other arguments than a worker declares: {message}"
                );
            }
            Self::Otherwise(message) => {
                return write!(f, "declared otherwise than by a worker: {message}");
            }
            Self::Unknown => "it exists; this login may not see how it is declared",
        })
    }
}

#[cfg(test)]
mod tests {
    use lapin::protocol::{AMQPError, AMQPErrorKind};

    use super::*;

    fn refusal(kind: AMQPSoftError, message: &str) -> lapin::Error {
        let error = AMQPError::new(AMQPErrorKind::Soft(kind), message.into());
        lapin::ErrorKind::ProtocolError(error).into()
    }

    #[test]
    fn without_rights_the_status_is_not_permitted() {
        let status = status_of(Err(refusal(
            AMQPSoftError::ACCESSREFUSED,
            "ACCESS_REFUSED - no",
        )));
        assert!(
            matches!(status, Ok(QueueStatus::NotPermitted(message)) if message == "ACCESS_REFUSED - no")
        );
        let locked = status_of(Err(refusal(AMQPSoftError::RESOURCELOCKED, "no")));
        assert!(matches!(locked, Ok(QueueStatus::Exclusive)));
        for kind in [AMQPSoftError::ACCESSREFUSED, AMQPSoftError::RESOURCELOCKED] {
            assert_eq!(
                declared(Err(refusal(kind, "no"))).ok(),
                Some(Declared::Unknown)
            );
        }
        let missing = status_of(Err(refusal(
            AMQPSoftError::NOTFOUND,
            "NOT_FOUND - no queue",
        )));
        assert!(matches!(missing, Ok(QueueStatus::Missing)));
    }

    #[test]
    fn declarations_are_parsed_from_the_difference() {
        let difference = |arg: &str, current: &str| {
            from_difference(&format!(
                "PRECONDITION_FAILED - inequivalent arg '{arg}' for queue 'q' in vhost '/': \
                 received 'x' but current is {current}"
            ))
        };
        assert_eq!(difference("durable", "'false'"), Declared::Transient);
        assert_eq!(difference("x-queue-type", "none"), Declared::Classic);
        let classic = difference("x-queue-type", "the value 'classic' of type 'longstr'");
        assert_eq!(classic, Declared::Classic);
        let stream = difference("x-queue-type", "the value 'stream' of type 'longstr'");
        assert!(matches!(stream, Declared::Otherwise(_)));
        assert!(matches!(
            difference("auto_delete", "'true'"),
            Declared::Otherwise(_)
        ));
        let limited = difference("x-delivery-limit", "the value '5' of type 'signedint'");
        let text = limited.to_string();
        assert!(matches!(limited, Declared::QuorumWithArguments(_)));
        assert!(
            text.starts_with("quorum, durable, with other arguments"),
            "{text}"
        );
        let invalid = "PRECONDITION_FAILED - invalid arg 'x-max-age' for queue 'q'";
        assert_eq!(from_difference(invalid), Declared::Unknown);
    }
}
