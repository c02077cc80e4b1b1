//! The ear of a client that keeps copies: a connection of its own that is subscribed to what is
//! removed, made anew when it is lost.

use std::io;
use std::pin::pin;
use std::time::Duration;

use futures_util::{Stream, StreamExt as _};
use redis::aio::PubSubSink;
use redis::{Msg, Value};
use tokio::time::{Instant, sleep_until, timeout};
use tracing::{debug, warn};

use super::Purge;
use crate::cache::connection::describe;
use crate::cache::dial::{Failure, dial_pubsub};
use crate::cache::resp::Limits;
use crate::server_url::RedisUrl;

/// To connect and log in, and then to be subscribed.
const CONNECT_DEADLINE: Duration = Duration::from_secs(1);

/// Between two attempts, and up to a half of it more at random.
const REDIAL_PAUSE: Duration = Duration::from_secs(1);

/// The same where Redis has refused: somebody has to change rights first.
const REFUSED_PAUSE: Duration = Duration::from_secs(60);

/// How often a connection on which nothing comes is asked whether it still lives, and for how long
/// the answer is waited for: what is removed on a connection that has died silently is missed.
const PING_EVERY: Duration = Duration::from_secs(5);
const PING_DEADLINE: Duration = Duration::from_secs(1);

/// Listens for one client.
pub(super) struct Listener<F> {
    pub(super) url: RedisUrl,
    pub(super) limits: Limits,
    pub(super) channel: String,
    /// Of the keys that there are copies of.
    pub(super) prefix: String,
    pub(super) purge: F,
}

impl<F: Fn(Purge<'_>) + Send + Sync + 'static> Listener<F> {
    /// Never ends by itself. No error of the call: without it, copies end by their life alone.
    pub(super) async fn listen(self) {
        let mut warned = false;
        loop {
            let started = Instant::now();
            let mut pause = REDIAL_PAUSE;
            match self.subscribe().await {
                Ok((sink, stream)) => {
                    // From here on nothing is missed. What came before may have been.
                    (self.purge)(Purge::Everything);
                    self.hear(sink, stream).await;
                    debug!("does not hear of removals: the connection was lost");
                }
                Err(Failure::Redis(error)) if error.code() == Some("NOPERM") => {
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
                // Why, the connection of the lookups tells.
                Err(Failure::Redis(error)) => {
                    debug!("does not hear of removals: {}", describe(&error));
                }
                Err(Failure::Unreached(error)) => debug!("does not hear of removals: {error}"),
            }
            sleep_until(started + pause.mul_f32(1.0 + 0.5 * fastrand::f32())).await;
        }
    }

    async fn subscribe(&self) -> Result<(PubSubSink, impl Stream<Item = Msg> + use<F>), Failure> {
        let dialled = dial_pubsub(&self.url, self.limits, CONNECT_DEADLINE).await?;
        let (mut sink, stream) = dialled.split();
        let subscribed = timeout(CONNECT_DEADLINE, sink.subscribe(&self.channel)).await;
        subscribed.unwrap_or_else(|_| Err(io::Error::from(io::ErrorKind::TimedOut).into()))?;
        Ok((sink, stream))
    }

    /// Until the connection is lost. What has come waits in a buffer without a bound: it is dealt with
    /// here and now, without waiting for anything.
    async fn hear(&self, mut sink: PubSubSink, stream: impl Stream<Item = Msg>) {
        let mut stream = pin!(stream);
        let mut may_ping = true;
        loop {
            match timeout(PING_EVERY, stream.next()).await {
                Ok(Some(message)) => {
                    let purge = Purge::read(message.get_payload_bytes(), &self.prefix);
                    (self.purge)(purge);
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
