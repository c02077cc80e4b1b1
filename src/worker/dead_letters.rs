//! Replies to dead-lettered requests: those that the broker has given up.
//!
//! Where a policy sends expired, poisonous or overflowing requests to `QUEUE.dead`, their callers would wait in
//! vain. Workers consume that queue and reply with the failure that the broker names in `x-death`, so that even
//! a caller in another language learns what became of its request.
//!
//! The queue has a connection of its own: anybody may publish to it, and a hostile message costs that connection
//! at most, which is opened again after a pause that doubles up to half a minute.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use lapin::message::Delivery;
use lapin::options::BasicQosOptions;
use lapin::types::AMQPValue;
use lapin::{BasicProperties, Channel, Connection, Consumer};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::Service;
use super::replier::{Replier, Unsettled};
use super::session::{consume, log_panic};
use crate::broker;
use crate::error::ErrorCode;
use crate::log_throttle::LogThrottle;
use crate::message::{Failure, Reply, Request};
use crate::procedure::Procedure;
use crate::server_url::AmqpUrl;

/// Low: dead letters are few, and replying to them takes no computing.
const PREFETCH: u16 = 16;

/// A connection that ends sooner may have been closed because of a dead letter: the next pause is longer.
const MIN_LIFETIME: Duration = Duration::from_secs(60);

/// The first and the longest pause before the connection is opened again.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(30));

/// Replies to dead letters until `stopping`, and then to those that it holds. Ends early when the queue is gone or
/// the session of `session` is lost. Replies go through `session`; nothing here ends that session.
pub(super) async fn serve<P: Procedure>(
    service: Arc<Service<P>>,
    url: AmqpUrl,
    session: Arc<Replier>,
    stopping: CancellationToken,
) {
    let lost = session.lost.clone();
    let log = LogThrottle::default();
    let serve = async {
        let mut pause = PAUSES.0;
        while !stopping.is_cancelled() {
            let since = Instant::now();
            let ended = serve_once(&service, &url, &session, &stopping).await;
            match ended {
                Ok(()) => return,
                Err(reason) => {
                    if let Some(left_out) = log.happened() {
                        warn!(
                            left_out,
                            "lost the connection for dead letters: {reason}; reconnecting, requests are served meanwhile"
                        );
                    }
                }
            }
            if since.elapsed() >= MIN_LIFETIME {
                pause = PAUSES.0;
            }
            let pausing = sleep(pause.mul_f32(0.5 + fastrand::f32() / 2.0));
            stopping.run_until_cancelled(pausing).await;
            pause = (pause * 2).min(PAUSES.1);
        }
    };
    // Dead letters that are held go back to the queue.
    lost.run_until_cancelled(serve).await;
}

/// Serves one connection. Fails with the reason if it is lost; `Ok` when nothing is left to do.
async fn serve_once<P: Procedure>(
    service: &Arc<Service<P>>,
    url: &AmqpUrl,
    session: &Replier,
    stopping: &CancellationToken,
) -> Result<(), String> {
    let connecting = broker::connect(url, "worker dead letters").await;
    let connection = connecting.map_err(|error| error.to_string())?;
    let opened = broker::bounded(url, open(&connection, service)).await;
    let (acks, mut letters) = match opened {
        Ok(opened) => opened,
        // The queue was deleted, or this login may not read it. The next session looks again.
        Err(error) if connection.status().connected() => {
            debug!(%error, "not consuming dead letters");
            broker::close(&connection).await;
            return Ok(());
        }
        Err(error) => return Err(error.to_string()),
    };
    let lost = CancellationToken::new();
    let replier = Arc::new(Replier::new(
        acks,
        Arc::clone(session.replies()),
        lost.clone(),
    ));
    let mut tasks = JoinSet::new();
    let ended = loop {
        tokio::select! {
            letter = letters.next() => match letter {
                Some(Ok(letter)) => {
                    tasks.spawn(Arc::clone(service).serve_dead(Arc::clone(&replier), letter));
                }
                Some(Err(error)) => break Err(broker::describe(&error)),
                // The queue was deleted.
                None => break Ok(()),
            },
            Some(ended) = tasks.join_next() => log_panic(ended),
            () = stopping.cancelled() => break Ok(()),
            () = lost.cancelled() => break Err(replier.reason()),
        }
    };
    while let Some(ended) = tasks.join_next().await {
        log_panic(ended);
    }
    broker::close(&connection).await;
    ended
}

async fn open<P: Procedure>(
    connection: &Connection,
    service: &Service<P>,
) -> lapin::Result<(Channel, Consumer)> {
    let channel = broker::open_channel(connection).await?;
    channel
        .basic_qos(PREFETCH, BasicQosOptions::default())
        .await?;
    let letters = consume(&channel, service.queue.dead_letters()).await?;
    Ok((channel, letters))
}

impl<P: Procedure> Service<P> {
    /// Replies to one dead-lettered request.
    async fn serve_dead(self: Arc<Self>, replier: Arc<Replier>, delivery: Delivery) {
        let read = |body, properties: &BasicProperties| {
            (given_up(properties), Request::read(body, properties))
        };
        let (unsettled, (given_up, request)) = Unsettled::take(delivery, read);
        if let Some(given_up) = &given_up
            && !given_up.rejected
        {
            let failure = &given_up.failure;
            self.counters.activity.failed.count(failure.code.as_str());
            self.observe_given_up(&request, failure);
        }
        if let (Some(given_up), Some(reply_to)) = (given_up, &request.reply_to)
            && self.may_reply_to(&replier, reply_to, || {}).await
        {
            let reply = Reply::failure(given_up.failure);
            let (body, properties) = reply.write(request.correlation_id.as_ref());
            let replying = replier.reply(unsettled, reply_to, &body, properties, || {});
            return replying.await;
        }
        replier.ack(unsettled).await;
    }
}

/// Why the broker has given up a request.
struct GivenUp {
    /// The reply.
    failure: Failure,
    /// A worker rejected the request. A worker in another language may have replied before: the caller takes the
    /// first reply, so this is not counted as a failed request.
    rejected: bool,
}

/// Reads why a request was dead-lettered; `None` if it was not: anybody may publish to that queue.
fn given_up(properties: &BasicProperties) -> Option<GivenUp> {
    let deaths = properties.headers().as_ref()?.inner().get("x-death")?;
    let AMQPValue::FieldArray(deaths) = deaths else {
        return None;
    };
    // The latest comes first.
    let AMQPValue::FieldTable(death) = deaths.as_slice().first()? else {
        return None;
    };
    let AMQPValue::LongString(reason) = death.inner().get("reason")? else {
        return None;
    };
    let (code, message) = match reason.as_bytes() {
        b"expired" => (
            ErrorCode::Expired,
            "the request's time ran out in the queue",
        ),
        b"delivery_limit" => (ErrorCode::Poison, "the request was delivered too often"),
        b"maxlen" => (ErrorCode::Overloaded, "the queue is full"),
        b"rejected" => (ErrorCode::Failed, "a worker rejected the request"),
        _ => (ErrorCode::Failed, "the broker gave the request up"),
    };
    Some(GivenUp {
        failure: Failure {
            code,
            message: message.to_owned(),
        },
        rejected: reason.as_bytes() == b"rejected",
    })
}
