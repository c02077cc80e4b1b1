//! The nodes of a Redis Cluster, each with a connection, a breaker and a batcher of its own: a node that is
//! dead, frozen or slow costs the keys that it holds, and no others.
//!
//! A map says which node has which slot. A task keeps it, see [`keeper`]; calls only read it. A node that
//! does not have a key redirects: the command is sent once more, to the node that it names, within the same
//! limit. If that does not help either, the call goes on without the cache.

mod keeper;
mod redirect;
mod slots;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use futures_util::future::join_all;
use redis::{Pipeline, RedisError, Value};
use tokio::sync::{Notify, OnceCell};
use tokio::time::{Instant, timeout};
use tokio_util::task::AbortOnDropHandle;

pub(super) use self::slots::slot;

use self::keeper::Keeper;
use self::redirect::Redirect;
use super::batcher::InFlight;
use super::connection::{Request, Signals, Terms};
use super::errors::CommandError;
use super::nodes::{Node, each_reply};
use crate::counts::CacheCounts;
use crate::server_url::RedisUrl;
use crate::transport::Endpoint;

/// Redirections to nodes that are not known yet, at most.
const MAX_WANTED: usize = 16;

/// How long a process that makes one call waits for nodes that do not answer: they may not have its key.
const STRAGGLERS: Duration = Duration::from_millis(200);

/// A Redis Cluster. Dropping it ends its task and its connections.
#[derive(Debug)]
pub(super) struct Cluster {
    shared: Arc<Shared>,
    /// Set when calls need not wait for the first connections any more: later ones pay one load.
    ready: OnceCell<()>,
    _keeper: AbortOnDropHandle<()>,
}

/// What calls and the keeper share.
#[derive(Debug)]
pub(super) struct Shared {
    map: ArcSwap<Map>,
    /// Notified when there is another map.
    mapped: Notify,
    signals: Arc<Signals>,
    /// Lookups in flight at all nodes.
    in_flight: Arc<InFlight>,
    /// Nodes that a redirection named, and that the map does not have.
    wanted: Mutex<Vec<Endpoint>>,
}

/// Which node has which slot.
#[derive(Debug)]
struct Map {
    /// The primaries that have slots, in the order of their first slots.
    owners: Vec<Arc<Node>>,
    /// For each slot the position of its node, or [`NOBODY`](slots::NOBODY).
    slots: Arc<[u16]>,
    /// Nodes without slots that a redirection named: a slot is on its way there.
    others: Vec<Arc<Node>>,
}

impl Map {
    fn owner(&self, slot: u16) -> Option<&Arc<Node>> {
        let position = self.slots.get(usize::from(slot))?;
        self.owners.get(usize::from(*position))
    }

    fn node(&self, endpoint: &Endpoint) -> Option<&Arc<Node>> {
        let mut nodes = self.owners.iter().chain(&self.others);
        nodes.find(|node| node.endpoint == *endpoint)
    }
}

impl Shared {
    pub(super) fn owners(&self) -> Vec<Arc<Node>> {
        self.map.load().owners.clone()
    }
}

impl Cluster {
    /// Starts connecting in the background.
    pub(super) fn open(url: RedisUrl, terms: Terms, counts: Arc<CacheCounts>) -> Self {
        let shared = Arc::new(Shared {
            map: ArcSwap::from_pointee(Map {
                owners: Vec::new(),
                slots: Arc::from([]),
                others: Vec::new(),
            }),
            mapped: Notify::new(),
            signals: Arc::default(),
            in_flight: Arc::default(),
            wanted: Mutex::default(),
        });
        let keeper = Keeper::new(url, terms, counts, Arc::clone(&shared));
        Self {
            shared,
            ready: OnceCell::new(),
            _keeper: AbortOnDropHandle::new(tokio::spawn(keeper.keep())),
        }
    }

    /// Waits, once, for `settled` or for the map and its nodes; no longer than `STRAGGLERS` for those that do not
    /// answer.
    pub(super) async fn ready(&self, settled: impl Future<Output = ()>) {
        let first_attempt = async || {
            tokio::select! {
                () = settled => {}
                () = self.mapped() => {}
            }
        };
        self.ready.get_or_init(first_attempt).await;
    }

    async fn mapped(&self) {
        loop {
            // Made before looking, so that no change is missed.
            let mapped = self.shared.mapped.notified();
            let owners = self.owners();
            if !owners.is_empty() {
                let settled = join_all(owners.iter().map(|node| node.connection.settled()));
                // Elapsed or not, commands wait for their own node within their limit.
                let _ = timeout(STRAGGLERS, settled).await;
                return;
            }
            mapped.await;
        }
    }

    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    pub(super) fn owners(&self) -> Vec<Arc<Node>> {
        self.shared.owners()
    }

    pub(super) fn owner(&self, slot: u16) -> Option<Arc<Node>> {
        self.shared.map.load().owner(slot).cloned()
    }

    /// Gets what stands under a key, in one round trip with other lookups of that moment at the same node.
    ///
    /// Cancel safe.
    pub(super) async fn get(
        &self,
        key: &str,
        limit: Duration,
    ) -> Result<Option<Vec<u8>>, CommandError> {
        let started = Instant::now();
        let node = self.owner(slot(key.as_bytes()));
        let node = node.ok_or(CommandError::Unavailable)?;
        match node.batcher.get(key, limit).await {
            Err(CommandError::Refused(error)) if error.redirect_node().is_some() => {
                let redirect = Redirect::read(&error, &node).ok_or(CommandError::Unavailable)?;
                let mut get = redis::pipe();
                get.get(key);
                // In a box: it is rare, and the future of a hit stays small.
                let replies = Box::pin(self.follow(&redirect, &get, started + limit)).await;
                let reply = replies.into_iter().next();
                let reply = reply.unwrap_or(Err(CommandError::Unavailable));
                super::connection::readable(reply)
            }
            found => found,
        }
    }

    /// Sends commands on keys of one slot.
    pub(super) async fn send(
        &self,
        slot: u16,
        request: Request<'_>,
        twice: bool,
        limit: Duration,
    ) -> Result<Value, CommandError> {
        let node = self.owner(slot).ok_or(CommandError::Unavailable)?;
        let started = Instant::now();
        let sent = node.send(request, twice, limit).await;
        let deadline = started + limit;
        match request {
            Request::One(command) => match &sent {
                Err(CommandError::Refused(error)) => match Redirect::read(error, &node) {
                    None => sent,
                    Some(redirect) => {
                        let mut commands = redis::pipe();
                        commands.add_command(command.clone());
                        let replies = self.follow(&redirect, &commands, deadline).await;
                        replies
                            .into_iter()
                            .next()
                            .unwrap_or(Err(CommandError::Unavailable))
                    }
                },
                _ => sent,
            },
            Request::Several(commands) => {
                let replies = each_reply(sent, commands.len());
                let replies = self.follow_all(&node, commands, replies, deadline).await;
                // As redis-rs has it where errors are ignored; the first one where nothing was answered.
                let value = |reply| match reply {
                    Ok(value) => Ok(value),
                    Err(CommandError::Refused(error)) => server_error(error),
                    Err(error) => Err(error),
                };
                let values: Result<_, _> = replies.into_iter().map(value).collect();
                Ok(Value::Array(values?))
            }
        }
    }

    /// Sends for each key the commands that `add` adds, in one round trip to each node.
    pub(super) async fn send_each(
        &self,
        keys: &[&[u8]],
        add: impl Fn(&mut Pipeline, usize),
        twice: bool,
        limit: Duration,
    ) -> Vec<Result<Value, CommandError>> {
        let deadline = Instant::now() + limit;
        let mut parts: Vec<(Option<Arc<Node>>, Vec<usize>)> = Vec::new();
        {
            let map = self.shared.map.load();
            let mut part_of: HashMap<Option<u16>, usize> = HashMap::new();
            for (at, key) in keys.iter().enumerate() {
                let slot = slot(key);
                let owner = map.slots.get(usize::from(slot)).copied();
                let part = *part_of.entry(owner).or_insert_with(|| {
                    parts.push((map.owner(slot).cloned(), Vec::new()));
                    parts.len() - 1
                });
                parts[part].1.push(at);
            }
        }
        let sent = parts.iter().map(async |(node, positions)| {
            let mut commands = redis::pipe();
            commands.ignore_errors();
            for &at in positions {
                add(&mut commands, at);
            }
            let Some(node) = node else {
                return vec![Err(CommandError::Unavailable); commands.len()];
            };
            let sent = node.send((&commands).into(), twice, limit).await;
            let replies = each_reply(sent, commands.len());
            self.follow_all(node, &commands, replies, deadline).await
        });
        let sent = join_all(sent).await;
        let mut of_key: Vec<Vec<Result<Value, CommandError>>> = Vec::new();
        of_key.resize_with(keys.len(), Vec::new);
        for ((_, positions), replies) in parts.iter().zip(sent) {
            let for_each = (replies.len() / positions.len()).max(1);
            for (at, reply) in replies.into_iter().enumerate() {
                of_key[positions[at / for_each]].push(reply);
            }
        }
        of_key.into_iter().flatten().collect()
    }
}

impl Shared {
    fn want(&self, endpoint: &Endpoint) {
        // Nothing panics while it is held.
        let mut wanted = self.wanted.lock().unwrap_or_else(PoisonError::into_inner);
        if wanted.len() < MAX_WANTED && !wanted.contains(endpoint) {
            wanted.push(endpoint.clone());
            self.signals.changed.notify_one();
        }
    }

    fn take_wanted(&self) -> Vec<Endpoint> {
        let mut wanted = self.wanted.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *wanted)
    }
}

/// An error of one command among others.
fn server_error(error: RedisError) -> Result<Value, CommandError> {
    match error.into_server_errors() {
        Some(errors) if !errors.is_empty() => Ok(Value::ServerError(errors[0].1.clone())),
        _ => Err(CommandError::Unavailable),
    }
}
