//! The keeper task: fills the slot while Redis is there, replaces a connection that was lost or whose server
//! cannot serve, and logs one line a change.

use std::sync::Arc;
use std::time::Duration;

use bb8::{Pool, PooledConnection};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until};
use tracing::{debug, info, warn};

use super::Slot;
use super::health::Unfit;
use super::manager::{CONNECT_DEADLINE, Failures, Manager};
use super::server::Role;
use crate::cache::redis::errors::{describe, unreachable};
use crate::cache::redis::resp::Limits;
use crate::counts::{CacheCounts, ConnectionState};
use crate::error::Error;
use crate::server_url::RedisUrl;

/// Pause between two attempts to connect, plus up to a half of it at random.
const REDIAL_PAUSE: Duration = Duration::from_secs(1);

/// How long a server that does not report its role has to serve, or a node of a cluster has to redirect
/// nothing, until it counts as the right one.
const TRIAL: Duration = Duration::from_secs(10);

type Pooled = PooledConnection<'static, Manager>;

/// Keeps one connection, until it is dropped.
pub(super) struct Keeper {
    url: RedisUrl,
    slot: Arc<Slot>,
    counts: Arc<CacheCounts>,
    /// Or why no connection can ever be made.
    pool: Result<Pool<Manager>, Error>,
    failures: mpsc::UnboundedReceiver<Error>,
    /// The earliest time of the next attempt to connect.
    next_dial: Instant,
    /// Whether the log says that the server cannot serve.
    warned: bool,
    /// Whether the connection replaces one to a server that could not serve, and it is not certain yet
    /// that this one can.
    on_trial: bool,
}

/// How a connection's time in the slot ends.
enum End {
    /// By another connection.
    Replaced(Pooled),
    Gone(Error),
}

impl Keeper {
    pub(super) fn new(
        url: RedisUrl,
        patience: Duration,
        limits: Limits,
        slot: Arc<Slot>,
        counts: Arc<CacheCounts>,
    ) -> Self {
        let (failed, failures) = mpsc::unbounded_channel();
        let pool = match Manager::new(&url, patience, limits, Arc::clone(&slot)) {
            Ok(manager) => Ok(Pool::builder()
                // One in the slot, and one that is to replace it.
                .max_size(2)
                .connection_timeout(CONNECT_DEADLINE * 2)
                .retry_connection(false)
                .test_on_check_out(false)
                .max_lifetime(None)
                .idle_timeout(None)
                .error_sink(Box::new(Failures(failed)))
                .build_unchecked(manager)),
            Err(error) => Err(unreachable(&url, describe(&error))),
        };
        Self {
            url,
            slot,
            counts,
            pool,
            failures,
            next_dial: Instant::now(),
            warned: false,
            on_trial: false,
        }
    }

    pub(super) async fn keep(mut self) {
        loop {
            let error = match self.dial().await {
                Ok(link) => self.serve(link).await,
                Err(error) => error,
            };
            self.slot.empty();
            // One reason is reported at a time.
            self.counts.refusals.set_server(None);
            (self.warned, self.on_trial) = (false, false);
            let reason = error.to_string();
            if !matches!(self.counts.redis.down(error), ConnectionState::Down(_)) {
                warn!("{reason}; calls go on without the cache");
            }
            self.slot.was_tried();
            if self.pool.is_err() {
                return;
            }
            sleep_until(self.next_dial).await;
        }
    }

    /// Keeps this connection in the slot, and those that replace it, until there is none: why.
    async fn serve(&mut self, mut link: Pooled) -> Error {
        loop {
            self.slot.fill(Arc::clone(&*link));
            if matches!(self.counts.redis.up(), ConnectionState::Down(_)) {
                info!("Redis at {} is back", self.url);
            }
            self.slot.was_tried();
            match self.end_of(&link).await {
                End::Replaced(next) => {
                    // bb8 drops what is down.
                    link.health.closed();
                    link = next;
                }
                End::Gone(error) => return error,
            }
        }
    }

    async fn end_of(&mut self, link: &Pooled) -> End {
        loop {
            tokio::select! {
                () = link.health.down.cancelled() => break,
                () = link.health.unfit.cancelled() => match self.dial_until_fit(link).await {
                    Some(fit) => return End::Replaced(fit),
                    None => break,
                },
                () = sleep(TRIAL), if self.on_trial => self.is_fit(),
            }
        }
        let how = link.health.count_end(&self.counts);
        let was_lost = link.health.how_lost().is_some();
        if !was_lost || Instant::now() < self.next_dial {
            return End::Gone(unreachable(&self.url, how));
        }
        // It had worked: Redis closes idle connections, or was restarted.
        self.slot.replace();
        match self.dial().await {
            Ok(next) => {
                debug!("Redis at {}: {how}; connected again", self.url);
                End::Replaced(next)
            }
            Err(error) => End::Gone(error),
        }
    }

    /// Dials until a server under the same name can serve, another one or the same again. `None`: the
    /// connection in the slot was lost meanwhile.
    async fn dial_until_fit(&mut self, link: &Pooled) -> Option<Pooled> {
        let unfit = link.health.unfit()?;
        let address = link.server.get().and_then(|server| server.address);
        let at = address.map_or(String::new(), |address| format!(" ({address})"));
        let reason = format!("Redis at {}{at} {unfit}", self.url);
        self.counts.refusals.set_server(Some(reason.clone()));
        if !std::mem::replace(&mut self.warned, true) {
            warn!(
                "{reason}: lookups go on there, answers are not stored; connecting again until the address \
                 leads to a server that stores them"
            );
        }
        loop {
            tokio::select! {
                () = sleep_until(self.next_dial) => {}
                () = link.health.down.cancelled() => return None,
            }
            let next = match self.dial().await {
                Ok(next) => next,
                Err(error) => {
                    debug!("{error}");
                    continue;
                }
            };
            let role = next
                .server
                .get()
                .map_or(Role::Unknown, |server| server.role);
            let redirects = matches!(unfit, Unfit::Elsewhere(_));
            if role == Role::Replica && (redirects || *unfit == Unfit::Replica) {
                // As unfit as the first one.
                next.health.closed();
                continue;
            }
            self.on_trial = redirects || role == Role::Unknown;
            if !self.on_trial {
                self.is_fit();
            }
            return Some(next);
        }
    }

    fn is_fit(&mut self) {
        self.on_trial = false;
        self.counts.refusals.set_server(None);
        if std::mem::take(&mut self.warned) {
            info!("Redis at {} stores answers again", self.url);
        }
    }

    /// Takes a fresh connection out of the pool. It stays checked out for as long as it is of use, and is
    /// returned as broken: bb8 drops it then.
    async fn dial(&mut self) -> Result<Pooled, Error> {
        let pause = REDIAL_PAUSE.mul_f32(1.0 + 0.5 * fastrand::f32());
        self.next_dial = Instant::now() + pause;
        let pool = self.pool.as_ref().map_err(Clone::clone)?;
        // Reasons of an attempt that was given up.
        while self.failures.try_recv().is_ok() {}
        tokio::select! {
            link = pool.get_owned() => link
                .map_err(|_| unreachable(&self.url, "connecting takes too long".to_owned())),
            // Without this, an attempt that failed at once would be noticed only when the pool's own
            // patience ends.
            Some(error) = self.failures.recv() => Err(error),
        }
    }
}
