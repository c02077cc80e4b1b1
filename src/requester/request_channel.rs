//! The channel on which a session publishes requests, and what becomes of a request there.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use lapin::options::BasicPublishOptions;
use lapin::types::ShortString;
use lapin::{BasicProperties, Channel, Confirmation, Connection};
use tokio::time::sleep;
use uuid::Uuid;

use super::session::Publication;
use crate::FOR_EVER;
use crate::broker::{self, Message, Published, Publisher, Refusal};
use crate::error::Error;
use crate::server_url::AmqpUrl;

/// While a quorum queue elects its leader: how often it is looked for, and the pause between.
const MAX_LEADER_CHECKS: u32 = 100;
const LEADER_CHECK_PAUSE: Duration = Duration::from_millis(100);

/// Where a session publishes requests.
pub(super) enum RequestChannel {
    /// Of a long-lived client: on a connection of its own, because an alarm blocks it, and on a channel that is
    /// reopened when the broker closes it.
    Separate(Publisher),
    /// With direct reply-to: on the channel of the reply.
    WithReplies {
        channel: Channel,
        /// Whether it has acked a request, or the queue's leader answered before it was opened.
        is_proven: AtomicBool,
    },
}

impl RequestChannel {
    /// The connection on which requests are published; `replies` is the connection of replies.
    pub(super) fn connection<'a>(&'a self, replies: &'a Connection) -> &'a Connection {
        match self {
            Self::Separate(publisher) => publisher.connection(),
            Self::WithReplies { .. } => replies,
        }
    }

    /// Publishes a request and waits for its confirm. An error means that the session is lost.
    pub(super) async fn publish(
        &self,
        queue: &ShortString,
        publication: Publication,
    ) -> (Uuid, lapin::Result<Published>) {
        let Publication {
            id,
            body,
            properties,
            span: _span,
        } = publication;
        let published = match self {
            Self::Separate(publisher) => {
                let message = Message {
                    to: queue,
                    mandatory: true,
                    body: &body,
                    properties: &properties,
                };
                publisher.publish(message, FOR_EVER).await
            }
            Self::WithReplies { channel, is_proven } => {
                let published = publish_once(channel, queue, &body, properties).await;
                match published {
                    Ok(Published::Confirmed(Confirmation::Nack(_)))
                        if !is_proven.load(Ordering::Relaxed) =>
                    {
                        Ok(Published::NackedAtFirst)
                    }
                    Ok(Published::Confirmed(Confirmation::Ack(None))) => {
                        is_proven.store(true, Ordering::Relaxed);
                        published
                    }
                    published => published,
                }
            }
        };
        (id, published)
    }

    /// Waits until the queue's leader answers, for a bounded time, and replaces the channel.
    pub(super) async fn renew(&self, replies: &Connection, queue: &ShortString) -> Renewed {
        let connection = self.connection(replies);
        let mut leader_answers = false;
        for _ in 0..MAX_LEADER_CHECKS {
            leader_answers = broker::leader_answers(connection, queue).await;
            if leader_answers {
                break;
            }
            sleep(LEADER_CHECK_PAUSE).await;
        }
        match self {
            Self::Separate(publisher) => match publisher.renew(leader_answers).await {
                Ok(()) => Renewed::Channel,
                Err(error) => Renewed::Lost(error),
            },
            Self::WithReplies { .. } => Renewed::WholeSession { leader_answers },
        }
    }
}

/// What [`RequestChannel::renew`] comes to.
pub(super) enum Renewed {
    /// There is a fresh channel.
    Channel,
    /// The channel is also that of the replies: a new session is needed.
    WholeSession {
        leader_answers: bool,
    },
    Lost(lapin::Error),
}

async fn publish_once(
    channel: &Channel,
    queue: &ShortString,
    body: &[u8],
    properties: BasicProperties,
) -> lapin::Result<Published> {
    let mandatory = BasicPublishOptions {
        mandatory: true,
        ..BasicPublishOptions::default()
    };
    let confirmed = async {
        channel
            .basic_publish(
                ShortString::default(),
                queue.clone(),
                mandatory,
                body,
                properties,
            )
            .await?
            .await
    };
    match confirmed.await {
        Ok(confirmed) => Ok(Published::Confirmed(confirmed)),
        Err(error) => match Refusal::by_size(body.len(), &error) {
            Some(refusal) => Ok(Published::Refused(refusal)),
            None => Err(error),
        },
    }
}

/// The error of a call whose request the broker refused.
pub(super) fn refusal_error(url: &AmqpUrl, refusal: &Refusal) -> Error {
    if let Refusal::Other(error) = refusal {
        let error = broker::translate(url, error);
        if error.is_lasting() {
            return error;
        }
    }
    let failure = refusal.failure("request");
    Error::Failed {
        code: failure.code,
        message: failure.message,
    }
}
