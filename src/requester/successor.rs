//! Opens the session that takes the place of the present one: at another node while the present one is silent, at the
//! preferred node once that is back.
//!
//! The present session goes on meanwhile. During an election its channel is the one that recovers by itself: the
//! broker tells it of the new leader.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, sleep};

use super::session::{Publication, Session};
use super::supervisor::Supervisor;
use crate::broker::{self, Backoff};
use crate::transport::Endpoint;

/// A node that has confirmed no request for so long, although it has some, is silent.
const SILENCE: Duration = Duration::from_secs(1);

/// How often a session is looked at.
const PERIOD: Duration = Duration::from_millis(250);

/// What is seen of a session while it serves. Clones share it.
#[derive(Debug, Clone, Default)]
pub(super) struct Watch(Arc<Mutex<Watched>>);

#[derive(Debug, Default)]
struct Watched {
    /// Since when the session waits for a confirm, without having had any.
    waits_since: Option<Instant>,
    /// Gets a copy of the next request.
    copy_to: Option<oneshot::Sender<Publication>>,
}

impl Watch {
    /// A request is about to be published.
    pub(super) fn publishing(&self, publication: &Publication) {
        let mut watched = self.lock();
        watched.waits_since.get_or_insert_with(Instant::now);
        if let Some(copy_to) = watched.copy_to.take() {
            // An error: it is not wanted any more.
            let _ = copy_to.send(publication.copy());
        }
    }

    /// A request was confirmed; whether others wait.
    pub(super) fn confirmed(&self, others_wait: bool) {
        self.lock().waits_since = others_wait.then(Instant::now);
    }

    /// A copy of the next request that is published. Never ends if there is none.
    pub(super) async fn next_publication(&self) -> Publication {
        let (copy_to, copy) = oneshot::channel();
        self.lock().copy_to = Some(copy_to);
        match copy.await {
            Ok(copy) => copy,
            Err(_closed) => std::future::pending().await,
        }
    }

    fn is_silent(&self) -> bool {
        let since = self.lock().waits_since;
        since.is_some_and(|since| since.elapsed() >= SILENCE)
    }

    fn lock(&self) -> MutexGuard<'_, Watched> {
        // Nothing panics while it is held.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Supervisor {
    /// Waits until a session should take the place of `present`, and opens it. Cancel safe.
    pub(super) async fn successor(&self, present: Place) -> Session {
        let mut move_at = Instant::now() + broker::move_pause();
        let mut standby = None;
        let mut opening = Box::pin(self.standby(&present));
        loop {
            tokio::select! {
                opened = &mut opening, if standby.is_none() => standby = Some(opened),
                () = sleep(PERIOD) => {}
            }
            if standby
                .as_ref()
                .is_some_and(|standby| !standby.is_connected())
            {
                standby = None;
                opening = Box::pin(self.standby(&present));
            }
            if present.watch.is_silent() {
                self.options.url.mark_silent(&present.node);
                if let Some(standby) = standby.take() {
                    return standby;
                }
                if let Some(next) = self.elsewhere(&present).await {
                    return next;
                }
            } else if !present.is_settled && Instant::now() >= move_at {
                if let Some(next) = self.at_preferred().await {
                    return next;
                }
                move_at = Instant::now() + broker::move_pause();
            }
        }
    }

    /// A session at the preferred node; `None` if that is not back, or partitioned from the others, or no callback queue
    /// can be declared yet.
    async fn at_preferred(&self) -> Option<Session> {
        let url = &self.options.url;
        let next = self.open(&url.preferred()).await.ok()?;
        let (node, reply_to) = (&next.place.node, &next.handle.reply_to);
        if next.place.is_settled
            && broker::is_seen_by_others(url, node, reply_to).await == Some(true)
        {
            url.mark_answering(node);
            return Some(next);
        }
        next.close().await;
        None
    }

    /// Waits until the queue's leader answers in a session; `false` once that is lost.
    async fn leader_answers(&self, session: &Session) -> bool {
        let connection = session.requests_connection();
        while connection.status().connected() {
            if broker::leader_answers(connection, &self.options.queue).await {
                return true;
            }
            sleep(PERIOD).await;
        }
        false
    }

    /// A session in which the queue's leader answers; `None` if the present one gets confirms again before.
    async fn elsewhere(&self, present: &Place) -> Option<Session> {
        let url = &self.options.url;
        let open = async {
            let mut backoff = Backoff::default();
            loop {
                // A leader that is cut off answers clients of its own node, and confirms nothing.
                let others = url.without(&present.node);
                let opened = match self.open(&others).await {
                    Err(_) => self.open(url).await,
                    opened => opened,
                };
                if let Ok(next) = opened {
                    if self.leader_answers(&next).await {
                        return next;
                    }
                    next.close().await;
                }
                backoff.failed();
                backoff.pause().await;
            }
        };
        let recovered = async {
            while present.watch.is_silent() {
                sleep(PERIOD).await;
            }
        };
        tokio::select! {
            next = open => Some(next),
            () = recovered => None,
        }
    }
}

/// Where a session is.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) node: Endpoint,
    /// Whether it is where it should be: at the preferred node, with a callback queue if it is to have one.
    pub(super) is_settled: bool,
    pub(super) watch: Watch,
}
