//! Where a session's requests go and its replies come: a callback queue, or direct reply-to.

use std::sync::Arc;

use lapin::options::{BasicConsumeOptions, ConfirmSelectOptions, QueueDeclareOptions};
use lapin::types::{FieldTable, ShortString};
use lapin::{Channel, Connection, Consumer};

use super::requests::Requests;
use crate::broker::{self, Publisher};

/// Where to publish, a consumer of replies, and the name to reach it by.
pub(super) type Channels = (Requests, Consumer, ShortString);

/// For one call and the end: direct reply-to, which wants everything on one channel and no queue.
pub(super) async fn open_direct(connection: &Connection) -> lapin::Result<Channels> {
    let direct = ShortString::from("amq.rabbitmq.reply-to");
    let channel = broker::open_channel(connection).await?;
    let (replies, ()) = tokio::try_join!(
        consume(&channel, direct.clone()),
        channel.confirm_select(ConfirmSelectOptions::default()),
    )?;
    Ok((Requests::WithReplies(channel), replies, direct))
}

/// For a long-lived client: an exclusive queue that the broker names.
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
    Ok((Requests::Apart(requests), replies, name))
}

/// Without acks: a reply that is lost with the connection is asked for again.
async fn consume(channel: &Channel, queue: ShortString) -> lapin::Result<Consumer> {
    let no_ack = BasicConsumeOptions {
        no_ack: true,
        ..BasicConsumeOptions::default()
    };
    channel
        .basic_consume(queue, ShortString::default(), no_ack, FieldTable::default())
        .await
}
