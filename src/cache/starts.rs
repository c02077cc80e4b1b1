//! How often a suspect request was begun, counted under `{KEY}:starts`.
//!
//! A start that is never taken back has ended its worker. So each is an obligation of whoever made
//! it: [`Start`] is taken back when it is dropped, however that comes about, unless the process is
//! gone by then.

use std::sync::Arc;
use std::time::Duration;

use redis::Cmd;
use tokio::time::{sleep, timeout};
use tokio_util::task::task_tracker::TaskTrackerToken;
use tracing::warn;

use super::connection::{Connection, Unanswered};
use super::{Budget, Cache, Key, connection};

/// How long it is remembered that a request was begun.
const STARTS_TTL_MILLIS: i64 = 60 * 60 * 1000;

/// To forget all starts, once the request is known to be innocent; and what a worker that ends waits
/// until its own are taken back. Longer than a cache budget: what is left behind may make an innocent
/// one look like poison an hour long, and suspects are few.
const FORGET: Duration = Duration::from_millis(500);

/// To take one start back. A lost connection is replaced by then, if Redis is there.
const TAKE_BACK: Duration = Duration::from_secs(3);

/// Between two attempts at it while Redis is away.
const PAUSE: Duration = Duration::from_millis(50);

/// One less, and none left behind that would never expire. INCRBY, as in counting: a login needs no
/// further right.
const ONE_LESS: &str = "local starts = tonumber(redis.call('GET', KEYS[1])) \
    if starts and starts > 1 then return redis.call('INCRBY', KEYS[1], -1) end \
    return redis.call('UNLINK', KEYS[1])";

/// A suspect request that was begun here. Dropped, it is taken back: who can do so has survived it,
/// which says nothing of other starts. The computation may have been cancelled, or be of no more use
/// to this session.
#[must_use]
#[derive(Debug)]
pub(crate) struct Start {
    name: String,
    connection: Arc<Connection>,
    /// For whoever waits until all are taken back.
    open: TaskTrackerToken,
    /// Whether Redis may have counted it.
    counted: bool,
}

impl Cache {
    /// Counts that a suspect request is about to be computed; how often that makes it. `None` if
    /// Redis cannot tell.
    pub(crate) async fn count_start(&self, key: &Key, budget: &mut Budget) -> (Start, Option<u64>) {
        // Made before Redis is asked, so that an attempt that is dropped leaves nothing behind.
        let mut start = Start {
            name: key.starts(),
            connection: Arc::clone(&self.connection),
            open: self.starts.token(),
            counted: self.connection.is_up(),
        };
        if !start.counted {
            return (start, None);
        }
        let mut commands = redis::pipe();
        commands
            .incr(&start.name, 1)
            .pexpire(&start.name, STARTS_TTL_MILLIS)
            .ignore();
        match self.run_all(&commands, budget).await {
            Ok((starts,)) => (start, Some(starts)),
            // It may be counted all the same, later than we could wait.
            Err(Unanswered::Unavailable) => (start, None),
            Err(Unanswered::Refused(_)) => {
                start.counted = false;
                (start, None)
            }
        }
    }

    /// The suspect was computed and has not ended its worker: all its starts are forgotten.
    pub(crate) async fn forget_starts(&self, mut start: Start) {
        let forget = Cmd::unlink(&start.name);
        match self.connection.run::<()>(&forget, FORGET).await {
            Ok(()) => start.counted = false,
            // Ours, at least, is taken back when it is dropped now.
            Err(Unanswered::Unavailable) => {}
            // Forgotten by itself in an hour. Who is never allowed to would call innocent requests
            // poison.
            Err(Unanswered::Refused(error)) => {
                if let Some(left_out) = self.refused_leases.happened() {
                    let (name, error) = (&start.name, connection::describe(&error));
                    warn!(name, error, left_out, "Redis refuses to forget a suspect");
                }
            }
        }
    }

    /// Waits until no start is left that could be taken back, or Redis has had its time for it:
    /// once.
    pub(crate) async fn starts_settled(&self) {
        if self.starts.close() {
            // Elapsed or not: what is left behind expires.
            let _ = timeout(FORGET, self.starts.wait()).await;
        }
    }
}

impl Drop for Start {
    fn drop(&mut self) {
        if !self.counted {
            return;
        }
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            return;
        };
        let mut one_less = redis::cmd("EVAL");
        one_less.arg(ONE_LESS).arg(1).arg(&self.name);
        let (connection, open) = (Arc::clone(&self.connection), self.open.clone());
        runtime.spawn(timeout(TAKE_BACK, async move {
            let _open = open;
            // A late answer is waited for, and not asked for again: that would take back two.
            while let Err(Unanswered::Unavailable) =
                connection.run::<()>(&one_less, TAKE_BACK).await
            {
                sleep(PAUSE).await;
            }
        }));
    }
}
