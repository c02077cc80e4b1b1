//! One session with the broker: two connections, the consumer of requests, the replier.
//!
//! Requests are consumed and acked on one connection and replies published on another: an alarm at the broker
//! blocks the connection that publishes, and must not block acks. When either is lost, the session is: no
//! delivery is settled any more, and the broker redelivers those that are not. Dead letters and replies by
//! direct reply-to have connections of their own, because what a peer sends there can close them.

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

use super::consumer::{Permit, RequestConsumer};
use super::dead_letters;
use super::replier::{Replier, ReplyPublisher};
use super::{Service, Stopped};
use crate::broker::{self, Declare, Trouble};
use crate::error::Error;
use crate::procedure::Procedure;
use crate::queue::QueueName;
use crate::server_url::AmqpUrl;

/// How a session ended.
pub(super) enum Ended {
    /// The worker was asked to stop.
    Stopped(Stopped),
    /// The broker or a connection to it is gone; with the reason.
    Lost(String),
}

pub(super) struct Session {
    url: AmqpUrl,
    consuming: Connection,
    publishing: Arc<Connection>,
    consumer: RequestConsumer,
    /// Whether there is a dead-letter queue that this login may read.
    has_dead_letters: bool,
    replier: Arc<Replier>,
    /// The broker's reason, if the queue exists with other properties than the worker would declare.
    pub(super) declared_otherwise: Option<String>,
    /// Cancels [`Replier::lost`] when the session ends, however it ends.
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
            let replies = ReplyPublisher::open(url, Arc::clone(&publishing));
            let (replies, (acks, consumer)) =
                tokio::try_join!(replies, open_consumer(&consuming, queue, prefetch))?;
            Ok((acks, Arc::new(replies), consumer))
        };
        let (acks, replies, consumer) = broker::bounded(url, open).await?;
        // Both the queue and the right to look at it are optional.
        let found = broker::declare_passively(&consuming, &dead_letters);
        let has_dead_letters = broker::bounded_lapin(found).await.is_ok();
        let lost = CancellationToken::new();
        Ok(Self {
            url: url.clone(),
            has_dead_letters,
            consuming,
            publishing,
            consumer,
            replier: Arc::new(Replier::new(acks, replies, lost.clone())),
            declared_otherwise,
            _ends: lost.drop_guard(),
        })
    }

    /// Serves each delivery in its own task until `stop` resolves or the session is lost. The prefetch limits
    /// the number of tasks. `tasks` outlives the session: a computation that has started is finished for the
    /// cache's sake.
    pub(super) async fn serve<P: Procedure>(
        mut self,
        service: &Arc<Service<P>>,
        tasks: &mut JoinSet<()>,
        stop: &mut (impl Future<Output = ()> + Unpin),
        grace: Duration,
    ) -> Ended {
        let stopping = CancellationToken::new();
        let dead_letters = self.has_dead_letters.then(|| {
            let (service, url, replier) = (
                Arc::clone(service),
                self.url.clone(),
                Arc::clone(&self.replier),
            );
            let served = dead_letters::serve(service, url, replier, stopping.clone());
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
                    // The broker gives dead letters that are left then to other workers.
                    let _ = timeout_at(deadline, dead_letters).await;
                }
                Ended::Stopped(stopped)
            }
        };
        // Requests that wait end now; computations go on, at most one per slot. The connections are closed so
        // that the broker redelivers at once.
        self.replier.lost.cancel();
        tokio::join!(
            broker::close(&self.publishing),
            broker::close(&self.consuming),
            self.replier.replies().close_direct(),
        );
        ended
    }

    /// Serves until the session is lost; returns the reason. Cancel safe.
    async fn serve_until_lost<P: Procedure>(
        &mut self,
        service: &Arc<Service<P>>,
        tasks: &mut JoinSet<()>,
    ) -> String {
        let mut events = Box::pin(self.publishing.events_listener());
        let counts = &*service.counters.broker;
        loop {
            tokio::select! {
                taken = self.consumer.next() => match taken {
                    Ok(deliveries) => for (delivery, permit) in deliveries {
                        self.take(service, tasks, delivery, permit);
                    },
                    Err(reason) => return reason,
                },
                Some(ended) = tasks.join_next() => {
                    log_panic(ended);
                    while let Some(ended) = tasks.try_join_next() {
                        log_panic(ended);
                    }
                }
                // While the connection is blocked, replies wait and their deliveries stay unacked.
                trouble = broker::trouble(&self.publishing, &mut events, counts) => {
                    if let Trouble::Lost(reason) = trouble {
                        return reason;
                    }
                }
                () = self.replier.lost.cancelled() => return self.replier.reason(),
            }
        }
    }

    fn take<P: Procedure>(
        &self,
        service: &Arc<Service<P>>,
        tasks: &mut JoinSet<()>,
        message: Delivery,
        permit: Permit,
    ) {
        let delivery = service.redelivered.register(message.redelivered, permit);
        let replier = Arc::clone(&self.replier);
        tasks.spawn(Arc::clone(service).serve(replier, delivery, message));
    }

    /// Stops consuming, and finishes the requests that are held, until `deadline`.
    async fn finish<P: Procedure>(
        &mut self,
        service: &Arc<Service<P>>,
        tasks: &mut JoinSet<()>,
        deadline: Instant,
    ) -> Stopped {
        if !matches!(
            timeout_at(deadline, self.consumer.cancel()).await,
            Ok(Ok(()))
        ) {
            warn!("RabbitMQ did not confirm that the consumer is cancelled");
        }
        while let Ok(Some((delivery, permit))) = timeout_at(deadline, self.consumer.drain()).await {
            self.take(service, tasks, delivery, permit);
        }
        while let Ok(Some(ended)) = timeout_at(deadline, tasks.join_next()).await {
            log_panic(ended);
        }
        let unfinished = tasks.len();
        tasks.shutdown().await;
        // Before the broker redelivers the rest to other workers, which read the counted attempts.
        service.cease().await;
        if unfinished == 0 && !self.replier.lost.is_cancelled() {
            return Stopped::Clean;
        }
        warn!("stopped with unanswered requests; the broker gives them to other workers");
        Stopped::Abandoned
    }
}

/// Logs a task that panicked. Its delivery stays unacked, and is redelivered when the session ends.
pub(super) fn log_panic(ended: Result<(), tokio::task::JoinError>) {
    if let Err(ended) = ended
        && ended.is_panic()
    {
        error!("a request's task panicked: the broker will redeliver the request");
    }
}

async fn open_consumer(
    consuming: &Connection,
    queue: ShortString,
    prefetch: u16,
) -> lapin::Result<(Channel, RequestConsumer)> {
    let acks = broker::open_channel(consuming).await?;
    let consumer = RequestConsumer::open(acks.clone(), queue, prefetch).await?;
    Ok((acks, consumer))
}
