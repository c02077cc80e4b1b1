//! Sessions and nodes: both connections of a session are at one node, a silent node is left, and a session returns to
//! its preferred node once that is back.

use std::time::Duration;

use futures_util::future::join_all;
use lapin::options::{BasicQosOptions, QueueDeclareOptions};
use lapin::protocol::AMQPSoftError;
use lapin::types::{FieldTable, ShortString};
use lapin::{Channel, Connection};
use tokio::time::{sleep, timeout};

use super::errors::{is_access_refused, soft_error};
use super::{bounded_lapin, close, connect_to_one, declare_passively, open_channel};
use crate::error::Error;
use crate::server_url::AmqpUrl;
use crate::transport::Endpoint;

/// Time for the answer to [`leader_answers`].
const LEADER_DEADLINE: Duration = Duration::from_secs(1);

/// Time for [`is_partitioned`].
const SEEN_DEADLINE: Duration = Duration::from_secs(1);

/// How often a node is asked for a sign of life, and how long it may take.
const PROBE_PERIOD: Duration = Duration::from_secs(1);
const PROBE_DEADLINE: Duration = Duration::from_secs(2);

/// When a session that is not at its preferred node tries that again, in seconds.
const MOVE_PAUSE: std::ops::Range<f32> = 20.0..50.0;

/// Two connections to one node: what one of them carries is answered on the other, so that a node that is lost or
/// silent must not hold up half of a session.
#[derive(Debug)]
pub(crate) struct Pair {
    pub(crate) consuming: Connection,
    pub(crate) publishing: Connection,
    pub(crate) node: Endpoint,
}

impl Pair {
    /// Connects and logs in to the first node that accepts, twice.
    pub(crate) async fn connect(
        url: &AmqpUrl,
        consuming: &str,
        publishing: &str,
    ) -> Result<Self, Error> {
        let (consuming, node) = connect_to_one(url, consuming).await?;
        let (publishing, _) = connect_to_one(&url.at(&node), publishing).await?;
        Ok(Self {
            consuming,
            publishing,
            node,
        })
    }
}

/// The pause before a session tries to return to its preferred node. Random, so that a fleet does not return at one
/// moment.
pub(crate) fn move_pause() -> Duration {
    let (from, to) = (MOVE_PAUSE.start, MOVE_PAUSE.end);
    Duration::from_secs_f32(from + (to - from) * fastrand::f32())
}

/// Whether another node knows an exclusive queue that was just declared at `node`: `Some(true)` if one does,
/// `Some(false)` if none does, `None` if not all of them say.
///
/// A node that was frozen for longer than `net_ticktime` may answer as before and yet be partitioned from the others:
/// what is declared there, they do not see, and their replies do not reach it. It stays so until it is restarted. It
/// also sees nothing of theirs, so that one node's word says nothing against another.
pub(crate) async fn is_seen_by_others(
    url: &AmqpUrl,
    node: &Endpoint,
    queue: &ShortString,
) -> Option<bool> {
    let others = url.without(node).endpoints();
    let asked = others.iter().map(|other| is_seen_by(url.at(other), queue));
    let said = join_all(asked).await;
    if said.contains(&Some(true)) {
        return Some(true);
    }
    let none_sees = !said.is_empty() && said.iter().all(|seen| *seen == Some(false));
    none_sees.then_some(false)
}

async fn is_seen_by(other: AmqpUrl, queue: &ShortString) -> Option<bool> {
    let (other, _) = connect_to_one(&other, "check").await.ok()?;
    let declared = bounded_lapin(declare_passively(&other, queue)).await;
    close(&other).await;
    let error = declared.err()?;
    match soft_error(&error) {
        // Newer brokers require a right to look at a queue: without it nothing more can be learnt.
        Some(AMQPSoftError::RESOURCELOCKED | AMQPSoftError::ACCESSREFUSED) => Some(true),
        Some(AMQPSoftError::NOTFOUND) => Some(false),
        _ => None,
    }
}

/// Whether a node is known to be partitioned from the others. `false` if that cannot be found out within a moment: the
/// login may not declare queues, or a node that is silent holds up a declaration.
pub(crate) async fn is_partitioned(url: &AmqpUrl, node: &Endpoint) -> bool {
    let at = url.at(node);
    let seen = timeout(SEEN_DEADLINE, is_seen(url, &at)).await;
    matches!(seen, Ok(Some(false)))
}

/// Whether the others see what is declared at a node, the only one of `at`; `None` if that cannot be found out.
async fn is_seen(url: &AmqpUrl, at: &AmqpUrl) -> Option<bool> {
    let (connection, node) = connect_to_one(at, "check").await.ok()?;
    let declared = bounded_lapin(declare_exclusive(&connection)).await;
    let seen = match declared {
        Ok((_channel, queue)) => is_seen_by_others(url, &node, &queue).await,
        Err(_) => None,
    };
    close(&connection).await;
    seen
}

/// Waits until a session that is elsewhere should return to its preferred node: it can be reached, and is not partitioned
/// from the others. Never ends for a login that may not declare queues, and so cannot find that out. Cancel safe.
pub(crate) async fn preferred_is_back(url: &AmqpUrl, present: &Endpoint) {
    if url.prefers(present) {
        return std::future::pending().await;
    }
    loop {
        sleep(move_pause()).await;
        let preferred = url.preferred();
        if is_seen(url, &preferred).await == Some(true) {
            preferred
                .endpoints()
                .iter()
                .for_each(|node| url.mark_answering(node));
            return;
        }
    }
}

/// Declares an exclusive queue with a name of the broker's, on a channel of its own.
pub(crate) async fn declare_exclusive(
    connection: &Connection,
) -> lapin::Result<(Channel, ShortString)> {
    let channel = open_channel(connection).await?;
    let exclusive = QueueDeclareOptions {
        exclusive: true,
        ..QueueDeclareOptions::default()
    };
    let queue = channel
        .queue_declare(ShortString::default(), exclusive, FieldTable::default())
        .await?;
    Ok((channel, queue.name().clone()))
}

/// Whether the replica that leads a quorum queue is known and answers. `false` during an election, and for an empty
/// queue without consumers.
///
/// RabbitMQ asks the leader for at most 250 ms, and reports an empty queue without consumers if it has no answer.
pub(crate) async fn leader_answers(connection: &Connection, queue: &ShortString) -> bool {
    match timeout(LEADER_DEADLINE, declare_passively(connection, queue)).await {
        Ok(Ok(queue)) => queue.consumer_count() > 0 || queue.message_count() > 0,
        // Newer brokers require a right: without it nothing can be learnt.
        Ok(Err(error)) => is_access_refused(&error),
        Err(_elapsed) => false,
    }
}

/// Waits until a node does not answer a connection, and not because of an alarm. Cancel safe.
///
/// `channel` is one of the connection, with `prefetch` as its prefetch: setting it again changes nothing.
pub(crate) async fn silence(connection: &Connection, channel: &Channel, prefetch: u16) {
    loop {
        sleep(PROBE_PERIOD).await;
        let probe = channel.basic_qos(prefetch, BasicQosOptions::default());
        let is_silent = timeout(PROBE_DEADLINE, probe).await.is_err();
        if is_silent && !connection.status().blocked() {
            return;
        }
    }
}
