//! The worker's session with the broker: two connections, a consumer, and the settling of deliveries.
//!
//! Requests come and are acked on one connection, replies go by another: an alarm at the broker
//! stops everything on the connection that publishes, and must not stop acks. When either is lost,
//! the session is: nothing more is settled, and the broker redelivers what was not. Dead letters and
//! replies by direct reply-to have connections of their own, since what comes there can close them.

use std::sync::Arc;
use std::time::Duration;

use lapin::message::Delivery;
use lapin::types::ShortString;
use lapin::{Channel, Connection};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::AbortOnDropHandle;
use tracing::{error, info, warn};

use super::dead_letters;
use super::intake::{Intake, Place};
use super::post::{Post, Replies};
use super::{Service, Stopped};
use crate::broker::{self, Declare, Trouble};
use crate::error::Error;
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
    url: AmqpUrl,
    consuming: Connection,
    publishing: Arc<Connection>,
    intake: Intake,
    /// There is a dead-letter queue.
    has_dead_letters: bool,
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
        let publishing = Arc::new(publishing);
        let open = async {
            let replies = Replies::open(url, Arc::clone(&publishing));
            let (replies, (acks, intake)) =
                tokio::try_join!(replies, open_intake(&consuming, queue, prefetch))?;
            Ok((acks, Arc::new(replies), intake))
        };
        let (acks, replies, intake) = broker::bounded(url, open).await?;
        // There need not be one, nor the right to look.
        let found = broker::declare_passively(&consuming, &dead_letters);
        let has_dead_letters = broker::bounded_lapin(found).await.is_ok();
        let lost = CancellationToken::new();
        Ok(Self {
            url: url.clone(),
            has_dead_letters,
            consuming,
            publishing,
            intake,
            post: Arc::new(Post::new(acks, replies, lost.clone())),
            declared_otherwise,
            _ends: lost.drop_guard(),
        })
    }

    /// Serves each delivery in a task of its own until `stop` resolves or the session is lost. At
    /// most as many are under way as the prefetch lets the broker send. `tasks` outlives the
    /// session: a computation that has begun is finished for the cache's sake.
    pub(super) async fn serve<P: Procedure>(
        mut self,
        service: &Arc<Service<P>>,
        tasks: &mut JoinSet<()>,
        stop: &mut (impl Future<Output = ()> + Unpin),
        grace: Duration,
    ) -> Ended {
        let stopping = CancellationToken::new();
        let dead_letters = self.has_dead_letters.then(|| {
            let (service, url, post) = (
                Arc::clone(service),
                self.url.clone(),
                Arc::clone(&self.post),
            );
            let served = dead_letters::serve(service, url, post, stopping.clone());
            AbortOnDropHandle::new(tokio::spawn(served))
        });
        let ended = tokio::select! {
            reason = self.serve_until_lost(service, tasks) => Ended::Lost(reason),
            () = stop => {
                info!("stopping: taking no more requests, finishing those held");
                stopping.cancel();
                let deadline = Instant::now() + grace;
                let stopped = self.finish(service, tasks, deadline).await;
                if let Some(dead_letters) = dead_letters {
                    // What is left of them then, the broker gives to other workers.
                    let _ = timeout_at(deadline, dead_letters).await;
                }
                Ended::Stopped(stopped)
            }
        };
        // What waits ends now; what is computed goes on, no more of it than there are slots. The
        // connections are closed for the broker to redeliver the rest at once.
        self.post.lost.cancel();
        tokio::join!(
            broker::close(&self.publishing),
            broker::close(&self.consuming),
            self.post.replies().close_direct(),
        );
        ended
    }

    /// Why it was lost. Cancel safe.
    async fn serve_until_lost<P: Procedure>(
        &mut self,
        service: &Arc<Service<P>>,
        tasks: &mut JoinSet<()>,
    ) -> String {
        let mut events = Box::pin(self.publishing.events_listener());
        let counts = &*service.vitals.broker;
        loop {
            tokio::select! {
                taken = self.intake.next() => match taken {
                    Ok(deliveries) => for (delivery, place) in deliveries {
                        self.take(service, tasks, delivery, place);
                    },
                    Err(reason) => return reason,
                },
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
        service: &Arc<Service<P>>,
        tasks: &mut JoinSet<()>,
        delivery: Delivery,
        place: Place,
    ) {
        let arrival = service.suspects.arrived(delivery.redelivered, place);
        tasks.spawn(Arc::clone(service).serve(Arc::clone(&self.post), arrival, delivery));
    }

    /// Takes no more, finishes and answers what is held.
    async fn finish<P: Procedure>(
        &mut self,
        service: &Arc<Service<P>>,
        tasks: &mut JoinSet<()>,
        deadline: Instant,
    ) -> Stopped {
        if !matches!(timeout_at(deadline, self.intake.cancel()).await, Ok(Ok(()))) {
            warn!("RabbitMQ did not confirm the end of consuming");
        }
        while let Ok(Some((delivery, place))) = timeout_at(deadline, self.intake.last()).await {
            self.take(service, tasks, delivery, place);
        }
        while let Ok(Some(ended)) = timeout_at(deadline, tasks.join_next()).await {
            report(ended);
        }
        let unfinished = tasks.len();
        tasks.shutdown().await;
        // Before the broker gives what is left to others: they look whether it is poison.
        service.cease().await;
        if unfinished == 0 && !self.post.lost.is_cancelled() {
            return Stopped::Clean;
        }
        warn!("requests are left unanswered; the broker gives them to other workers");
        Stopped::Abandoned
    }
}

/// A task that panicked has settled nothing: its delivery stays unacked until the session ends.
pub(super) fn report(ended: Result<(), tokio::task::JoinError>) {
    if let Err(ended) = ended
        && ended.is_panic()
    {
        error!("a request's task panicked: its delivery is left to be redelivered");
    }
}

async fn open_intake(
    consuming: &Connection,
    queue: ShortString,
    prefetch: u16,
) -> lapin::Result<(Channel, Intake)> {
    let acks = broker::open_channel(consuming).await?;
    let intake = Intake::open(acks.clone(), queue, prefetch).await?;
    Ok((acks, intake))
}
