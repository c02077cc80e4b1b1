//! Replies by direct reply-to, over connections that may be lost without losing the session.
//!
//! RabbitMQ 3.10 closes the connection that publishes to a name it cannot resolve, such as a forged one or
//! one of a node that has left the cluster; a name that is only out of date is ignored. A name says which
//! node its caller is connected to, see [`Group`]: once one reply to a group has arrived, no other name of
//! that group can close a connection. So groups that are proven share one connection, opened at the first
//! such reply. The first name of any other group goes alone over a connection on probation, one group at a
//! time, and what closes that is not tried again for a while.

mod group;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use lapin::options::{BasicConsumeOptions, BasicPublishOptions, ConfirmSelectOptions};
use lapin::types::{FieldTable, ShortString};
use lapin::{BasicProperties, Connection};
use tokio::sync::Mutex as AsyncMutex;
use tokio::time::{Instant, sleep, sleep_until};
use tracing::warn;
use uuid::Uuid;

use self::group::{Group, Groups, Standing};
use super::post::{Room, Sent, send};
use super::turns::Turns;
use crate::broker::{self, Message, Publisher};
use crate::error::{Error, quote};
use crate::seldom::Seldom;
use crate::server_url::AmqpUrl;

/// Between a name that closed its connection and the next one on probation: each costs a connection here
/// and a crashed channel at the broker.
const PROBATION_PAUSE: Duration = Duration::from_millis(100);

/// A name of a proven group that was in flight so often when the connection was closed is tried alone.
const MAX_CLOSED: u32 = 2;

const DIRECT: &str = "amq.rabbitmq.reply-to";

/// The connections for direct reply-to of one session, and what is known of the names.
#[derive(Debug)]
pub(super) struct DirectReplies {
    url: AmqpUrl,
    /// For proven groups.
    proven: ArcSwapOption<Publisher>,
    connecting: AsyncMutex<()>,
    groups: Mutex<Groups>,
    probation: Turns<Probation>,
    undeliverable: Seldom,
    unconnected: Seldom,
}

/// The connection on probation, held by one name at a time.
#[derive(Debug, Default)]
struct Probation {
    publisher: Option<Publisher>,
    /// The earliest time for the next name.
    not_before: Option<Instant>,
}

/// What became of a name on probation.
enum Tried {
    Sent(Sent),
    /// It closed its connection.
    Refused,
    /// Too many others came after it.
    GivenUp,
}

impl DirectReplies {
    pub(super) fn new(url: AmqpUrl) -> Self {
        Self {
            url,
            proven: ArcSwapOption::empty(),
            connecting: AsyncMutex::default(),
            groups: Mutex::default(),
            probation: Turns::default(),
            undeliverable: Seldom::default(),
            unconnected: Seldom::default(),
        }
    }

    /// Publishes a reply and waits for its confirm; connects again for as long as it takes. `waits` is
    /// called before it waits for a connection or for names of other groups.
    ///
    /// Cancel safe: the reply may have been published.
    pub(super) async fn publish(
        &self,
        message: Message<'_>,
        room: &Room,
        waits: impl Fn(),
    ) -> Sent {
        let (mut attempt, mut closed) = (0, 0);
        loop {
            // Connecting tells which names this broker gives out.
            let publisher = self.proven(&waits).await;
            let name = message.to.as_str();
            let (group, standing) = self.groups().look_up(name, closed >= MAX_CLOSED);
            match standing {
                Standing::Undeliverable => return self.undeliverable(message.to),
                Standing::OnProbation(outcome) => {
                    waits();
                    let mut sent = None;
                    let (tried, keep) = (self.try_out(&group, message), &mut sent);
                    // One name of the group is tried for all of them.
                    let given_up = outcome.get_or_init(async move || match tried.await {
                        Tried::Sent(sent) => {
                            *keep = Some(sent);
                            false
                        }
                        Tried::Refused => false,
                        Tried::GivenUp => true,
                    });
                    let given_up = *given_up.await;
                    match sent {
                        Some(sent) => return sent,
                        None if given_up => return self.undeliverable(message.to),
                        None => continue,
                    }
                }
                Standing::Proven => {
                    let _room = room.hold(message.body.len()).await;
                    match send(&publisher, message).await {
                        Ok(sent) => return sent,
                        // Which of the names in flight it was is not known: each group is tried again.
                        Err(error) if broker::is_closed_over_message(&error) => {
                            closed += 1;
                            self.groups().doubt(&group);
                        }
                        Err(_lost) => {}
                    }
                }
            }
            attempt += 1;
            sleep(broker::redial_pause(attempt)).await;
        }
    }

    /// Closes the connection for proven groups, within a second.
    pub(super) async fn close(&self) {
        if let Some(publisher) = self.proven.swap(None) {
            broker::close(publisher.connection()).await;
        }
    }

    /// Publishes where nothing of other groups is in flight.
    async fn try_out(&self, group: &Group, message: Message<'_>) -> Tried {
        let Some(mut probation) = self.probation.enter().await else {
            self.groups().forget(group);
            return Tried::GivenUp;
        };
        if let Some(not_before) = probation.not_before.take() {
            sleep_until(not_before).await;
        }
        let mut attempt = 0;
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
                        // What was too large was not routed, and proves nothing.
                        match sent {
                            Sent::Settled => self.groups().prove(group),
                            Sent::Refused(_) => self.groups().forget(group),
                        }
                        return Tried::Sent(sent);
                    }
                    Err(error) if broker::is_closed_over_message(&error) => {
                        probation.not_before = Some(Instant::now() + PROBATION_PAUSE);
                        self.groups().refuse(group);
                        return Tried::Refused;
                    }
                    Err(_lost) => {}
                },
                Err(error) => self.log_unconnected(&error),
            }
            attempt += 1;
            sleep(broker::redial_pause(attempt)).await;
        }
    }

    /// The publisher for proven groups, connected.
    async fn proven(&self, waits: impl Fn()) -> Arc<Publisher> {
        if let Some(publisher) = self.connected() {
            return publisher;
        }
        waits();
        let _connecting = self.connecting.lock().await;
        let mut attempt = 0;
        loop {
            if let Some(publisher) = self.connected() {
                return publisher;
            }
            match self.connect_proven().await {
                Ok(publisher) => self.proven.store(Some(Arc::new(publisher))),
                Err(error) => {
                    self.log_unconnected(&error);
                    attempt += 1;
                    sleep(broker::redial_pause(attempt)).await;
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
            // Not told, as by a broker of another kind.
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
                "no connection for replies by direct reply-to: {error}; trying again until it works"
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

/// The direct reply-to name of a channel of this connection. It stands in place of the short name in all
/// that the channel publishes, and so in what is returned to it.
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
    let nobody = ShortString::from(format!("rpcache.nobody.{}", Uuid::new_v4().simple()));
    let properties = BasicProperties::default().with_reply_to(direct);
    let confirmed = channel
        .basic_publish(ShortString::default(), nobody, mandatory, b"", properties)
        .await?
        .await?;
    let returned = confirmed.take_message();
    Ok(returned.and_then(|returned| returned.delivery.properties.reply_to().clone()))
}
