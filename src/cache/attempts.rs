//! Attempts at a redelivered request, counted under `{KEY}:starts`: a request that crashes every worker that
//! attempts it is poison.
//!
//! An attempt that is never taken back has ended its worker. So each is an obligation of its worker:
//! an [`Attempt`] is taken back when it is dropped, unless the process is gone by then.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};
use tokio_util::task::task_tracker::TaskTrackerToken;
use tracing::warn;

use super::store::{Refusal, Store, StoreError};
use super::{Budget, Cache, Key};

/// TTL of the counter.
const ATTEMPTS_TTL: Duration = Duration::from_secs(60 * 60);

/// Time to forget all attempts, once the request is known to be innocent; and how long a worker that ends
/// waits until its own are taken back. Longer than a cache budget: what is left behind may make an innocent
/// request look like poison for an hour, and redelivered requests are few.
const FORGET: Duration = Duration::from_millis(500);

/// Time to take one attempt back. A lost connection is replaced by then, if the store is there.
const TAKE_BACK: Duration = Duration::from_secs(3);

/// Pause between two tries at that while the store is away.
const PAUSE: Duration = Duration::from_millis(50);

/// One attempt at a redelivered request by this worker. Dropping it takes it back: the worker has survived
/// it, which says nothing about other attempts. The computation may have been cancelled, or its connection to the
/// broker may be lost.
#[must_use]
#[derive(Debug)]
pub(crate) struct Attempt {
    name: String,
    store: Arc<Store>,
    /// Keeps [`Cache::attempts_settled`] waiting until this is taken back.
    open: TaskTrackerToken,
    /// Whether the store may have counted it.
    counted: bool,
}

impl Cache {
    /// Counts an attempt at a redelivered request that is about to be computed; the number of attempts so
    /// far, with this one. `None` if the store cannot tell.
    pub(crate) async fn count_attempt(
        &self,
        key: &Key,
        budget: &mut Budget,
    ) -> (Attempt, Option<u64>) {
        // Made before the store is asked, so that an attempt that is dropped leaves nothing behind.
        let mut attempt = Attempt {
            name: key.attempts(),
            store: Arc::clone(&self.store),
            open: self.attempts.token(),
            counted: self.store.is_up(key),
        };
        if !attempt.counted {
            return (attempt, None);
        }
        let started = Instant::now();
        let counted = self
            .store
            .count_attempt(&attempt.name, ATTEMPTS_TTL, budget.0);
        let counted = counted.await;
        budget.spend(started);
        match counted {
            Ok(attempts) => (attempt, Some(attempts)),
            // It may be counted all the same, later than this could wait.
            Err(StoreError::Unavailable) => (attempt, None),
            Err(StoreError::Refused(_)) => {
                attempt.counted = false;
                (attempt, None)
            }
        }
    }

    /// Forgets all attempts at a request that was computed and has not ended its worker.
    pub(crate) async fn forget_attempts(&self, mut attempt: Attempt) {
        match self.store.forget_attempts(&attempt.name, FORGET).await {
            Ok(()) => attempt.counted = false,
            // This worker's attempt, at least, is taken back when it is dropped now.
            Err(StoreError::Unavailable) => {}
            // They expire in an hour. A worker that is never permitted to forget them would call innocent
            // requests poison.
            Err(StoreError::Refused(Refusal { reason, .. })) => {
                if let Some(left_out) = self.logs.refused_leases.happened() {
                    let name = &attempt.name;
                    let store = self.store.name();
                    warn!(
                        name,
                        error = reason,
                        left_out,
                        "{store} refuses to forget a suspect"
                    );
                }
            }
        }
    }

    /// Waits, once, until all attempts that can be taken back are, or the store has had its time for it.
    pub(crate) async fn attempts_settled(&self) {
        if self.attempts.close() {
            // Elapsed or not: what is left behind expires.
            let _ = timeout(FORGET, self.attempts.wait()).await;
        }
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        if !self.counted {
            return;
        }
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            return;
        };
        let (store, open) = (Arc::clone(&self.store), self.open.clone());
        let name = std::mem::take(&mut self.name);
        runtime.spawn(timeout(TAKE_BACK, async move {
            let _open = open;
            // A late answer is waited for, and not asked for again: that would take back two.
            while let Err(StoreError::Unavailable) = store.take_back_attempt(&name, TAKE_BACK).await
            {
                sleep(PAUSE).await;
            }
        }));
    }
}
