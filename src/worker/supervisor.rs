//! Opens one session with the broker after another until the worker stops, and ends them. What a session does with a
//! delivery is [`super::session`].

use std::sync::Arc;
use std::time::Duration;

use lapin::types::ShortString;
use lapin::{Channel, Connection};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tracing::{debug, info, warn};

use super::dead_letters;
use super::replier::{Replier, ReplyPublisher};
use super::session::{RequestConsumer, Session, log_panic};
use super::{Service, Stopped, WorkerOptions};
use crate::FOR_EVER;
use crate::broker::{self, Backoff, Declare, Pair};
use crate::counts::ConnectionState;
use crate::error::Error;
use crate::procedure::Procedure;
use crate::queue::QueueName;
use crate::server_url::AmqpUrl;

/// The longest time that a worker finishes requests at a node that it leaves for its preferred one.
const MAX_LEAVING: Duration = Duration::from_secs(10);

/// How a session ended.
enum Ended {
    /// The worker was asked to stop.
    Stopped(Stopped),
    /// The broker or a connection to it is gone; with the reason.
    Lost(String),
    /// The preferred node is back.
    Moving,
}

impl Stopped {
    /// Stopped while there is no session: other workers answer what is being computed.
    fn without_session(tasks: &JoinSet<()>) -> Self {
        info!("stopping without a connection to RabbitMQ");
        if tasks.is_empty() {
            Self::Clean
        } else {
            Self::Abandoned
        }
    }
}

impl<P: Procedure> Service<P> {
    /// Serves until `stop` resolves. Fails only if the broker refuses the login or the vhost of the first
    /// session.
    pub(super) async fn supervise(
        self: &Arc<Self>,
        options: &WorkerOptions,
        stop: impl Future<Output = ()>,
    ) -> Result<Stopped, Error> {
        let (queue, prefetch) = (&self.queue, options.prefetch_or_default());
        let broker = &self.counters.broker;
        let mut tasks = JoinSet::new();
        let mut stop = std::pin::pin!(stop);
        let mut backoff = Backoff::default();
        let mut logged_otherwise = None;
        let mut ever_served = false;
        loop {
            let opened = tokio::select! {
                opened = Session::open(&options.amqp, queue, options.declare, prefetch) => opened,
                () = &mut stop => return Ok(Stopped::without_session(&tasks)),
            };
            match opened {
                Ok(session) => {
                    if let Some(reason) = &session.declared_otherwise
                        && logged_otherwise.as_ref() != Some(reason)
                    {
                        warn!("using {queue} as it is, though it is declared otherwise: {reason}");
                        logged_otherwise = Some(reason.clone());
                    }
                    self.log_serving(options, prefetch);
                    ever_served = true;
                    let opened = Instant::now();
                    match session
                        .serve(self, &mut tasks, &mut stop, options.grace.min(FOR_EVER))
                        .await
                    {
                        Ended::Stopped(stopped) => return Ok(stopped),
                        Ended::Lost(reason) => {
                            warn!("lost RabbitMQ at {}: {reason}; reconnecting", options.amqp);
                            broker.lost(broker::unreachable(&options.amqp, &reason));
                        }
                        Ended::Moving => continue,
                    }
                    backoff.session_ended(opened);
                }
                Err(error) if error.is_lasting() && !ever_served => return Err(error),
                Err(error) => {
                    let down = ConnectionState::Down(error.clone());
                    if broker.down(error.clone()) != down {
                        warn!("{error}; trying again until it works");
                    }
                    backoff.failed();
                }
            }
            tokio::select! {
                () = backoff.pause() => {}
                () = &mut stop => return Ok(Stopped::without_session(&tasks)),
            }
        }
    }

    fn log_serving(&self, options: &WorkerOptions, prefetch: u16) {
        let back = match self.counters.broker.up() {
            ConnectionState::Down(_) => "RabbitMQ is back: ",
            ConnectionState::Connecting | ConnectionState::Up => "",
        };
        info!(
            "{back}serving {} from {} at {}, {} at once, prefetch {prefetch}, cache at {}",
            self.name(),
            self.queue,
            options.amqp,
            options.concurrency,
            options.cache.url,
        );
    }
}

impl Session {
    async fn open(
        url: &AmqpUrl,
        queue: &QueueName,
        declare: Declare,
        prefetch: u16,
    ) -> Result<Self, Error> {
        let (dead_letters, queue) = (queue.dead_letters(), queue.as_short());
        let Pair {
            consuming,
            publishing,
            node,
        } = Pair::connect(url, "worker requests", "worker replies").await?;
        let declared_otherwise = broker::ensure_queue(url, &consuming, &queue, declare).await?;
        let publishing = Arc::new(publishing);
        let open = async {
            // Direct reply-to as well: over a node that is cut off, replies would be lost.
            let url = url.at(&node);
            let replies = ReplyPublisher::open(&url, Arc::clone(&publishing));
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
            node,
            has_dead_letters,
            consuming,
            publishing,
            consumer,
            replier: Arc::new(Replier::new(acks, replies, lost.clone())),
            declared_otherwise,
            _ends: lost.drop_guard(),
        })
    }

    /// Serves until `stop` resolves or the session is lost, and closes the connections.
    async fn serve<P: Procedure>(
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
                self.url.at(&self.node),
                Arc::clone(&self.replier),
            );
            let served = dead_letters::serve(service, url, replier, stopping.clone());
            AbortOnDropHandle::new(tokio::spawn(served))
        });
        let (url, node) = (self.url.clone(), self.node.clone());
        let ended = tokio::select! {
            reason = self.serve_until_lost(service, tasks) => Ended::Lost(reason),
            () = broker::preferred_is_back(&url, &node) => {
                info!("RabbitMQ: the preferred node is back; going there");
                self.leave(service, tasks).await;
                Ended::Moving
            }
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
        let closed = async move {
            tokio::join!(
                broker::close(&self.publishing),
                broker::close(&self.consuming),
                self.replier.replies().close_direct(),
            );
        };
        match &ended {
            Ended::Stopped(_) => closed.await,
            // A silent node takes its time.
            Ended::Lost(_) | Ended::Moving => drop(tokio::spawn(closed)),
        }
        ended
    }

    /// Stops consuming, and waits until the requests that are held are settled, for a bounded time: the broker gives the
    /// others to other workers.
    async fn leave<P: Procedure>(&mut self, service: &Arc<Service<P>>, tasks: &mut JoinSet<()>) {
        let deadline = Instant::now() + MAX_LEAVING;
        let windows = self.consumer.windows();
        let left = async {
            self.consumer.cancel().await?;
            while let Some((delivery, permit)) = self.consumer.drain().await {
                self.take(service, tasks, delivery, permit);
            }
            windows.all_settled().await;
            Ok::<_, lapin::Error>(())
        };
        if !matches!(timeout_at(deadline, left).await, Ok(Ok(()))) {
            debug!("left a node with unanswered requests; the broker gives them to other workers");
        }
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

async fn open_consumer(
    consuming: &Connection,
    queue: ShortString,
    prefetch: u16,
) -> lapin::Result<(Channel, RequestConsumer)> {
    let acks = broker::open_channel(consuming).await?;
    let consumer = RequestConsumer::open(acks.clone(), queue, prefetch).await?;
    Ok((acks, consumer))
}
