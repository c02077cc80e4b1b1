//! Looking at the servers. Every look ends by itself: the library's have deadlines.

use std::time::{Duration, Instant};

use rpcache::fleet::WorkerStatus;
use rpcache::inspect::ServerStats;
use rpcache::inspect::{QueueDepths, QueueWatch};
use rpcache::{Cache, Error};
use tokio::sync::mpsc::Sender;
use tokio::time::{MissedTickBehavior, interval};

/// Where to look.
pub(super) struct Sources {
    pub(super) cache: Cache,
    pub(super) queues: QueueWatch,
}

/// What Redis says of itself; `None`: not to this login.
pub(super) type Server = Result<Option<ServerStats>, Error>;

/// What Redis shows. It counts our own looks for workers as lookups, most of them misses, so it is
/// asked before and after: what lies between one look's end and the next one's start is others'.
pub(super) struct RedisLook {
    pub(super) before: (Instant, Server),
    pub(super) workers: Result<Vec<WorkerStatus>, Error>,
    pub(super) after: (Instant, Server),
}

/// One look.
pub(super) enum News {
    Redis(Box<RedisLook>),
    Queues(Result<QueueDepths, Error>),
}

pub(super) async fn look_at_redis(cache: &Cache) -> RedisLook {
    let server = async || (Instant::now(), cache.server_stats().await);
    let before = server().await;
    let workers = match &before.1 {
        // It would say the same, later.
        Err(error) => Err(error.clone()),
        Ok(_) => cache.workers().await,
    };
    let after = match &before.1 {
        Err(_) => before.clone(),
        Ok(_) => server().await,
    };
    RedisLook {
        before,
        workers,
        after,
    }
}

/// Looks again and again, until nobody listens.
pub(super) async fn watch(
    every: Duration,
    news: Sender<News>,
    mut look: impl AsyncFnMut() -> News,
) {
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if news.send(look().await).await.is_err() {
            break;
        }
    }
}
