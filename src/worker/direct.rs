//! Replies by direct reply-to, over connections of their own: losing one does not lose the session.
//!
//! RabbitMQ 3.10 closes the connection that publishes to a name that it cannot resolve, such as a forged one or
//! one of a node that has left the cluster; it ignores a name that is only out of date. A name says which node its
//! caller is connected to, see [`Group`]: once a reply to one name of a group has arrived, no other name of that
//! group can close a connection. So all proven groups share one connection, opened at the first such reply. The
//! first name of any other group goes alone over a connection on probation, one group at a time; a group that
//! closes that connection is not tried again for a while.

mod group;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use lapin::options::{BasicConsumeOptions, BasicPublishOptions, ConfirmSelectOptions};
use lapin::types::{FieldTable, ShortString};
use lapin::{BasicProperties, Connection};
use tokio::sync::Mutex as AsyncMutex;
use tokio::time::{Instant, sleep_until};
use tracing::warn;
use uuid::Uuid;

use self::group::{Group, GroupStatus, Groups};
use super::lifo_lock::LifoLock;
use super::replier::{Sent, UnconfirmedBytes, send};
use crate::broker::{self, Backoff, Message, Publisher};
use crate::error::{Error, quote};
use crate::log_throttle::LogThrottle;
use crate::server_url::AmqpUrl;

/// The pause after a name that closed the connection on probation: each costs a connection here and a crashed
/// channel at the broker.
const PROBATION_PAUSE: Duration = Duration::from_millis(100);

/// A name of a proven group that was in flight this often when the connection was closed is tried alone.
const MAX_CLOSED: u32 = 2;

const DIRECT: &str = "amq.rabbitmq.reply-to";

/// The connections for direct reply-to of one session, and what is known of the groups.
#[derive(Debug)]
pub(super) struct DirectReplies {
    url: AmqpUrl,
    /// The publisher for proven groups.
    proven: ArcSwapOption<Publisher>,
    connecting: AsyncMutex<()>,
    groups: Mutex<Groups>,
    probation: LifoLock<Probation>,
    undeliverable: LogThrottle,
    unconnected: LogThrottle,
}

/// The connection on probation, held by one name at a time.
#[derive(Debug, Default)]
struct Probation {
    publisher: Option<Publisher>,
    /// The earliest time for the next name.
    not_before: Option<Instant>,
}

/// What became of a reply on probation.
enum Trial {
    Sent(Sent),
    /// It closed its connection.
    Refused,
    /// Too many others came after it: not published.
    GivenUp,
}

impl DirectReplies {
    pub(super) fn new(url: AmqpUrl) -> Self {
        Self {
            url,
            proven: ArcSwapOption::empty(),
            connecting: AsyncMutex::default(),
            groups: Mutex::default(),
            probation: LifoLock::default(),
            undeliverable: LogThrottle::default(),
            unconnected: LogThrottle::default(),
        }
    }

    /// Publishes a reply and waits for its confirm. Connects again until that works. `on_wait` is called before the
    /// reply waits for a connection or for the names of other groups.
    ///
    /// Cancel safe: the reply may have been published.
    pub(super) async fn publish(
        &self,
        message: Message<'_>,
        unconfirmed: &UnconfirmedBytes,
        on_wait: impl Fn(),
    ) -> Sent {
        let (mut backoff, mut closed) = (Backoff::default(), 0);
        loop {
            // Connecting also learns the group of this worker's own node.
            let publisher = self.proven(&on_wait).await;
            let name = message.to.as_str();
            let (group, status) = self.groups().look_up(name, closed >= MAX_CLOSED);
            match status {
                GroupStatus::Undeliverable => return self.undeliverable(message.to),
                GroupStatus::OnProbation(outcome) => {
                    on_wait();
                    let mut sent = None;
                    let (trial, keep) = (self.try_out(&group, message), &mut sent);
                    // One name is tried for the whole group.
                    let given_up = outcome.get_or_init(async move || match trial.await {
                        Trial::Sent(sent) => {
                            *keep = Some(sent);
                            false
                        }
                        Trial::Refused => false,
                        Trial::GivenUp => true,
                    });
                    let given_up = *given_up.await;
                    match sent {
                        Some(sent) => return sent,
                        None if given_up => return self.undeliverable(message.to),
                        None => continue,
                    }
                }
                GroupStatus::Proven => {
                    let _permit = unconfirmed.acquire(message.body.len()).await;
                    match send(&publisher, message).await {
                        Ok(sent) => return sent,
                        // Which of the names in flight closed it is not known: each group is tried again.
                        Err(error) if broker::is_closed_over_message(&error) => {
                            closed += 1;
                            self.groups().doubt(&group);
                        }
                        Err(_lost) => {}
                    }
                }
            }
            backoff.failed();
            backoff.pause().await;
        }
    }

    /// Closes the connection for proven groups, within a second.
    pub(super) async fn close(&self) {
        if let Some(publisher) = self.proven.swap(None) {
            broker::close(publisher.connection()).await;
        }
    }

    /// Publishes over the connection on probation, where no name of another group is in flight.
    async fn try_out(&self, group: &Group, message: Message<'_>) -> Trial {
        let Some(mut probation) = self.probation.lock().await else {
            self.groups().forget(group);
            return Trial::GivenUp;
        };
        if let Some(not_before) = probation.not_before.take() {
            sleep_until(not_before).await;
        }
        let mut backoff = Backoff::default();
        loop {
            let kept = probation.publisher.take();
            let publisher = match kept.filter(|kept| kept.connection().status().connected()) {
                Some(publisher) => Ok(publisher),
                None => connect(&self.url.with_small_frames()).await,
            };
            match publisher {
                Ok(publisher) => match send(&publisher, message).await {
                    Ok(sent) => {
                        probation.publisher = Some(publisher);
                        // A reply that is too large was not routed, and proves nothing.
                        match sent {
                            Sent::Settled => self.groups().prove(group),
                            Sent::Refused(_) => self.groups().forget(group),
                        }
                        return Trial::Sent(sent);
                    }
                    Err(error) if broker::is_closed_over_message(&error) => {
                        probation.not_before = Some(Instant::now() + PROBATION_PAUSE);
                        self.groups().refuse(group);
                        return Trial::Refused;
                    }
                    Err(_lost) => {}
                },
                Err(error) => self.log_unconnected(&error),
            }
            backoff.failed();
            backoff.pause().await;
        }
    }

    /// The connected publisher for proven groups. Connects until that works.
    async fn proven(&self, on_wait: impl Fn()) -> Arc<Publisher> {
        if let Some(publisher) = self.connected() {
            return publisher;
        }
        on_wait();
        let _connecting = self.connecting.lock().await;
        let mut backoff = Backoff::default();
        loop {
            if let Some(publisher) = self.connected() {
                return publisher;
            }
            match self.connect_proven().await {
                Ok(publisher) => self.proven.store(Some(Arc::new(publisher))),
                Err(error) => {
                    self.log_unconnected(&error);
                    backoff.failed();
                    backoff.pause().await;
                }
            }
        }
    }

    fn connected(&self) -> Option<Arc<Publisher>> {
        let publisher = self.proven.load_full();
        publisher.filter(|publisher| publisher.connection().status().connected())
    }

    async fn connect_proven(&self) -> Result<Publisher, Error> {
        let publisher = connect(&self.url).await?;
        let connection = publisher.connection();
        let own = match broker::bounded_lapin(own_name(connection)).await {
            // A broker that does not return the message.
            Err(_) if connection.status().connected() => None,
            own => own.map_err(|error| broker::translate(&self.url, &error))?,
        };
        self.groups()
            .connected_as(own.as_ref().map(ShortString::as_str));
        Ok(publisher)
    }

    fn undeliverable(&self, to: &ShortString) -> Sent {
        if let Some(left_out) = self.undeliverable.happened() {
            let reply_to = quote(to.as_str().as_bytes());
            warn!(
                reply_to,
                left_out, "dropped a reply: RabbitMQ cannot resolve its direct reply-to name"
            );
        }
        Sent::Settled
    }

    fn log_unconnected(&self, error: &Error) {
        if let Some(left_out) = self.unconnected.happened() {
            warn!(
                left_out,
                "cannot connect for replies by direct reply-to: {error}; trying again until it works"
            );
        }
    }

    fn groups(&self) -> MutexGuard<'_, Groups> {
        // Nothing panics while it is held.
        self.groups.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn connect(url: &AmqpUrl) -> Result<Publisher, Error> {
    let connection = broker::connect(url, "worker direct replies").await?;
    broker::bounded(url, Publisher::open(Arc::new(connection))).await
}

/// Learns the direct reply-to name of a channel of this connection: the broker puts it in place of the short name
/// in every message that the channel publishes, and so in the message that it returns as unroutable.
async fn own_name(connection: &Connection) -> lapin::Result<Option<ShortString>> {
    let channel = broker::open_channel(connection).await?;
    let no_ack = BasicConsumeOptions {
        no_ack: true,
        ..BasicConsumeOptions::default()
    };
    let (direct, tag) = (ShortString::from(DIRECT), ShortString::default());
    // Dropping the channel ends it.
    let _replies = channel
        .basic_consume(direct.clone(), tag, no_ack, FieldTable::default())
        .await?;
    channel
        .confirm_select(ConfirmSelectOptions::default())
        .await?;
    let mandatory = BasicPublishOptions {
        mandatory: true,
        ..BasicPublishOptions::default()
    };
    let missing_queue = ShortString::from(format!("rpcache.nobody.{}", Uuid::new_v4().simple()));
    let properties = BasicProperties::default().with_reply_to(direct);
    let confirmed = channel
        .basic_publish(
            ShortString::default(),
            missing_queue,
            mandatory,
            b"",
            properties,
        )
        .await?
        .await?;
    let returned = confirmed.take_message();
    Ok(returned.and_then(|returned| returned.delivery.properties.reply_to().clone()))
}
