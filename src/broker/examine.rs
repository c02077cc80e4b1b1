//! What the broker lets a login see and do, found out by attempts that change nothing.
//!
//! For [`crate::doctor`] and [`super::QueueWatch`]. Each attempt has a channel of its own: the broker closes it over a refusal.

use std::fmt;

use lapin::options::{BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions};
use lapin::protocol::AMQPSoftError;
use lapin::types::{AMQPValue, FieldTable, LongString, ShortString};
use lapin::{BasicProperties, Connection, Queue};
use uuid::Uuid;

use super::dial::{Failure, dial};
use super::{bounded_lapin, close, declare_passively, describe, hard_error, has_enough_channels};
use super::{open_channel, soft_error, translate};
use crate::error::{Error, quote};
use crate::server_url::AmqpUrl;
use lapin::protocol::AMQPHardError;

/// How a queue is declared, as far as the broker tells.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Declared {
    /// A durable quorum queue.
    Quorum,
    /// A classic queue that is durable.
    Classic,
    /// A queue that is not durable, so a classic one.
    Transient,
    /// Otherwise: the broker's words on the difference to a quorum queue.
    Otherwise(String),
    /// Who may not declare it is not told.
    Unknown,
}

/// A connection for looking around.
#[derive(Debug)]
pub(crate) struct Visit {
    url: AmqpUrl,
    connection: Connection,
}

/// What a look at a queue shows.
pub(crate) enum Look {
    Found {
        consumers: u32,
        waiting: u32,
    },
    Missing,
    /// It is exclusive to another program's connection.
    Exclusive,
    /// What the broker says instead.
    NotTold(String),
}

impl Visit {
    /// Logs in, to whichever node lets us: the outer error is the login's, the inner one the vhost's.
    /// `role` names the connection in the broker's lists.
    pub(crate) async fn enter(url: &AmqpUrl, role: &str) -> Result<Result<Self, Error>, Error> {
        match Box::pin(dial(url, role)).await {
            Ok(connection) => {
                has_enough_channels(url, &connection)?;
                let url = url.clone();
                Ok(Ok(Self { url, connection }))
            }
            // By then the password was accepted.
            Err(Failure::Amqp(error)) if hard_error(&error) == Some(AMQPHardError::NOTALLOWED) => {
                Ok(Err(translate(url, &error)))
            }
            Err(failure) => Err(failure.into_error(url)),
        }
    }

    pub(crate) fn user(&self) -> String {
        quote(self.connection.status().username().as_bytes())
    }

    pub(crate) fn vhost(&self) -> String {
        quote(self.connection.status().vhost().as_str().as_bytes())
    }

    /// Whether requests can be published: by one to a queue that nobody has. The broker returns it.
    /// What it says if not.
    pub(crate) async fn may_publish(&self) -> Result<Result<(), String>, Error> {
        let nobody = ShortString::from(format!("rpcache.doctor.{}", Uuid::new_v4().simple()));
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
                .basic_publish(ShortString::default(), nobody, mandatory, b"", properties)
                .await?
                .await
        });
        match published.await {
            Ok(_) => Ok(Ok(())),
            Err(error) if soft_error(&error) == Some(AMQPSoftError::ACCESSREFUSED) => {
                Ok(Err(describe(&error)))
            }
            Err(_) if self.connection.status().blocked() => Err(Error::Overloaded {
                reason: "RabbitMQ has raised an alarm and takes no requests".to_owned(),
            }),
            Err(error) => Err(translate(&self.url, &error)),
        }
    }

    pub(crate) async fn look(&self, queue: &ShortString) -> Result<Look, Error> {
        let found = bounded_lapin(declare_passively(&self.connection, queue)).await;
        seen(found).map_err(|error| translate(&self.url, &error))
    }

    /// How a queue is declared, by declaring it as something that nothing can be.
    ///
    /// For a queue that exists, the broker compares what a queue of its type can have, and says what
    /// differs: durability before type. `x-max-age` is a stream's, so it is not compared; if the
    /// queue does not exist, or not any more, it is what the broker refuses: a quorum queue has none,
    /// and `none` is no age. So nothing is ever created.
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

    /// Whether the broker still holds the other end.
    pub(crate) fn is_there(&self) -> bool {
        self.connection.status().connected()
    }

    pub(crate) async fn leave(&self) {
        close(&self.connection).await;
    }
}

fn seen(found: lapin::Result<Queue>) -> lapin::Result<Look> {
    match found {
        Ok(queue) => Ok(Look::Found {
            consumers: queue.consumer_count(),
            waiting: queue.message_count(),
        }),
        Err(error) => match soft_error(&error) {
            Some(AMQPSoftError::NOTFOUND) => Ok(Look::Missing),
            Some(AMQPSoftError::RESOURCELOCKED) => Ok(Look::Exclusive),
            // Newer brokers want rights for a look, too.
            Some(AMQPSoftError::ACCESSREFUSED) => Ok(Look::NotTold(describe(&error))),
            _ => Err(error),
        },
    }
}

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

/// From what the broker says, such as "inequivalent arg 'durable' for queue ...: received 'true' but
/// current is 'false'".
fn from_difference(said: &str) -> Declared {
    let Some((_, difference)) = said.split_once("inequivalent arg ") else {
        // It has not come to comparing: the arguments were looked at first.
        return Declared::Unknown;
    };
    let current = difference.rsplit("current is ").next().unwrap_or_default();
    if difference.starts_with("'durable'") {
        Declared::Transient
    } else if difference.starts_with("'x-queue-type'")
        && (current.contains("'classic'") || current.starts_with("none"))
    {
        Declared::Classic
    } else {
        Declared::Otherwise(said.to_owned())
    }
}

impl fmt::Display for Declared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Quorum => "quorum, durable",
            Self::Classic => "classic, durable",
            Self::Transient => "classic, not durable: it ends with the broker, requests included",
            Self::Otherwise(said) => return write!(f, "no quorum queue: {said}"),
            Self::Unknown => "it is there; how it is declared, this login is not told",
        })
    }
}

#[cfg(test)]
mod tests {
    use lapin::protocol::{AMQPError, AMQPErrorKind};

    use super::*;

    fn refusal(kind: AMQPSoftError, said: &str) -> lapin::Error {
        let error = AMQPError::new(AMQPErrorKind::Soft(kind), said.into());
        lapin::ErrorKind::ProtocolError(error).into()
    }

    #[test]
    fn who_may_not_look_knows_nothing() {
        let look = seen(Err(refusal(
            AMQPSoftError::ACCESSREFUSED,
            "ACCESS_REFUSED - no",
        )));
        assert!(matches!(look, Ok(Look::NotTold(said)) if said == "ACCESS_REFUSED - no"));
        let locked = seen(Err(refusal(AMQPSoftError::RESOURCELOCKED, "no")));
        assert!(matches!(locked, Ok(Look::Exclusive)));
        for kind in [AMQPSoftError::ACCESSREFUSED, AMQPSoftError::RESOURCELOCKED] {
            assert_eq!(
                declared(Err(refusal(kind, "no"))).ok(),
                Some(Declared::Unknown)
            );
        }
        let missing = seen(Err(refusal(
            AMQPSoftError::NOTFOUND,
            "NOT_FOUND - no queue",
        )));
        assert!(matches!(missing, Ok(Look::Missing)));
    }

    #[test]
    fn declarations_are_read_from_the_difference() {
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
        let invalid = "PRECONDITION_FAILED - invalid arg 'x-max-age' for queue 'q'";
        assert_eq!(from_difference(invalid), Declared::Unknown);
    }
}
