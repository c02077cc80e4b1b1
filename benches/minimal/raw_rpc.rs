//! The minimal program for one answer from a worker: connect, publish, await the reply by
//! direct reply-to, print. A limit for `scripts/bench miss-command`.

use std::error::Error;

use futures_util::StreamExt as _;
use lapin::options::{BasicConsumeOptions, BasicPublishOptions};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Connection, ConnectionProperties};

const REPLY_TO: &str = "amq.rabbitmq.reply-to";

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1).filter(|arg| arg != "--bench");
    let (Some(url), Some(argument)) = (args.next(), args.next()) else {
        return Ok(()); // cargo's own look
    };
    let connection = Connection::connect(&url, ConnectionProperties::default()).await?;
    let channel = connection.create_channel().await?;
    let no_ack = BasicConsumeOptions {
        no_ack: true,
        ..BasicConsumeOptions::default()
    };
    let mut replies = channel
        .basic_consume(REPLY_TO.into(), "".into(), no_ack, FieldTable::default())
        .await?;
    let properties = BasicProperties::default()
        .with_reply_to(REPLY_TO.into())
        .with_correlation_id("1".into());
    channel
        .basic_publish(
            "".into(),
            "rpc_queue".into(),
            BasicPublishOptions::default(),
            argument.as_bytes(),
            properties,
        )
        .await?;
    let reply = replies.next().await.ok_or("the consumer has ended")??;
    println!("{}", String::from_utf8(reply.data)?);
    std::process::exit(0)
}
