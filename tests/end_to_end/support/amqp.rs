//! The caller and the worker of RabbitMQ's tutorial six over raw lapin, without code of the programs under test.

use super::wait::soon;
use futures_util::StreamExt;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicGetOptions, BasicPublishOptions,
    ConfirmSelectOptions, QueueDeclareOptions, QueueDeleteOptions,
};
use lapin::protocol::basic::AMQPProperties;
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Channel, Connection, ConnectionProperties, Consumer};
use std::collections::BTreeMap;

pub(crate) use lapin::message::Delivery;

/// The queue of the built-in procedure.
pub(crate) const QUEUE: &str = "rpc_queue";

/// How the tutorials declare the queue.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Declared {
    /// Since 2026.
    DurableQuorum,
    /// Before.
    ClassicTransient,
}

/// A connection with one channel in confirm mode.
pub(crate) struct Broker {
    connection: Connection,
    pub(crate) channel: Channel,
}

impl Broker {
    pub(crate) async fn connect(url: &str) -> Self {
        // lapin fills its buffers byte by byte, which takes long in a debug build: of the size that RabbitMQ offers, 10 ms
        // for each connection.
        let url = match url.split_once('?') {
            Some(_) => url.to_owned(),
            None => format!("{url}?frame_max=16384"),
        };
        soon("an AMQP connection", async {
            let connection = Connection::connect(&url, ConnectionProperties::default())
                .await
                .expect("the broker answers");
            let channel = connection.create_channel().await.expect("a channel");
            channel
                .confirm_select(ConfirmSelectOptions::default())
                .await
                .expect("confirm mode");
            Self {
                connection,
                channel,
            }
        })
        .await
    }

    /// Declares the queue as a program after the tutorial does. An error if it exists with other arguments.
    pub(crate) async fn declare(&self, queue: &str, declared: Declared) -> lapin::Result<()> {
        let (options, arguments) = match declared {
            Declared::DurableQuorum => (
                QueueDeclareOptions::durable(),
                headers(&[("x-queue-type", "quorum")]),
            ),
            Declared::ClassicTransient => (QueueDeclareOptions::default(), FieldTable::default()),
        };
        let channel = self.throw_away_channel().await;
        soon(
            "a declaration",
            channel.queue_declare(queue.into(), options, arguments),
        )
        .await?;
        soon("its end", channel.close(200, "".into())).await
    }

    /// The numbers of ready messages and of consumers; `None`: there is no such queue.
    pub(crate) async fn look_at(&self, queue: &str) -> Option<(u32, u32)> {
        let channel = self.throw_away_channel().await;
        let passive = QueueDeclareOptions::default().passive();
        let found = soon(
            "a look",
            channel.queue_declare(queue.into(), passive, FieldTable::default()),
        )
        .await
        .ok()?;
        soon("its end", channel.close(200, "".into()))
            .await
            .expect("the channel is open");
        Some((found.message_count(), found.consumer_count()))
    }

    /// A channel for an operation that closes it when refused. lapin reuses the number of a channel that the
    /// broker has closed, and the next one may still get the old one's error.
    async fn throw_away_channel(&self) -> Channel {
        loop {
            match soon("a channel", self.connection.create_channel()).await {
                Ok(channel) => return channel,
                Err(error) => assert!(self.connection.status().connected(), "{error}"),
            }
        }
    }

    /// Publishes to a queue; returns when the broker has confirmed.
    pub(crate) async fn publish(&self, queue: &str, body: &[u8], properties: AMQPProperties) {
        let confirm = soon(
            "a publish",
            self.channel.basic_publish(
                "".into(),
                queue.into(),
                BasicPublishOptions::default(),
                body,
                properties,
            ),
        )
        .await
        .expect("the channel is open");
        assert!(
            soon("a confirm", confirm)
                .await
                .expect("the channel is open")
                .is_ack()
        );
    }

    pub(crate) async fn delete(&self, queue: &str) {
        let deleted = self
            .channel
            .queue_delete(queue.into(), QueueDeleteOptions::default());
        soon("a deletion", deleted)
            .await
            .expect("there is such a queue");
    }

    /// Gets one message of the queue, if there is one.
    pub(crate) async fn get(&self, queue: &str) -> Option<Delivery> {
        let options = BasicGetOptions { no_ack: true };
        soon("a message", self.channel.basic_get(queue.into(), options))
            .await
            .expect("there is such a queue")
            .map(|message| message.delivery)
    }

    /// Fails if the queue has a message. Publishes a marker, which must be the first message.
    pub(crate) async fn assert_empty(&self, queue: &str) {
        self.publish(queue, b"marker", AMQPProperties::default())
            .await;
        let first = self.get(queue).await.expect("the marker is there");
        assert_eq!(
            String::from_utf8_lossy(&first.data),
            "marker",
            "{queue} was not empty"
        );
        assert_eq!(
            self.get(queue).await,
            None,
            "{queue} holds more than the marker"
        );
    }

    pub(crate) async fn close(&self) {
        let closed = self.connection.close(200, "".into());
        soon("its end", closed).await.expect("it was open");
    }

    async fn consume(&self, queue: &str, no_ack: bool) -> Consumer {
        let options = BasicConsumeOptions {
            no_ack,
            ..BasicConsumeOptions::default()
        };
        soon(
            "a consumer",
            self.channel
                .basic_consume(queue.into(), "".into(), options, FieldTable::default()),
        )
        .await
        .expect("there is such a queue")
    }
}

/// A caller after the tutorial.
pub(crate) struct Caller {
    pub(crate) broker: Broker,
    replies: Consumer,
    reply_to: String,
}

impl Caller {
    /// One that uses RabbitMQ's direct reply-to.
    pub(crate) async fn direct(url: &str) -> Self {
        Self::listening(Broker::connect(url).await, "amq.rabbitmq.reply-to".into()).await
    }

    /// One with an exclusive, server-named callback queue, as in the tutorial.
    pub(crate) async fn with_callback_queue(url: &str) -> Self {
        let broker = Broker::connect(url).await;
        let options = QueueDeclareOptions::exclusive();
        let queue = soon(
            "a callback queue",
            broker
                .channel
                .queue_declare("".into(), options, FieldTable::default()),
        )
        .await
        .expect("this user may declare it");
        let reply_to = queue.name().to_string();
        Self::listening(broker, reply_to).await
    }

    /// One with an exclusive callback queue of this name.
    pub(crate) async fn with_named_queue(url: &str, name: &str) -> Self {
        let broker = Broker::connect(url).await;
        let options = QueueDeclareOptions::exclusive();
        let declared = broker
            .channel
            .queue_declare(name.into(), options, FieldTable::default());
        soon("a callback queue", declared)
            .await
            .expect("the name is not in use");
        Self::listening(broker, name.to_owned()).await
    }

    async fn listening(broker: Broker, reply_to: String) -> Self {
        let replies = broker.consume(&reply_to, true).await;
        Self {
            broker,
            replies,
            reply_to,
        }
    }

    /// The properties of a request: where to reply, and a fresh correlation id.
    pub(crate) fn properties(&self) -> AMQPProperties {
        AMQPProperties::default()
            .with_reply_to(self.reply_to.as_str().into())
            .with_correlation_id(uuid::Uuid::new_v4().to_string().into())
    }

    pub(crate) async fn send(&self, body: &[u8], properties: AMQPProperties) {
        self.broker.publish(QUEUE, body, properties).await;
    }

    /// The next reply, to any request.
    pub(crate) async fn next_reply(&mut self) -> Reply {
        let delivery = soon("a reply", self.replies.next()).await;
        Reply::from(
            delivery
                .expect("the consumer lives")
                .expect("the channel is open"),
        )
    }

    /// Sends a request and returns the next reply, which must be its own.
    pub(crate) async fn ask_with(&mut self, body: &[u8], properties: AMQPProperties) -> Reply {
        let asked = properties.correlation_id().clone();
        self.send(body, properties).await;
        let reply = self.next_reply().await;
        assert_eq!(
            *reply.properties.correlation_id(),
            asked,
            "the reply to another request"
        );
        reply
    }

    pub(crate) async fn ask(&mut self, body: &str) -> Reply {
        let properties = self.properties();
        self.ask_with(body.as_bytes(), properties).await
    }

    /// Fails unless a worker answers a request now.
    pub(crate) async fn is_served(&mut self) {
        self.ask("30").await.answers("832040");
    }
}

/// A reply.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) body: String,
    pub(crate) properties: AMQPProperties,
    pub(crate) headers: BTreeMap<String, String>,
}

impl From<Delivery> for Reply {
    fn from(delivery: Delivery) -> Self {
        Self {
            body: String::from_utf8(delivery.data).expect("replies are text"),
            headers: long_strings(&delivery.properties),
            properties: delivery.properties,
        }
    }
}

impl Reply {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    /// Fails unless the reply is this answer.
    #[track_caller]
    pub(crate) fn answers(&self, answer: &str) {
        assert_eq!(self.header("x-rpcache-error"), None, "{self:?}");
        assert_eq!(self.body, answer, "{self:?}");
    }

    /// Fails unless the reply is an error with this code, whose text cannot be taken for an answer.
    #[track_caller]
    pub(crate) fn fails_as(&self, code: &str) {
        assert_eq!(self.header("x-rpcache-error"), Some(code), "{self:?}");
        assert!(self.body.starts_with("error:"), "{self:?}");
        assert!(
            self.body.len() < 1000 && !self.body.contains(char::is_control),
            "{self:?}"
        );
    }
}

/// A worker after the tutorial, which the test drives step by step.
pub(crate) struct Worker {
    broker: Broker,
    requests: Consumer,
    /// Requests that were taken while waiting for another one.
    taken: Vec<Delivery>,
}

impl Worker {
    pub(crate) async fn serving(url: &str, declared: Declared) -> Self {
        let broker = Broker::connect(url).await;
        broker
            .declare(QUEUE, declared)
            .await
            .expect("the queue is new or as declared");
        Self::consuming(broker).await
    }

    /// A worker that does not declare the queue.
    pub(crate) async fn consuming(broker: Broker) -> Self {
        let requests = broker.consume(QUEUE, false).await;
        Self {
            broker,
            requests,
            taken: Vec::new(),
        }
    }

    /// The next request, for the test to settle.
    pub(crate) async fn take_unsettled(&mut self) -> Delivery {
        soon("a request", self.requests.next())
            .await
            .expect("the consumer lives")
            .expect("a delivery")
    }

    pub(crate) async fn close(self) {
        self.broker.close().await;
    }

    /// The next request, acked.
    pub(crate) async fn take(&mut self) -> Delivery {
        let request = self.take_unsettled().await;
        request
            .ack(BasicAckOptions::default())
            .await
            .expect("the channel is open");
        request
    }

    /// The request for this argument; several may come in any order.
    pub(crate) async fn take_argument(&mut self, argument: &str) -> Delivery {
        loop {
            if let Some(index) = self
                .taken
                .iter()
                .position(|request| request.data == argument.as_bytes())
            {
                return self.taken.swap_remove(index);
            }
            let request = self.take().await;
            self.taken.push(request);
        }
    }

    /// Replies as the tutorial's worker does, with the correlation id and the body only.
    pub(crate) async fn reply(&self, request: &Delivery, body: impl AsRef<[u8]>) {
        self.reply_with(request, body, AMQPProperties::default())
            .await;
    }

    /// Replies with further properties.
    pub(crate) async fn reply_with(
        &self,
        request: &Delivery,
        body: impl AsRef<[u8]>,
        properties: AMQPProperties,
    ) {
        let id = request
            .properties
            .correlation_id()
            .clone()
            .expect("requests have one");
        self.reply_as(request, body, properties.with_correlation_id(id))
            .await;
    }

    /// Replies with exactly these properties, so under any correlation id or none.
    pub(crate) async fn reply_as(
        &self,
        request: &Delivery,
        body: impl AsRef<[u8]>,
        properties: AMQPProperties,
    ) {
        let reply_to = request
            .properties
            .reply_to()
            .clone()
            .expect("requests have one");
        self.broker
            .publish(reply_to.as_str(), body.as_ref(), properties)
            .await;
    }
}

/// Headers, each a long string, as every AMQP library writes them.
pub(crate) fn headers(pairs: &[(&str, &str)]) -> FieldTable {
    let mut table = FieldTable::default();
    for (name, value) in pairs {
        table.insert((*name).into(), AMQPValue::LongString((*value).into()));
    }
    table
}

/// The headers that are long strings; any other type is a failure.
pub(crate) fn long_strings(properties: &AMQPProperties) -> BTreeMap<String, String> {
    let pairs = properties.headers().iter().flat_map(FieldTable::inner);
    pairs
        .map(|(name, value)| {
            let text = value
                .as_long_string()
                .unwrap_or_else(|| panic!("{name} is {value:?}"));
            (name.to_string(), text.to_string())
        })
        .collect()
}
