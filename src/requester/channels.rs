//! Opens a session's channels: for requests, and for replies by a callback queue or direct reply-to.

use std::sync::Arc;

use lapin::options::{BasicConsumeOptions, ConfirmSelectOptions, QueueDeclareOptions};
use lapin::types::{FieldTable, ShortString};
use lapin::{Channel, Connection, Consumer};

use super::requests::RequestChannel;
use crate::broker::{self, Publisher};

/// Where to publish, the consumer of replies, and its name for `reply_to`.
pub(super) type Channels = (RequestChannel, Consumer, ShortString);

/// For a one-shot call: direct reply-to, which needs one channel for both and no queue.
pub(super) async fn open_direct(connection: &Connection) -> lapin::Result<Channels> {
    let direct = ShortString::from("amq.rabbitmq.reply-to");
    let channel = broker::open_channel(connection).await?;
    let (replies, ()) = tokio::try_join!(
        consume(&channel, direct.clone()),
        channel.confirm_select(ConfirmSelectOptions::default()),
    )?;
    Ok((RequestChannel::WithReplies(channel), replies, direct))
}

/// For a long-lived client: an exclusive queue with a name from the broker.
pub(super) async fn open_queue(
    replies: &Connection,
    requests: Connection,
) -> lapin::Result<Channels> {
    let callback = async {
        let channel = broker::open_channel(replies).await?;
        let exclusive = QueueDeclareOptions {
            exclusive: true,
            ..QueueDeclareOptions::default()
        };
        let queue = channel
            .queue_declare(ShortString::default(), exclusive, FieldTable::default())
            .await?;
        let name = queue.name().clone();
        Ok((consume(&channel, name.clone()).await?, name))
    };
    let requests = Publisher::open(Arc::new(requests));
    let ((replies, name), requests) = tokio::try_join!(callback, requests)?;
    Ok((RequestChannel::Separate(requests), replies, name))
}

/// Consumes without acks: if a reply is lost with the connection, the request is published again.
async fn consume(channel: &Channel, queue: ShortString) -> lapin::Result<Consumer> {
    let no_ack = BasicConsumeOptions {
        no_ack: true,
        ..BasicConsumeOptions::default()
    };
    channel
        .basic_consume(queue, ShortString::default(), no_ack, FieldTable::default())
        .await
}
