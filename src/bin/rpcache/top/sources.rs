//! Polls the servers. Every poll ends by itself: the library's operations have deadlines.

use std::time::{Duration, Instant};

use rpcache::fleet::WorkerStatus;
use rpcache::inspect::ServerStats;
use rpcache::inspect::{QueueDepths, QueueWatch};
use rpcache::{Cache, Error};
use tokio::sync::mpsc::Sender;
use tokio::time::{MissedTickBehavior, interval};

/// The connections to the servers.
pub(super) struct Sources {
    pub(super) cache: Cache,
    pub(super) queues: QueueWatch,
}

/// The numbers of Redis; `None` if this user lacks the right.
pub(super) type Server = Result<Option<ServerStats>, Error>;

/// The result of polling Redis. Redis counts our own lookups of workers, too, most of them as misses. So its numbers are
/// read before and after: the difference between the end of one poll and the start of the next has others' lookups only.
pub(super) struct RedisPoll {
    pub(super) before: (Instant, Server),
    pub(super) workers: Result<Vec<WorkerStatus>, Error>,
    pub(super) after: (Instant, Server),
}

/// The result of one poll.
pub(super) enum Polled {
    Redis(Box<RedisPoll>),
    Queues(Result<QueueDepths, Error>),
}

/// Polls Redis and the workers once.
pub(super) async fn poll_redis(cache: &Cache) -> RedisPoll {
    let server = async || (Instant::now(), cache.server_stats().await);
    let before = server().await;
    let workers = match &before.1 {
        // A second command would fail in the same way, only later.
        Err(error) => Err(error.clone()),
        Ok(_) => cache.workers().await,
    };
    let after = match &before.1 {
        Err(_) => before.clone(),
        Ok(_) => server().await,
    };
    RedisPoll {
        before,
        workers,
        after,
    }
}

/// Polls at an interval, until the receiver is dropped.
pub(super) async fn watch(
    every: Duration,
    results: Sender<Polled>,
    mut poll: impl AsyncFnMut() -> Polled,
) {
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if results.send(poll().await).await.is_err() {
            break;
        }
    }
}
