//! Starts connections: to one server, to the primary that Sentinels name, to a node of a cluster.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio_util::task::AbortOnDropHandle;

use super::keeper::Keeper;
use super::{Connection, Slot};
use crate::cache::redis::resp::Limits;
use crate::counts::{CacheCounts, ConnectionMonitor};
use crate::server_url::RedisUrl;

/// What holds for every connection.
#[derive(Debug, Clone, Copy)]
pub(in crate::cache::redis) struct Terms {
    /// Limits the wait for a command's answer, of the check of a fresh connection as of calls.
    pub(in crate::cache::redis) patience: Duration,
    /// Of what is read.
    pub(in crate::cache::redis) limits: Limits,
}

/// What the nodes of a cluster report to the task that keeps its map.
#[derive(Debug, Default)]
pub(in crate::cache::redis) struct Signals {
    /// A connection was made or lost.
    pub(in crate::cache::redis) changed: Notify,
    /// The map may be outdated.
    pub(in crate::cache::redis) outdated: Arc<Notify>,
}

impl Connection {
    /// Connects in the background to the one server, or to the primary that Sentinels name. Its state is
    /// written to `counts`; lookups read the slot instead. `ahead`: see [`ready`](Self::ready).
    pub(in crate::cache::redis) fn open(
        url: RedisUrl,
        terms: Terms,
        ahead: bool,
        counts: Arc<CacheCounts>,
    ) -> Self {
        let monitor = Arc::clone(&counts.redis);
        let slot = Slot::new(ahead);
        Self::keep(url, terms, slot, counts, monitor, None)
    }

    /// Connects in the background to one node of a cluster; commands wait for the first connection within
    /// their limit.
    pub(in crate::cache::redis) fn open_node(
        url: RedisUrl,
        terms: Terms,
        counts: Arc<CacheCounts>,
        signals: Arc<Signals>,
    ) -> Self {
        let slot = Slot::new(false);
        slot.replace();
        Self::keep(url, terms, slot, counts, Arc::default(), Some(signals))
    }

    fn keep(
        url: RedisUrl,
        terms: Terms,
        slot: Slot,
        counts: Arc<CacheCounts>,
        monitor: Arc<ConnectionMonitor>,
        of_cluster: Option<Arc<Signals>>,
    ) -> Self {
        let slot = Arc::new(slot);
        let keeper = Keeper::new(
            url,
            terms,
            Arc::clone(&slot),
            counts,
            Arc::clone(&monitor),
            of_cluster,
        );
        Self {
            slot,
            monitor,
            _keeper: AbortOnDropHandle::new(tokio::spawn(keeper.keep())),
        }
    }
}
