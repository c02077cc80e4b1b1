//! The keeper task: fills the slot while Redis is there, replaces a connection that was lost or whose server
//! cannot serve, and logs one line a change.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use bb8::{Pool, PooledConnection};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until};
use tracing::{debug, info, warn};

use super::health::Unfit;
use super::manager::{CONNECT_DEADLINE, Failures, Manager};
use super::sentinel::Sentinels;
use super::server::Role;
use super::{Signals, Slot, Terms};
use crate::cache::redis::errors::{describe, unreachable};
use crate::counts::{CacheCounts, ConnectionMonitor, ConnectionState};
use crate::error::Error;
use crate::server_url::RedisUrl;
use crate::transport::Endpoint;

/// Pause between two attempts to connect, plus up to a half of it at random.
const REDIAL_PAUSE: Duration = Duration::from_secs(1);

/// The same where Sentinels are asked before each attempt, since they may name another server at any moment: a 40th of
/// the time since the last connection, within these bounds.
const SENTINEL_PAUSE: RangeInclusive<Duration> =
    Duration::from_millis(250)..=Duration::from_secs(5);

/// How long a server that does not report its role has to serve, or a node of a cluster has to redirect
/// nothing, until it counts as the right one.
const TRIAL: Duration = Duration::from_secs(10);

type Pooled = PooledConnection<'static, Manager>;

/// Keeps one connection, until it is dropped.
pub(super) struct Keeper {
    url: RedisUrl,
    slot: Arc<Slot>,
    /// Counts losses.
    counts: Arc<CacheCounts>,
    /// Holds the state of this connection.
    monitor: Arc<ConnectionMonitor>,
    sentinels: Option<Sentinels>,
    /// Of a node of a cluster: takes the place of log lines.
    of_cluster: Option<Arc<Signals>>,
    /// Or why no connection can ever be made.
    pool: Result<Pool<Manager>, Error>,
    failures: mpsc::UnboundedReceiver<Error>,
    /// The earliest time of the next attempt to connect.
    next_dial: Instant,
    /// When there was a connection the last time.
    up_at: Instant,
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
        terms: Terms,
        slot: Arc<Slot>,
        counts: Arc<CacheCounts>,
        monitor: Arc<ConnectionMonitor>,
        of_cluster: Option<Arc<Signals>>,
    ) -> Self {
        let (failed, failures) = mpsc::unbounded_channel();
        let outdated = of_cluster.as_ref().map(|signals| &signals.outdated);
        let manager = Manager::new(&url, terms, Arc::clone(&slot), outdated.cloned());
        let pool = match manager {
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
            sentinels: Sentinels::of(&url, terms.limits),
            url,
            slot,
            counts,
            monitor,
            of_cluster,
            pool,
            failures,
            next_dial: Instant::now(),
            up_at: Instant::now(),
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
            self.report_down(error);
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
            self.report_up();
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

    fn report_up(&self) {
        let was_down = matches!(self.monitor.up(), ConnectionState::Down(_));
        match &self.of_cluster {
            Some(signals) => signals.changed.notify_one(),
            None if was_down => info!("Redis at {} is back", self.url),
            None => {}
        }
    }

    fn report_down(&self, error: Error) {
        let reason = error.to_string();
        let was_down = matches!(self.monitor.down(error), ConnectionState::Down(_));
        match &self.of_cluster {
            Some(signals) => {
                signals.changed.notify_one();
                if !was_down {
                    signals.outdated.notify_one();
                }
            }
            None if was_down => {}
            None => warn!("{reason}; calls go on without the cache"),
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
                other = switched(self.sentinels.as_ref(), &link.endpoint) => {
                    link.health.lost(|| format!("the Sentinels name {other} as primary"));
                }
            }
        }
        self.up_at = Instant::now();
        let how = link.health.count_end(&self.counts);
        if let Some(signals) = &self.of_cluster {
            signals.outdated.notify_one();
        }
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
        let pause = match self.sentinels {
            Some(_) => {
                let away = self.up_at.elapsed() / 40;
                away.clamp(*SENTINEL_PAUSE.start(), *SENTINEL_PAUSE.end())
            }
            None => REDIAL_PAUSE,
        };
        let pause = pause.mul_f32(1.0 + 0.5 * fastrand::f32());
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

/// Waits until Sentinels name another primary; for ever where there are none.
async fn switched(sentinels: Option<&Sentinels>, primary: &Endpoint) -> Endpoint {
    match sentinels {
        Some(sentinels) => sentinels.switched_from(primary).await,
        None => std::future::pending().await,
    }
}
