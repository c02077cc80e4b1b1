//! Publishes the requests of one session, and translates refusals by the broker.

use lapin::options::BasicPublishOptions;
use lapin::types::ShortString;
use lapin::{BasicProperties, Channel, Connection};
use tracing::Span;
use uuid::Uuid;

use crate::broker::{self, Message, Published, Publisher, Refusal};
use crate::error::Error;
use crate::server_url::AmqpUrl;

/// A request to be published.
#[derive(Debug)]
pub(super) struct Publication {
    pub(super) id: Uuid,
    pub(super) body: Vec<u8>,
    pub(super) properties: BasicProperties,
    /// Closed at the broker's confirm.
    pub(super) span: Span,
}

/// Where a session publishes requests.
pub(super) enum RequestChannel {
    /// Of a long-lived client: on a connection of its own, because an alarm blocks it, and on a channel that is
    /// reopened when the broker closes it.
    Separate(Publisher),
    /// Of a one-shot call: on the channel of its reply.
    WithReplies(Channel),
}

impl RequestChannel {
    /// The connection on which requests are published; `replies` is the connection of replies.
    pub(super) fn connection<'a>(&'a self, replies: &'a Connection) -> &'a Connection {
        match self {
            Self::Separate(publisher) => publisher.connection(),
            Self::WithReplies(_) => replies,
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
                publisher.publish(message).await
            }
            Self::WithReplies(channel) => publish_once(channel, queue, &body, properties).await,
        };
        (id, published)
    }
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
