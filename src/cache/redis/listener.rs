//! Messages about invalidated keys: PUBLISH, and a listener with a connection of its own that is
//! subscribed to them, and is replaced when it is lost.

use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{Stream, StreamExt as _};
use redis::aio::PubSubSink;
use redis::{Cmd, Msg, Value};
use tokio::time::{Instant, sleep_until, timeout};
use tracing::{debug, warn};

use super::RedisStore;
use super::cluster::Shared;
use super::connection::Sentinels;
use super::dial::{DialError, dial_pubsub};
use super::errors::describe;
use super::nodes::Nodes;
use super::resp::Limits;
use crate::cache::store::{Event, StoreError};
use crate::error::Error;
use crate::server_url::RedisUrl;
use crate::transport::Endpoint;

/// Time to connect and log in, and again to subscribe.
const CONNECT_DEADLINE: Duration = Duration::from_secs(1);

/// Pause between two attempts, plus up to a half of it at random.
const REDIAL_PAUSE: Duration = Duration::from_secs(1);

/// Pause after Redis has refused to subscribe: its administrator has to change rights first.
const REFUSED_PAUSE: Duration = Duration::from_secs(60);

/// How often a silent connection is checked by PING, and how long its answer may take: messages on a
/// connection that has died silently are missed.
const PING_EVERY: Duration = Duration::from_secs(5);
const PING_DEADLINE: Duration = Duration::from_secs(1);

impl RedisStore {
    pub(in crate::cache) async fn publish(
        &self,
        channel: &str,
        messages: &[Vec<u8>],
        limit: Duration,
    ) -> Result<(), StoreError> {
        let mut commands = redis::pipe();
        for message in messages {
            commands.add_command(Cmd::publish(channel, message));
        }
        let _receivers: Vec<u64> = self.nodes.run_anywhere(&commands, limit).await?;
        Ok(())
    }

    pub(in crate::cache) fn listen(
        &self,
        channel: String,
        on_event: impl Fn(Event<'_>) + Send + Sync + 'static,
    ) -> impl Future<Output = ()> + Send + 'static {
        let listener = Listener {
            server: match &self.nodes {
                Nodes::Cluster(cluster) => Server::OfCluster(Arc::clone(cluster.shared())),
                Nodes::One(_) => match Sentinels::of(&self.url, self.limits) {
                    Some(sentinels) => Server::Named(Box::new(sentinels)),
                    None => Server::Fixed,
                },
            },
            url: self.url.clone(),
            limits: self.limits,
            channel,
            on_event,
        };
        listener.listen()
    }
}

/// Which server a subscription is made at: its address may be another one each time.
enum Server {
    Fixed,
    /// The primary, which publishes.
    Named(Box<Sentinels>),
    /// Any node: what is published at one reaches all.
    OfCluster(Arc<Shared>),
}

/// A subscription of one client.
struct Listener<F> {
    server: Server,
    url: RedisUrl,
    limits: Limits,
    channel: String,
    on_event: F,
}

impl<F: Fn(Event<'_>) + Send + Sync + 'static> Listener<F> {
    /// Never ends by itself.
    async fn listen(self) {
        let mut warned = false;
        loop {
            let started = Instant::now();
            let mut pause = REDIAL_PAUSE;
            match self.subscribe().await {
                Ok((sink, stream, server)) => {
                    (self.on_event)(Event::Subscribed);
                    tokio::select! {
                        () = self.hear(sink, stream) => {}
                        // What is published at the new primary does not reach the old one.
                        () = self.switched_from(&server) => {}
                    }
                    debug!("does not hear of removals: the connection was lost");
                }
                Err(DialError::Redis(error)) if error.code() == Some("NOPERM") => {
                    if !warned {
                        let (channel, error) = (&self.channel, describe(&error));
                        warn!(
                            channel,
                            error, "Redis refuses to tell of removals: copies live out their time"
                        );
                    }
                    warned = true;
                    pause = REFUSED_PAUSE;
                }
                // The connection of the lookups logs the reason.
                Err(DialError::Redis(error)) => {
                    debug!("does not hear of removals: {}", describe(&error));
                }
                Err(DialError::Unreached(error)) => debug!("does not hear of removals: {error}"),
            }
            sleep_until(started + pause.mul_f32(1.0 + 0.5 * fastrand::f32())).await;
        }
    }

    async fn subscribe(
        &self,
    ) -> Result<(PubSubSink, impl Stream<Item = Msg> + use<F>, Endpoint), DialError> {
        let url = self.url().await.map_err(DialError::Unreached)?;
        let dialled = dial_pubsub(&url, self.limits, CONNECT_DEADLINE).await?;
        let (mut sink, stream) = dialled.split();
        let subscribed = timeout(CONNECT_DEADLINE, sink.subscribe(&self.channel)).await;
        subscribed.unwrap_or_else(|_| Err(io::Error::from(io::ErrorKind::TimedOut).into()))?;
        Ok((sink, stream, url.endpoint().clone()))
    }

    /// Waits until the Sentinels name another primary; for ever where there are none.
    async fn switched_from(&self, server: &Endpoint) {
        match &self.server {
            Server::Named(sentinels) => {
                sentinels.switched_from(server).await;
            }
            Server::Fixed | Server::OfCluster(_) => std::future::pending().await,
        }
    }

    async fn url(&self) -> Result<RedisUrl, Error> {
        match &self.server {
            Server::Fixed => Ok(self.url.clone()),
            Server::Named(sentinels) => Ok(self.url.node(sentinels.primary().await?, None)),
            Server::OfCluster(shared) => {
                let mut nodes = shared.owners();
                nodes.retain(|node| node.connection.is_up());
                let endpoint = fastrand::choice(&nodes).map(|node| &node.endpoint);
                let given = fastrand::choice(self.url.endpoints());
                let endpoint = endpoint.or(given).unwrap_or(self.url.endpoint());
                Ok(self
                    .url
                    .node(endpoint.clone(), Some(self.url.endpoint().host())))
            }
        }
    }

    /// Passes messages on until the connection is lost. redis-rs buffers them without a bound, so nothing
    /// may be awaited between two of them.
    async fn hear(&self, mut sink: PubSubSink, stream: impl Stream<Item = Msg>) {
        let mut stream = pin!(stream);
        let mut may_ping = true;
        loop {
            match timeout(PING_EVERY, stream.next()).await {
                Ok(Some(message)) => {
                    (self.on_event)(Event::Message(message.get_payload_bytes()));
                }
                Ok(None) => return,
                Err(_elapsed) if may_ping => {
                    let pong = timeout(PING_DEADLINE, sink.ping::<Value>()).await;
                    match pong {
                        Ok(Ok(Value::ServerError(_))) => may_ping = false,
                        Ok(Err(error)) if error.code() == Some("NOPERM") => may_ping = false,
                        Ok(Ok(_)) => {}
                        Ok(Err(_)) | Err(_) => return,
                    }
                }
                Err(_elapsed) => {}
            }
        }
    }
}
