//! The limit of a miss: RPC by lapin alone, without losing messages. It has publisher confirms on both sides, an
//! ack after the reply's confirm, and a task for each request; the reply is an echo or a prepared answer.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use futures_util::StreamExt as _;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions,
    ConfirmSelectOptions, QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable, LongString, ShortString};
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties, Consumer};
use tokio::sync::oneshot;

pub(crate) const QUEUE: &str = "raw_queue";

type Pending = Arc<Mutex<HashMap<String, oneshot::Sender<Vec<u8>>>>>;

pub(crate) struct Caller {
    channel: Channel,
    reply_to: ShortString,
    pending: Pending,
    _connection: Connection,
}

impl Caller {
    pub(crate) async fn connect(url: &str) -> Self {
        let connection = connect(url).await;
        let replies = connection.create_channel().await.expect("a channel");
        let options = QueueDeclareOptions::exclusive();
        let queue = replies
            .queue_declare("".into(), options, FieldTable::default())
            .await
            .expect("a callback queue");
        let reply_to = queue.name().clone();
        let mut consumer = consume(&replies, reply_to.as_str(), true).await;
        let pending = Pending::default();
        let waiting = Arc::clone(&pending);
        tokio::spawn(async move {
            while let Some(Ok(reply)) = consumer.next().await {
                let id = reply.properties.correlation_id().clone().expect("an id");
                let waiter = waiting.lock().unwrap().remove(id.as_str());
                // The caller may have ended.
                let _ = waiter.expect("a reply to us").send(reply.data);
            }
            drop(replies);
        });
        Self {
            channel: confirming(&connection).await,
            reply_to,
            pending,
            _connection: connection,
        }
    }

    /// Sends a request and returns the body of its reply.
    pub(crate) async fn call(&self, n: u64) -> Vec<u8> {
        let id = n.to_string();
        let (sender, receiver) = oneshot::channel();
        self.pending.lock().unwrap().insert(id.clone(), sender);
        let properties = BasicProperties::default()
            .with_reply_to(self.reply_to.clone())
            .with_correlation_id(id.as_str().into());
        publish(&self.channel, QUEUE, id.as_bytes(), properties).await;
        receiver.await.expect("the consumer lives")
    }
}

/// Serves until the process is killed; `answer` turns the body of a request into that of the reply.
pub(crate) async fn serve<A>(url: &str, prefetch: u16, answer: fn(Vec<u8>) -> A)
where
    A: AsRef<[u8]> + Send + Sync + 'static,
{
    let connection = connect(url).await;
    let requests = connection.create_channel().await.expect("a channel");
    let replies = confirming(&connection).await;
    declare(&requests).await;
    requests
        .basic_qos(prefetch, BasicQosOptions::default())
        .await
        .expect("a prefetch");
    let mut consumer = consume(&requests, QUEUE, false).await;
    while let Some(Ok(request)) = consumer.next().await {
        let (requests, replies) = (requests.clone(), replies.clone());
        tokio::spawn(async move {
            let reply_to = request.properties.reply_to().clone().expect("a callback");
            let id = request.properties.correlation_id().clone().expect("an id");
            let properties = BasicProperties::default().with_correlation_id(id);
            let tag = request.delivery_tag;
            let body = answer(request.data);
            publish(&replies, reply_to.as_str(), body.as_ref(), properties).await;
            requests
                .basic_ack(tag, BasicAckOptions::default())
                .await
                .expect("an ack");
        });
    }
}

/// Declares the queue as our workers do.
pub(crate) async fn declare(channel: &Channel) {
    let mut arguments = FieldTable::default();
    let quorum = AMQPValue::LongString(LongString::from("quorum"));
    arguments.insert("x-queue-type".into(), quorum);
    channel
        .queue_declare(QUEUE.into(), QueueDeclareOptions::durable(), arguments)
        .await
        .expect("a queue");
}

pub(crate) async fn connect(url: &str) -> Connection {
    Connection::connect(url, ConnectionProperties::default())
        .await
        .expect("a connection")
}

async fn confirming(connection: &Connection) -> Channel {
    let channel = connection.create_channel().await.expect("a channel");
    channel
        .confirm_select(ConfirmSelectOptions::default())
        .await
        .expect("confirm mode");
    channel
}

async fn consume(channel: &Channel, queue: &str, no_ack: bool) -> Consumer {
    let options = BasicConsumeOptions {
        no_ack,
        ..BasicConsumeOptions::default()
    };
    channel
        .basic_consume(queue.into(), "".into(), options, FieldTable::default())
        .await
        .expect("a consumer")
}

async fn publish(channel: &Channel, queue: &str, body: &[u8], properties: BasicProperties) {
    let confirm = channel
        .basic_publish(
            "".into(),
            queue.into(),
            BasicPublishOptions::default(),
            body,
            properties,
        )
        .await
        .expect("a publish");
    assert!(confirm.await.expect("a confirm").is_ack());
}
