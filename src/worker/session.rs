//! The worker's session with the broker: two connections, a consumer, and the settling of deliveries.
//!
//! Requests come and are acked on one connection, replies go by another: an alarm at the broker
//! stops everything on the connection that publishes, and must not stop acks. When either is lost,
//! the session is: nothing more is settled, and the broker redelivers what was not.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use lapin::options::{
    BasicAckOptions, BasicCancelOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions,
    ConfirmSelectOptions,
};
use lapin::types::{FieldTable, ShortString};
use lapin::{BasicProperties, Channel, Confirmation, Connection, Consumer};
use tokio::sync::Mutex;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout_at};
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::{debug, error, info, warn};

use super::{Desk, Stopped};
use crate::broker::{self, Declare};
use crate::error::{Error, quote};
use crate::message::is_direct_reply_to;
use crate::procedure::Procedure;
use crate::queue::QueueName;
use crate::server_url::AmqpUrl;

/// How a session ended.
pub(super) enum Ended {
    /// As it was asked to.
    Stopped(Stopped),
    /// The broker or a connection to it is gone, and why.
    Lost(String),
}

pub(super) struct Session {
    consuming: Connection,
    publishing: Connection,
    deliveries: Consumer,
    post: Post,
    /// Tells the tasks of this session, however it ends.
    _ends: DropGuard,
}

/// Replying and acking, for the task of one delivery.
#[derive(Debug, Clone)]
pub(super) struct Post {
    acks: Channel,
    replies: Channel,
    /// For suspect replies, one at a time, over a connection of their own.
    apart: Arc<Mutex<AmqpUrl>>,
    /// Cancelled when the session is of no more use.
    pub(super) lost: CancellationToken,
}

impl Session {
    pub(super) async fn open(
        url: &AmqpUrl,
        queue: &QueueName,
        declare: Declare,
        prefetch: u16,
    ) -> Result<Self, Error> {
        let queue = queue.as_short();
        let (consuming, publishing) = tokio::try_join!(
            broker::connect(url, "worker requests"),
            broker::connect(url, "worker replies"),
        )?;
        broker::ensure_queue(url, &consuming, &queue, declare).await?;
        let (acks, replies, deliveries) =
            broker::bounded(url, open_channels(&consuming, &publishing, queue, prefetch)).await?;
        let lost = CancellationToken::new();
        Ok(Self {
            consuming,
            publishing,
            deliveries,
            post: Post {
                acks,
                replies,
                apart: Arc::new(Mutex::new(url.clone())),
                lost: lost.clone(),
            },
            _ends: lost.drop_guard(),
        })
    }

    /// Serves each delivery in a task of its own until `stop` resolves or the session is lost. At
    /// most as many are under way as the prefetch lets the broker send. `tasks` outlives the
    /// session: a computation that has begun is finished for the cache's sake.
    pub(super) async fn serve<P: Procedure>(
        mut self,
        desk: &Arc<Desk<P>>,
        tasks: &mut JoinSet<()>,
        stop: &mut (impl Future<Output = ()> + Unpin),
        grace: Duration,
    ) -> Ended {
        let mut events = Box::pin(self.publishing.events_listener());
        let lost = loop {
            tokio::select! {
                delivery = self.deliveries.next() => match delivery {
                    Some(Ok(delivery)) => {
                        tasks.spawn(Arc::clone(desk).serve(self.post.clone(), delivery));
                    }
                    Some(Err(error)) => break broker::describe(&error),
                    None => break "the queue was deleted".to_owned(),
                },
                Some(ended) = tasks.join_next() => report(ended),
                reason = broker::lost(&self.publishing, &mut events) => break reason,
                () = self.post.lost.cancelled() => break "replying failed".to_owned(),
                () = &mut *stop => return Ended::Stopped(self.stop(desk, tasks, grace).await),
            }
        };
        // What is being computed is worth storing: those tasks go on, no more of them than there
        // are slots to compute. The others end.
        self.post.lost.cancel();
        Ended::Lost(lost)
    }

    /// Takes no more, finishes and answers what is held, closes.
    async fn stop<P: Procedure>(
        mut self,
        desk: &Arc<Desk<P>>,
        tasks: &mut JoinSet<()>,
        grace: Duration,
    ) -> Stopped {
        let deadline = Instant::now() + grace;
        info!("stopping: taking no more requests, finishing those held");
        let cancel = self
            .post
            .acks
            .basic_cancel(self.deliveries.tag(), BasicCancelOptions::default());
        if !matches!(timeout_at(deadline, cancel).await, Ok(Ok(()))) {
            warn!("RabbitMQ did not confirm the end of consuming");
        }
        let mut more = true;
        loop {
            tokio::select! {
                // What had arrived before the cancellation is held, too.
                delivery = self.deliveries.next(), if more => match delivery {
                    Some(Ok(delivery)) => {
                        tasks.spawn(Arc::clone(desk).serve(self.post.clone(), delivery));
                    }
                    Some(Err(_)) | None => more = false,
                },
                ended = tasks.join_next() => match ended {
                    Some(ended) => report(ended),
                    None if more => {}
                    None => break,
                },
                () = sleep_until(deadline) => break,
            }
        }
        let unfinished = tasks.len();
        if unfinished > 0 {
            warn!(
                "{unfinished} requests are left unanswered; the broker gives them to other workers"
            );
        }
        tasks.shutdown().await;
        broker::close(&self.publishing).await;
        broker::close(&self.consuming).await;
        if unfinished == 0 {
            Stopped::Clean
        } else {
            Stopped::Abandoned
        }
    }
}

/// A task that panicked has settled nothing: its delivery stays unacked until the session ends.
fn report(ended: Result<(), tokio::task::JoinError>) {
    if let Err(ended) = ended
        && ended.is_panic()
    {
        error!("a request's task panicked: its delivery is left to be redelivered");
    }
}

impl Post {
    /// Publishes a reply and waits for the confirm. `false`: it is not known to have arrived, and
    /// its request must not be acked.
    pub(super) async fn reply(
        &self,
        to: ShortString,
        body: &[u8],
        properties: BasicProperties,
    ) -> bool {
        match publish(&self.replies, to, body, properties).await {
            Ok(confirmed) if confirmed.is_ack() => {
                // A returned message may have come with another one's confirm; either way some
                // caller's queue is gone, and there is nobody to reply to.
                if confirmed.take_message().is_some() {
                    debug!("a caller's callback queue is gone");
                }
                true
            }
            Ok(_) => {
                warn!("RabbitMQ refused a reply; reconnecting");
                self.lost.cancel();
                false
            }
            Err(error) => {
                debug!(%error, "a reply could not be published");
                self.lost.cancel();
                false
            }
        }
    }

    /// Replies to a request that was delivered before, by direct reply-to.
    ///
    /// RabbitMQ (3.10 at least) closes the connection that publishes to a forged name of that kind.
    /// On the connection of all replies, such a request would come back and end it again and again;
    /// on one of its own it is found out, and settled.
    pub(super) async fn reply_apart(
        &self,
        to: ShortString,
        body: &[u8],
        properties: BasicProperties,
    ) -> bool {
        let url = self.apart.lock().await;
        let Ok(connection) = broker::connect(&url, "worker suspect reply").await else {
            self.lost.cancel();
            return false;
        };
        let replied = async {
            let channel = broker::open_channel(&connection).await?;
            channel
                .confirm_select(ConfirmSelectOptions::default())
                .await?;
            publish(&channel, to.clone(), body, properties).await
        };
        match broker::bounded_lapin(replied).await {
            Ok(_) => {
                broker::close(&connection).await;
                true
            }
            Err(error) if broker::is_internal_error(&error) => {
                let reply_to = quote(to.as_str().as_bytes());
                warn!(
                    reply_to,
                    "gave up a reply: RabbitMQ fails over its reply_to"
                );
                true
            }
            Err(error) => {
                debug!(%error, "a reply could not be published");
                self.lost.cancel();
                false
            }
        }
    }

    pub(super) async fn ack(&self, tag: u64) {
        if let Err(error) = self.acks.basic_ack(tag, BasicAckOptions::default()).await {
            debug!(%error, "an ack could not be sent: the request will be delivered again");
        }
    }
}

async fn publish(
    replies: &Channel,
    to: ShortString,
    body: &[u8],
    properties: BasicProperties,
) -> lapin::Result<Confirmation> {
    let options = BasicPublishOptions {
        // To learn, for the log, that nobody waits any more.
        mandatory: !is_direct_reply_to(&to),
        ..BasicPublishOptions::default()
    };
    let default_exchange = ShortString::default();
    replies
        .basic_publish(default_exchange, to, options, body, properties)
        .await?
        .await
}

async fn open_channels(
    consuming: &Connection,
    publishing: &Connection,
    queue: ShortString,
    prefetch: u16,
) -> lapin::Result<(Channel, Channel, Consumer)> {
    let (acks, replies) = tokio::try_join!(
        broker::open_channel(consuming),
        broker::open_channel(publishing)
    )?;
    replies
        .confirm_select(ConfirmSelectOptions::default())
        .await?;
    acks.basic_qos(prefetch, BasicQosOptions::default()).await?;
    let deliveries = acks
        .basic_consume(
            queue,
            ShortString::default(),
            BasicConsumeOptions::default(),
            FieldTable::default(),
        )
        .await?;
    Ok((acks, replies, deliveries))
}
