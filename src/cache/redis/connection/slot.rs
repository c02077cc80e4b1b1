//! How the slot is filled and emptied, and how calls wait for its next connection.

use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use tokio::time::{Instant, timeout_at};

use super::{Breaker, Health, Link, Slot};
use crate::transport::Endpoint;

impl Link {
    pub(super) fn new(
        connection: MultiplexedConnection,
        endpoint: Endpoint,
        patience: Duration,
        health: Arc<Health>,
    ) -> Self {
        Self {
            connection,
            endpoint,
            breaker: Breaker::default(),
            patience,
            health,
            server: OnceLock::new(),
            one_by_one: AtomicBool::new(false),
        }
    }

    pub(super) fn is_down(&self) -> bool {
        self.health.down.is_cancelled()
    }
}

impl Slot {
    pub(super) fn new(ahead: bool) -> Self {
        Self {
            ahead,
            ..Self::default()
        }
    }

    pub(super) fn link(&self) -> Option<Arc<Link>> {
        self.link.load_full()
    }

    pub(super) fn is_filled(&self) -> bool {
        self.link.load().is_some() || self.replacing.load(Ordering::SeqCst)
    }

    pub(super) fn fill(&self, link: Arc<Link>) {
        self.link.store(Some(link));
        self.replacing.store(false, Ordering::SeqCst);
        self.changed.notify_waiters();
    }

    /// Empties it while a new connection is being made: commands wait.
    pub(super) fn replace(&self) {
        self.replacing.store(true, Ordering::SeqCst);
        self.link.store(None);
    }

    /// Empties it until further notice: commands fail at once.
    pub(super) fn empty(&self) {
        self.link.store(None);
        self.replacing.store(false, Ordering::SeqCst);
        self.changed.notify_waiters();
    }

    /// Waits for the connection that replaces `lost`, or fills an empty slot; `None`: there is none by the
    /// deadline, or none is being made.
    pub(super) async fn next(
        &self,
        lost: Option<&Arc<Link>>,
        deadline: Instant,
    ) -> Option<Arc<Link>> {
        let is_next = |link: &Arc<Link>| lost.is_none_or(|lost| !Arc::ptr_eq(lost, link));
        let next = async {
            loop {
                // Made before looking, so that no change is missed.
                let changed = self.changed.notified();
                match self.link() {
                    Some(link) if is_next(&link) => return Some(link),
                    // The keeper will notice that it was lost.
                    Some(_) => {}
                    None if self.replacing.load(Ordering::SeqCst) => {}
                    // It may have been filled in between.
                    None => return self.link().filter(is_next),
                }
                changed.await;
            }
        };
        timeout_at(deadline, next).await.ok().flatten()
    }

    /// Lets calls that may go ahead use the first connection while it is being checked.
    pub(super) fn may_be_used_unchecked(&self, link: &Arc<Link>) {
        if self.ahead && !self.tried.is_cancelled() {
            self.fill(Arc::clone(link));
            self.tried.cancel();
        }
    }

    /// Notes that the first attempt to connect has ended.
    pub(super) fn was_tried(&self) {
        self.tried.cancel();
    }

    /// Waits for the end of the first attempt to connect, or until calls may go ahead of it.
    pub(super) async fn tried(&self) {
        self.tried.cancelled().await;
    }
}
