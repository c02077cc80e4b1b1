//! Publishing the requests of one session, and whose fault it is when the broker refuses one.

use lapin::options::BasicPublishOptions;
use lapin::types::ShortString;
use lapin::{BasicProperties, Channel, Connection};
use tracing::Span;
use uuid::Uuid;

use crate::broker::{self, Message, Published, Publisher, Refusal};
use crate::error::Error;
use crate::server_url::AmqpUrl;

/// A request on its way to the queue.
#[derive(Debug)]
pub(super) struct Publication {
    pub(super) id: Uuid,
    pub(super) body: Vec<u8>,
    pub(super) properties: BasicProperties,
    /// Ends with the broker's confirm.
    pub(super) span: Span,
}

/// Where requests are published.
pub(super) enum Requests {
    /// Of a long-lived client: on a connection of their own, since an alarm stops it, and on a channel that
    /// is opened again when the broker closes it.
    Apart(Publisher),
    /// Of a one-shot call: on the channel that its reply comes by, and that ends with it.
    WithReplies(Channel),
}

impl Requests {
    /// The connection for requests; `replies` is the other one.
    pub(super) fn connection<'a>(&'a self, replies: &'a Connection) -> &'a Connection {
        match self {
            Self::Apart(publisher) => publisher.connection(),
            Self::WithReplies(_) => replies,
        }
    }

    /// Publishes a request and waits for its confirm. An error: the session is lost.
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
            Self::Apart(publisher) => {
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

/// What a call ends in whose request the broker refuses.
pub(super) fn refused(url: &AmqpUrl, refusal: &Refusal) -> Error {
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
