//! The worker's session with the broker: two connections, a consumer, and the settling of deliveries.
//!
//! Requests come and are acked on one connection, replies go by another: an alarm at the broker
//! stops everything on the connection that publishes, and must not stop acks. When either is lost,
//! the session is: nothing more is settled, and the broker redelivers what was not.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use lapin::message::Delivery;
use lapin::options::{BasicQosOptions, ConfirmSelectOptions};
use lapin::types::ShortString;
use lapin::{Channel, Connection, Consumer};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::{debug, error, info, warn};

use super::intake::{Intake, Place, consume};
use super::post::Post;
use super::{Desk, Stopped};
use crate::broker::{self, Declare, Trouble};
use crate::error::Error;
use crate::procedure::Procedure;
use crate::queue::QueueName;
use crate::server_url::AmqpUrl;

/// Dead letters are few, and answering takes no computing.
const DEAD_PREFETCH: u16 = 16;

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
    intake: Intake,
    /// Of the dead-letter queue, where there is one that may be read, with the channel for its acks.
    dead: Option<(Channel, Consumer)>,
    post: Arc<Post>,
    /// What the broker says of the queue, where it is not what was to be declared.
    pub(super) declared_otherwise: Option<String>,
    /// Tells the tasks that the session is over, however it ends.
    _ends: DropGuard,
}

impl Session {
    pub(super) async fn open(
        url: &AmqpUrl,
        queue: &QueueName,
        declare: Declare,
        prefetch: u16,
    ) -> Result<Self, Error> {
        let (dead_letters, queue) = (queue.dead_letters(), queue.as_short());
        let (consuming, publishing) = tokio::try_join!(
            broker::connect(url, "worker requests"),
            broker::connect(url, "worker replies"),
        )?;
        let declared_otherwise = broker::ensure_queue(url, &consuming, &queue, declare).await?;
        let (acks, replies, intake) =
            broker::bounded(url, open_channels(&consuming, &publishing, queue, prefetch)).await?;
        let dead = open_dead(&consuming, dead_letters).await;
        let lost = CancellationToken::new();
        Ok(Self {
            dead,
            consuming,
            publishing,
            intake,
            post: Arc::new(Post::new(url, acks, replies, lost.clone())),
            declared_otherwise,
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
        let ended = tokio::select! {
            reason = self.serve_until_lost(desk, tasks) => Ended::Lost(reason),
            () = stop => {
                info!("stopping: taking no more requests, finishing those held");
                Ended::Stopped(self.finish(desk, tasks, Instant::now() + grace).await)
            }
        };
        // What waits ends now; what is computed goes on, no more of it than there are slots. The
        // connections are closed for the broker to redeliver the rest at once.
        self.post.lost.cancel();
        tokio::join!(
            broker::close(&self.publishing),
            broker::close(&self.consuming)
        );
        ended
    }

    /// Why it was lost. Cancel safe.
    async fn serve_until_lost<P: Procedure>(
        &mut self,
        desk: &Arc<Desk<P>>,
        tasks: &mut JoinSet<()>,
    ) -> String {
        let mut events = Box::pin(self.publishing.events_listener());
        let counts = &*desk.vitals.broker;
        loop {
            tokio::select! {
                taken = self.intake.next() => match taken {
                    Ok(deliveries) => for (delivery, place) in deliveries {
                        self.take(desk, tasks, delivery, place);
                    },
                    Err(reason) => return reason,
                },
                Some((acks, delivery)) = next_dead(&mut self.dead) => {
                    let post = Arc::new(self.post.with_acks(acks));
                    tasks.spawn(Arc::clone(desk).serve_dead(post, delivery));
                }
                Some(ended) = tasks.join_next() => {
                    report(ended);
                    while let Some(ended) = tasks.try_join_next() {
                        report(ended);
                    }
                }
                // While it is blocked, replies wait; what they are for stays unacked.
                trouble = broker::trouble(&self.publishing, &mut events, counts) => {
                    if let Trouble::Lost(reason) = trouble {
                        return reason;
                    }
                }
                () = self.post.lost.cancelled() => return self.post.why(),
            }
        }
    }

    fn take<P: Procedure>(
        &self,
        desk: &Arc<Desk<P>>,
        tasks: &mut JoinSet<()>,
        delivery: Delivery,
        place: Place,
    ) {
        let arrival = desk.suspects.arrived(delivery.redelivered, place);
        tasks.spawn(Arc::clone(desk).serve(Arc::clone(&self.post), arrival, delivery));
    }

    /// Takes no more, finishes and answers what is held.
    async fn finish<P: Procedure>(
        &mut self,
        desk: &Arc<Desk<P>>,
        tasks: &mut JoinSet<()>,
        deadline: Instant,
    ) -> Stopped {
        if !matches!(timeout_at(deadline, self.intake.cancel()).await, Ok(Ok(()))) {
            warn!("RabbitMQ did not confirm the end of consuming");
        }
        while let Ok(Some((delivery, place))) = timeout_at(deadline, self.intake.last()).await {
            self.take(desk, tasks, delivery, place);
        }
        while let Ok(Some(ended)) = timeout_at(deadline, tasks.join_next()).await {
            report(ended);
        }
        let unfinished = tasks.len();
        tasks.shutdown().await;
        // Before the broker gives what is left to others: they look whether it is poison.
        desk.cease().await;
        if unfinished == 0 && !self.post.lost.is_cancelled() {
            return Stopped::Clean;
        }
        warn!("requests are left unanswered; the broker gives them to other workers");
        Stopped::Abandoned
    }
}

/// A consumer of the dead-letter queue. There need not be one, nor the right to read it.
async fn open_dead(connection: &Connection, queue: ShortString) -> Option<(Channel, Consumer)> {
    let open = async {
        broker::declare_passively(connection, &queue).await?;
        let channel = broker::open_channel(connection).await?;
        channel
            .basic_qos(DEAD_PREFETCH, BasicQosOptions::default())
            .await?;
        let deliveries = consume(&channel, queue.clone()).await?;
        Ok((channel, deliveries))
    };
    match broker::bounded_lapin(open).await {
        Ok(dead) => Some(dead),
        Err(error) => {
            debug!(%queue, %error, "not answering for dead letters");
            None
        }
    }
}

/// The next dead letter; `None` when there is none to be had any more.
async fn next_dead(dead: &mut Option<(Channel, Consumer)>) -> Option<(Channel, Delivery)> {
    let Some((acks, deliveries)) = dead else {
        return std::future::pending().await;
    };
    if let Some(Ok(delivery)) = deliveries.next().await {
        return Some((acks.clone(), delivery));
    }
    // Deleted, most likely. It is looked for again at the next connect.
    *dead = None;
    None
}

/// A task that panicked has settled nothing: its delivery stays unacked until the session ends.
fn report(ended: Result<(), tokio::task::JoinError>) {
    if let Err(ended) = ended
        && ended.is_panic()
    {
        error!("a request's task panicked: its delivery is left to be redelivered");
    }
}

async fn open_channels(
    consuming: &Connection,
    publishing: &Connection,
    queue: ShortString,
    prefetch: u16,
) -> lapin::Result<(Channel, Channel, Intake)> {
    let (acks, replies) = tokio::try_join!(
        broker::open_channel(consuming),
        broker::open_channel(publishing)
    )?;
    replies
        .confirm_select(ConfirmSelectOptions::default())
        .await?;
    let intake = Intake::open(acks.clone(), queue, prefetch).await?;
    Ok((acks, replies, intake))
}
