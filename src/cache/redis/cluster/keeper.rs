//! The task that keeps a cluster's map: asks a node for it when it may be outdated, connects to new nodes, and
//! reports the state of the whole.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use redis::Value;
use tokio::time::{Instant, sleep, sleep_until};
use tracing::{debug, info, warn};

use super::slots::{NOBODY, SLOTS, Served};
use super::{Map, Shared};
use crate::cache::redis::connection::{Connection, Terms};
use crate::cache::redis::errors::{CommandError, describe, unreachable};
use crate::cache::redis::nodes::Node;
use crate::counts::{CacheCounts, ConnectionState};
use crate::error::Error;
use crate::server_url::RedisUrl;
use crate::transport::{Endpoint, HeadStart, race};

/// How often the map is asked for while all is well, plus up to a half of it at random.
const REFRESH_EVERY: Duration = Duration::from_secs(30);

/// The same while a node is away, since its replica may take its place at any moment: a 40th of the time that it
/// has been away for, within these bounds.
const REFRESH_SOON: RangeInclusive<Duration> = Duration::from_millis(250)..=Duration::from_secs(5);

/// Least time between two requests for the map, however often calls are redirected.
const REFRESH_PAUSE: Duration = Duration::from_millis(100);

/// Time for one node to send the map: one that is frozen delays it by this much.
const DEADLINE: Duration = Duration::from_millis(200);

/// Head start of a node of the address over the next one.
const HEAD_START: Duration = Duration::from_millis(100);

/// How long a node without slots is kept.
const OTHERS_FOR: Duration = Duration::from_secs(60);

pub(super) struct Keeper {
    url: RedisUrl,
    terms: Terms,
    counts: Arc<CacheCounts>,
    shared: Arc<Shared>,
    /// Nodes of the address, while none of the map answers.
    seeds: Vec<Arc<Node>>,
    /// When nodes without slots were connected to.
    others_since: Instant,
    /// When all nodes were there the last time.
    whole_at: Instant,
    /// Why the map could not be had the last time.
    failed: Option<Error>,
}

impl Keeper {
    pub(super) fn new(
        url: RedisUrl,
        terms: Terms,
        counts: Arc<CacheCounts>,
        shared: Arc<Shared>,
    ) -> Self {
        Self {
            url,
            terms,
            counts,
            shared,
            seeds: Vec::new(),
            others_since: Instant::now(),
            whole_at: Instant::now(),
            failed: None,
        }
    }

    pub(super) async fn keep(mut self) {
        loop {
            let asked = Instant::now();
            match self.ask().await {
                Ok(served) => {
                    self.publish(&served);
                    self.seeds.clear();
                    self.failed = None;
                }
                Err(error) => {
                    debug!("no map of the cluster: {error}");
                    self.failed = Some(error);
                }
            }
            self.report();
            self.wait(asked + REFRESH_PAUSE).await;
        }
    }

    /// Waits until the map is to be asked for, not before `earliest`. Meanwhile reports changes, and connects
    /// to nodes that calls were redirected to.
    async fn wait(&mut self, earliest: Instant) {
        let pause = if self.counts.redis.state() == ConnectionState::Up {
            self.whole_at = Instant::now();
            REFRESH_EVERY.mul_f32(1.0 + 0.5 * fastrand::f32())
        } else {
            let away = self.whole_at.elapsed() / 40;
            away.clamp(*REFRESH_SOON.start(), *REFRESH_SOON.end())
        };
        let elapsed = sleep(pause);
        tokio::pin!(elapsed);
        let signals = Arc::clone(&self.shared.signals);
        loop {
            tokio::select! {
                () = signals.outdated.notified() => break,
                () = &mut elapsed => break,
                () = signals.changed.notified() => {
                    self.connect_wanted();
                    self.report();
                }
            }
        }
        loop {
            tokio::select! {
                () = sleep_until(earliest) => return,
                () = signals.changed.notified() => self.connect_wanted(),
            }
        }
    }

    /// Asks the nodes of the map in turn, in a random order; else those of the address.
    async fn ask(&mut self) -> Result<Served, Error> {
        let mut nodes = self.shared.owners();
        nodes.retain(|node| node.connection.is_up());
        fastrand::shuffle(&mut nodes);
        for node in &nodes {
            if let Ok(served) = self.ask_node(node).await {
                return Ok(served);
            }
        }
        if self.seeds.is_empty() {
            let endpoints = self.url.endpoints().to_vec();
            self.seeds = endpoints
                .into_iter()
                .map(|endpoint| self.node(endpoint))
                .collect();
        }
        let asked = self.seeds.iter().map(|node| self.ask_node(node)).collect();
        let served = race(asked, &HeadStart::to_log_in(HEAD_START, Duration::ZERO)).await;
        served.map_err(|errors: Vec<Error>| {
            let is_refusal = |error: &&Error| !matches!(error, Error::Unreachable { .. });
            let refusal = errors.iter().find(is_refusal).or(errors.first());
            let none = || unreachable(&self.url, "no node answers".to_owned());
            refusal.cloned().unwrap_or_else(none)
        })
    }

    async fn ask_node(&self, node: &Node) -> Result<Served, Error> {
        let refused = |reason: String| Error::Refused {
            server: self.url.to_string(),
            reason: format!("{}: {reason}", node.endpoint),
        };
        let mut slots = redis::cmd("CLUSTER");
        slots.arg("SLOTS");
        node.connection.settled().await;
        match node.connection.run::<Value>(&slots, DEADLINE).await {
            Ok(reply) => Served::read(&reply, &node.endpoint)
                .ok_or_else(|| refused("its cluster serves no slots".to_owned())),
            Err(CommandError::Refused(error)) if error.code() == Some("NOPERM") => {
                Err(refused(format!(
                    "{}: a cluster's map takes the right +cluster|slots",
                    describe(&error)
                )))
            }
            Err(CommandError::Refused(error)) => Err(refused(format!(
                "{}; the address of a server that is no cluster's begins with {}://",
                describe(&error),
                self.url.scheme(),
            ))),
            Err(CommandError::Unavailable) => Err(match node.connection.state() {
                ConnectionState::Down(error) => error,
                _ => unreachable(&self.url, format!("{} does not answer", node.endpoint)),
            }),
        }
    }

    /// A new node, which connects in the background. A certificate may name a host of the address instead of an
    /// announced IP address.
    fn node(&self, endpoint: Endpoint) -> Arc<Node> {
        let other_name = self.url.endpoints().first().map(Endpoint::host);
        let url = self.url.node(endpoint.clone(), other_name);
        let signals = Arc::clone(&self.shared.signals);
        let counts = Arc::clone(&self.counts);
        let connection = Connection::open_node(url, self.terms, counts, signals);
        let in_flight = Arc::clone(&self.shared.in_flight);
        Arc::new(Node::new(
            endpoint,
            connection,
            in_flight,
            self.terms.patience,
        ))
    }

    /// The node at this endpoint: one that is connected to already, or a new one.
    fn known_or_new(&self, map: &Map, endpoint: &Endpoint) -> Arc<Node> {
        let seed = self.seeds.iter().find(|seed| seed.endpoint == *endpoint);
        let known = map.node(endpoint).or(seed);
        known.map_or_else(|| self.node(endpoint.clone()), Arc::clone)
    }

    fn publish(&mut self, served: &Served) {
        let map = self.shared.map.load_full();
        let owners: Vec<_> = served
            .owners
            .iter()
            .map(|endpoint| self.known_or_new(&map, endpoint))
            .collect();
        let mut others = map.others.clone();
        others.retain(|other| !served.owners.contains(&other.endpoint));
        if self.others_since.elapsed() > OTHERS_FOR {
            others.clear();
        }
        let slots = Arc::from(&served.slots[..]);
        self.store(Map {
            owners,
            slots,
            others,
        });
    }

    fn connect_wanted(&mut self) {
        let wanted = self.shared.take_wanted();
        if wanted.is_empty() {
            return;
        }
        let map = self.shared.map.load_full();
        let mut others = map.others.clone();
        for endpoint in wanted {
            if map.node(&endpoint).is_none() {
                others.push(self.node(endpoint));
            }
        }
        self.others_since = Instant::now();
        self.store(Map {
            owners: map.owners.clone(),
            slots: map.slots.clone(),
            others,
        });
    }

    fn store(&self, map: Map) {
        self.shared.map.store(Arc::new(map));
        self.shared.mapped.notify_waiters();
    }

    /// Writes the state of the whole: it is up while every slot has a node that is up.
    fn report(&self) {
        let map = self.shared.map.load();
        let mut connecting = false;
        let mut error = match &self.failed {
            Some(failed) if map.owners.is_empty() => Some(failed.clone()),
            _ => None,
        };
        for (at, node) in map.owners.iter().enumerate() {
            match node.connection.state() {
                ConnectionState::Connecting => connecting = true,
                ConnectionState::Down(of_node) if error.is_none() => {
                    error = Some(with_share(of_node, &map, at));
                }
                ConnectionState::Up | ConnectionState::Down(_) => {}
            }
        }
        let unserved = map.slots.iter().filter(|&&owner| owner == NOBODY);
        let unserved = unserved.count();
        if error.is_none() && unserved > 0 && !map.owners.is_empty() {
            let reason = format!("no node serves {unserved} of its {SLOTS} slots");
            error = Some(unreachable(&self.url, reason));
        }
        match error {
            Some(error) => {
                let reason = error.to_string();
                if !matches!(self.counts.redis.down(error), ConnectionState::Down(_)) {
                    warn!("{reason}; calls go on without the cache");
                }
            }
            None if connecting || map.owners.is_empty() => {}
            None if self.counts.redis.state() == ConnectionState::Up => {}
            None => {
                if matches!(self.counts.redis.up(), ConnectionState::Down(_)) {
                    info!("Redis at {} is back", self.url);
                }
            }
        }
    }
}

/// The error of one node, with how many of the keys it holds.
fn with_share(error: Error, map: &Map, node: usize) -> Error {
    let of_node = map
        .slots
        .iter()
        .filter(|&&owner| usize::from(owner) == node);
    let percent = of_node.count() * 100 / usize::from(SLOTS);
    match error {
        Error::Unreachable { server, reason } => Error::Unreachable {
            server,
            reason: format!("{reason} ({percent} % of the keys are there)"),
        },
        error => error,
    }
}
