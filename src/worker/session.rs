//! One session with the broker: takes deliveries, and serves each in a task of its own.
//!
//! Requests are consumed and acked on one connection and replies published on another: an alarm at the broker
//! blocks the connection that publishes, and must not block acks. When either is lost, the session is: no
//! delivery is settled any more, and the broker redelivers those that are not. Dead letters and replies by
//! direct reply-to have connections of their own, because what a peer sends there can close them.

use std::pin::{Pin, pin};
use std::sync::Arc;

use futures_util::stream::SelectAll;
use futures_util::{FutureExt as _, StreamExt as _};
use lapin::message::Delivery;
use lapin::options::{BasicCancelOptions, BasicConsumeOptions, BasicQosOptions};
use lapin::types::{FieldTable, ShortString};
use lapin::{Channel, Connection, Consumer};
use tokio::task::JoinSet;
use tokio_util::sync::DropGuard;
use tracing::error;

use super::Service;
use super::prefetch_window::{Permit, PrefetchWindow};
use super::replier::Replier;
use crate::broker::{self, Trouble};
use crate::procedure::Procedure;
use crate::server_url::AmqpUrl;
use crate::transport::Endpoint;

pub(super) struct Session {
    pub(super) url: AmqpUrl,
    /// Of both connections.
    pub(super) node: Endpoint,
    pub(super) consuming: Connection,
    pub(super) publishing: Arc<Connection>,
    pub(super) consumer: RequestConsumer,
    /// Whether there is a dead-letter queue that this login may read.
    pub(super) has_dead_letters: bool,
    pub(super) replier: Arc<Replier>,
    /// The broker's reason, if the queue exists with other properties than the worker would declare.
    pub(super) declared_otherwise: Option<String>,
    /// Cancels [`Replier::lost`] when the session ends, however it ends.
    pub(super) _ends: DropGuard,
}

impl Session {
    /// Serves each delivery in a task of its own until the session is lost; returns the reason. The prefetch limits
    /// the number of tasks, which outlive the session: a computation that has started is finished for the cache's sake.
    /// Cancel safe.
    pub(super) async fn serve_until_lost<P: Procedure>(
        &mut self,
        service: &Arc<Service<P>>,
        tasks: &mut JoinSet<()>,
    ) -> String {
        let mut events = Box::pin(self.publishing.events_listener());
        let counts = &*service.counters.broker;
        let (channel, prefetch) = (self.consumer.channel.clone(), self.consumer.prefetch);
        let mut silence = pin!(broker::silence(&self.consuming, &channel, prefetch));
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
                () = &mut silence => {
                    self.url.mark_silent(&self.node);
                    return format!("{} does not answer", self.node);
                }
                () = self.replier.lost.cancelled() => return self.replier.reason(),
            }
        }
    }

    /// Starts to serve a delivery.
    pub(super) fn take<P: Procedure>(
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
}

/// Logs a task that panicked. Its delivery stays unacked, and is redelivered when the session ends.
pub(super) fn log_panic(ended: Result<(), tokio::task::JoinError>) {
    if let Err(ended) = ended
        && ended.is_panic()
    {
        error!("a request's task panicked: the broker will redeliver the request");
    }
}

type Opening = Pin<Box<dyn Future<Output = lapin::Result<Consumer>> + Send>>;

/// Consumes the request queue: as many deliveries as the prefetch allows, and more in place of those that wait. Ends
/// with its channel.
///
/// A request that waits for another request's computation occupies the prefetch and no slot: a thousand callers of one
/// key would keep all other keys' requests in the queue. So when half of a prefetch window only waits, another window is
/// opened by a new consumer, since a prefetch applies to the consumers that start after it is set, see
/// <https://www.rabbitmq.com/docs/consumer-prefetch>. The former consumer is cancelled; its deliveries stay here until
/// they are settled.
pub(super) struct RequestConsumer {
    channel: Channel,
    queue: ShortString,
    prefetch: u16,
    current: Current,
    /// Cancelled, or about to be; they yield what was on its way.
    former: SelectAll<Consumer>,
    /// Why there will be no more deliveries, for the next call of [`next`](Self::next).
    ended: Option<String>,
    windows: PrefetchWindow,
}

/// The consumer of the newest window.
enum Current {
    Open(Consumer),
    Opening(Opening),
}

impl RequestConsumer {
    pub(super) async fn open(
        channel: Channel,
        queue: ShortString,
        prefetch: u16,
    ) -> lapin::Result<Self> {
        channel
            .basic_qos(prefetch, BasicQosOptions::default())
            .await?;
        Ok(Self {
            current: Current::Open(consume(&channel, queue.clone()).await?),
            channel,
            queue,
            prefetch,
            former: SelectAll::new(),
            ended: None,
            windows: PrefetchWindow::new(),
        })
    }

    /// Waits for the next deliveries and returns all that are ready, with their permits. Fails with the reason
    /// when there will be none. Cancel safe.
    pub(super) async fn next(&mut self) -> Result<Vec<(Delivery, Permit)>, String> {
        if let Some(reason) = self.ended.take() {
            return Err(reason);
        }
        loop {
            let first = tokio::select! {
                delivery = self.current.next() => match delivery? {
                    Some(delivery) => delivery,
                    None => continue,
                },
                Some(delivery) = self.former.next(), if !self.former.is_empty() => delivery,
                () = self.windows.half_waits(self.prefetch), if self.current.is_open() => {
                    self.open_next_window();
                    continue;
                }
            };
            let first = first.map_err(|error| broker::describe(&error))?;
            let mut deliveries = vec![(first, self.windows.permit())];
            while let Some(next) = self.current.next().now_or_never() {
                match next {
                    Ok(Some(Ok(delivery))) => deliveries.push((delivery, self.windows.permit())),
                    Ok(Some(Err(error))) => self.ended = Some(broker::describe(&error)),
                    Err(reason) => self.ended = Some(reason),
                    Ok(None) => {}
                }
                if self.ended.is_some() {
                    break;
                }
            }
            return Ok(deliveries);
        }
    }

    /// The windows of all deliveries that are held.
    pub(super) fn windows(&self) -> PrefetchWindow {
        self.windows.clone()
    }

    /// Starts a new consumer, and cancels the one of the newest window so far.
    fn open_next_window(&mut self) {
        let Current::Open(newest) = &self.current else {
            return;
        };
        let (channel, queue, tag) = (self.channel.clone(), self.queue.clone(), newest.tag());
        let opening = async move {
            let consumer = consume(&channel, queue).await?;
            channel
                .basic_cancel(tag, BasicCancelOptions::default())
                .await?;
            Ok(consumer)
        };
        let opening = Current::Opening(Box::pin(opening));
        if let Current::Open(newest) = std::mem::replace(&mut self.current, opening) {
            self.former.push(newest);
        }
        self.windows.start_next();
    }

    /// Stops consuming. Deliveries that had arrived before come out of [`drain`](Self::drain).
    pub(super) async fn cancel(&mut self) -> lapin::Result<()> {
        if let Current::Opening(opening) = &mut self.current {
            self.current = Current::Open(opening.await?);
        }
        let Current::Open(consumer) = &self.current else {
            return Ok(());
        };
        let tag = consumer.tag();
        self.channel
            .basic_cancel(tag, BasicCancelOptions::default())
            .await
    }

    /// After [`cancel`](Self::cancel): the next delivery that had arrived before.
    pub(super) async fn drain(&mut self) -> Option<(Delivery, Permit)> {
        let delivery = match (self.former.next().await, &mut self.current) {
            (Some(delivery), _) => delivery,
            (None, Current::Open(consumer)) => consumer.next().await?,
            (None, Current::Opening(_)) => return None,
        };
        let delivery = delivery.ok()?;
        Some((delivery, self.windows.permit()))
    }
}

impl Current {
    fn is_open(&self) -> bool {
        matches!(self, Self::Open(_))
    }

    /// The next delivery; `None` once a consumer that was opening is open. Fails with the reason when there will
    /// be none. Cancel safe.
    async fn next(&mut self) -> Result<Option<lapin::Result<Delivery>>, String> {
        match self {
            Self::Open(consumer) => match consumer.next().await {
                Some(delivery) => Ok(Some(delivery)),
                None => Err("the queue was deleted".to_owned()),
            },
            Self::Opening(opening) => {
                let opened = opening.await.map_err(|error| broker::describe(&error))?;
                *self = Self::Open(opened);
                Ok(None)
            }
        }
    }
}

/// Starts a consumer with the channel's prefetch.
pub(super) async fn consume(channel: &Channel, queue: ShortString) -> lapin::Result<Consumer> {
    let (tag, options) = (ShortString::default(), BasicConsumeOptions::default());
    channel
        .basic_consume(queue, tag, options, FieldTable::default())
        .await
}
