//! Computes rates from two polls. Pure but for the clock: it does no I/O.
//!
//! A worker that restarts has a new id, one that vanishes is forgotten, and a count that has become smaller gives the
//! rate 0: no rate is negative.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use rpcache::Error;
use rpcache::fleet::{Durations, WorkerStatus};
use rpcache::inspect::QueueDepths;
use rpcache::inspect::ServerStats;

use super::keys;
use super::snapshot::{
    Fleet, Latency, Rates, Redis, RedisRates, Seen, Silence, Snapshot, Worker, rounded,
};
use super::sources::{Polled, RedisPoll, Server};
use super::standstill;

/// A worker whose last announcement is older has no rates.
const SILENT: Duration = Duration::from_secs(5);

/// The earlier results that the next snapshot needs.
pub(super) struct History {
    queue: String,
    namespace: Option<String>,
    interval: Duration,
    queues: Seen<QueueDepths>,
    queues_at: Instant,
    redis: Seen<Redis>,
    redis_at: Instant,
    /// The numbers from which the next poll's rates are computed.
    server_before: Option<(Instant, ServerStats)>,
    workers: Seen<()>,
    tracks: HashMap<String, Track>,
    other_workers: usize,
}

/// The last two announcements of a worker.
struct Track {
    last: WorkerStatus,
    /// When the last announcement was first seen.
    at: Instant,
    before: Option<WorkerStatus>,
}

impl History {
    pub(super) fn new(queue: String, namespace: Option<String>, interval: Duration) -> Self {
        let now = Instant::now();
        Self {
            queue,
            namespace,
            interval,
            queues: Seen::Waiting,
            queues_at: now,
            redis: Seen::Waiting,
            redis_at: now,
            server_before: None,
            workers: Seen::Waiting,
            tracks: HashMap::new(),
            other_workers: 0,
        }
    }

    pub(super) fn add(&mut self, polled: Polled) {
        match polled {
            Polled::Redis(poll) => self.redis(*poll),
            Polled::Queues(depths) => self.queues(depths),
        }
    }

    pub(super) fn queues(&mut self, depths: Result<QueueDepths, Error>) {
        self.queues_at = Instant::now();
        self.queues = depths.map_or_else(|error| Seen::Down { error }, Seen::Ok);
    }

    pub(super) fn redis(&mut self, poll: RedisPoll) {
        let (at, before) = poll.before;
        self.redis_at = Instant::now();
        self.server(at, before);
        self.server_before = match poll.after {
            (at, Ok(Some(stats))) => Some((at, stats)),
            _ => None,
        };
        self.workers(poll.workers, poll.after.0);
    }

    fn server(&mut self, at: Instant, server: Server) {
        let before = self.server_before.take();
        self.redis = match server {
            Err(error) => Seen::Down { error },
            Ok(None) => Seen::NotPermitted,
            Ok(Some(stats)) => {
                let rates = before.and_then(|(earlier, before)| {
                    redis_rates(&before, &stats, at.saturating_duration_since(earlier))
                });
                Seen::Ok(Redis {
                    hit_share: rates.and_then(|rates| share(rates.hits, rates.misses)),
                    per_second: rates,
                    version: stats.version,
                    memory: stats.memory,
                    memory_limit: stats.memory_limit,
                    clients: stats.clients,
                })
            }
        };
    }

    /// Adds the workers' announcements as read at `now`. Workers that are gone are forgotten.
    pub(super) fn workers(&mut self, workers: Result<Vec<WorkerStatus>, Error>, now: Instant) {
        let workers = match workers {
            Ok(workers) => workers,
            Err(error) => {
                self.tracks.clear();
                self.other_workers = 0;
                let lacks_right = matches!(error, Error::Refused { .. })
                    && !matches!(self.redis, Seen::Down { .. });
                self.workers = if lacks_right {
                    Seen::NotPermitted
                } else {
                    Seen::Down { error }
                };
                return;
            }
        };
        self.workers = Seen::Ok(());
        let (ours, others): (Vec<_>, Vec<_>) = workers
            .into_iter()
            .partition(|status| status.queue == self.queue);
        self.other_workers = others.len();
        let mut before = std::mem::take(&mut self.tracks);
        for status in latest(ours) {
            let track = match before.remove(&status.id) {
                Some(track) => track.next(status, now),
                None => Track {
                    last: status,
                    at: now,
                    before: None,
                },
            };
            self.tracks.insert(track.last.id.clone(), track);
        }
    }

    /// Whether a worker has been seen with one announcement only.
    pub(super) fn awaits_announcements(&self) -> bool {
        self.tracks.values().any(|track| track.before.is_none())
    }

    /// The errors of Redis and of the broker, if both are down.
    pub(super) fn both_down(&self) -> Option<(&Error, &Error)> {
        match (&self.redis, &self.queues) {
            (Seen::Down { error: redis }, Seen::Down { error: broker }) => Some((redis, broker)),
            _ => None,
        }
    }

    /// Number of rows to scroll through.
    pub(super) fn workers_shown(&self) -> usize {
        self.tracks.len()
    }

    pub(super) fn snapshot(&self, now: Instant) -> Snapshot {
        let tracks = || self.tracks.values();
        let announced: Vec<_> = tracks().map(|track| track.announced(now)).collect();
        let mut workers: Vec<_> = tracks().map(|track| track.worker(now)).collect();
        workers.sort_by(|one, other| one.id.cmp(&other.id));
        let snapshot = Snapshot {
            queue: self.queue.clone(),
            namespace: self.namespace.clone(),
            interval_ms: u64::try_from(self.interval.as_millis()).unwrap_or(u64::MAX),
            broker: self.queues.clone(),
            redis: self.redis.clone(),
            fleet: match &self.workers {
                Seen::Ok(()) => Seen::Ok(self.fleet(&workers, now)),
                Seen::Waiting => Seen::Waiting,
                Seen::NotPermitted => Seen::NotPermitted,
                Seen::Down { error } => Seen::Down {
                    error: error.clone(),
                },
            },
            standstill: None,
            workers,
            computing: keys::computing(&announced),
            hottest: keys::hottest(&announced),
            slowest: keys::slowest(&announced),
            failed: keys::failed(&announced),
            silence: Silence {
                broker: now.saturating_duration_since(self.queues_at),
                redis: now.saturating_duration_since(self.redis_at),
            },
        };
        standstill::explained(snapshot)
    }

    fn fleet(&self, workers: &[Worker], now: Instant) -> Fleet {
        let sum = |each: fn(&Worker) -> u64| {
            let counts = workers.iter().map(each);
            counts.fold(0, u64::saturating_add)
        };
        let rates: Vec<_> = workers
            .iter()
            .filter_map(|worker| worker.per_second)
            .collect();
        let is_known = !rates.is_empty() || workers.is_empty();
        let (mut requests, mut computed) = (Durations::default(), Durations::default());
        for track in self.tracks.values() {
            if let Some(before) = track.recent(now) {
                requests.add(&track.last.request_times.since(&before.request_times));
                computed.add(&track.last.compute_times.since(&before.compute_times));
            }
        }
        Fleet {
            workers: workers.len(),
            other_workers: self.other_workers,
            slots: sum(|worker| worker.slots.into()),
            under_way: sum(|worker| worker.under_way),
            held: sum(|worker| worker.held),
            per_second: is_known.then(|| {
                let mut sum = Rates::default();
                for rates in &rates {
                    sum.add(rates);
                }
                sum
            }),
            request_ms: Latency::of(&requests),
            compute_ms: Latency::of(&computed),
        }
    }
}

/// Keeps the latest announcement of each worker: one to which Redis answered too late announces itself under another
/// key, and the former key lives for some seconds.
fn latest(mut workers: Vec<WorkerStatus>) -> Vec<WorkerStatus> {
    let moment = |status: &WorkerStatus| (status.uptime_millis, status.announced);
    workers.sort_by(|one, other| {
        let by_id = one.id.cmp(&other.id);
        by_id.then_with(|| moment(other).cmp(&moment(one)))
    });
    workers.dedup_by(|later, first| later.id == first.id);
    workers
}

impl Track {
    /// Adds an announcement, which may be the one that is known already.
    fn next(self, status: WorkerStatus, now: Instant) -> Self {
        let moment = |status: &WorkerStatus| (status.uptime_millis, status.announced);
        if moment(&status) == moment(&self.last) {
            return self;
        }
        Self {
            last: status,
            at: now,
            before: Some(self.last),
        }
    }

    fn announced(&self, now: Instant) -> keys::Announced<'_> {
        (&self.last, now.saturating_duration_since(self.at))
    }

    /// The announcement from which the present rates are computed; `None` if there is none or the worker is silent.
    fn recent(&self, now: Instant) -> Option<&WorkerStatus> {
        let is_silent = now.saturating_duration_since(self.at) > SILENT;
        self.before.as_ref().filter(|_| !is_silent)
    }

    fn worker(&self, now: Instant) -> Worker {
        let status = &self.last;
        let before = self.recent(now);
        let silent = now.saturating_duration_since(self.at);
        let times = before.map(|before| status.request_times.since(&before.request_times));
        Worker {
            id: status.id.clone(),
            host: status.host.clone(),
            pid: status.pid,
            version: status.version.clone(),
            uptime_s: match status.uptime_millis {
                0 => status.announced.saturating_sub(status.started),
                millis => millis / 1000,
            },
            slots: status.concurrency,
            // Older workers announce their longest computations only.
            under_way: status.under_way.max(status.computing.len() as u64),
            held: status.held,
            per_second: before.and_then(|before| rates(before, status)),
            request_ms: Latency::of(&times.unwrap_or_default()),
            computing: keys::computing_at(&self.announced(now)),
            silent_s: if silent > SILENT { silent.as_secs() } else { 0 },
        }
    }
}

/// Rates between two announcements of one worker, by the worker's own clock.
fn rates(before: &WorkerStatus, last: &WorkerStatus) -> Option<Rates> {
    let millis = match (before.uptime_millis, last.uptime_millis) {
        // Older workers announce whole seconds only.
        (0, 0) => last
            .announced
            .saturating_sub(before.announced)
            .saturating_mul(1000),
        (before, last) => last.saturating_sub(before),
    };
    let per_second = per_second(Duration::from_millis(millis))?;
    let (before, last) = (&before.counts, &last.counts);
    Some(Rates {
        answered: per_second(before.answered, last.answered),
        computed: per_second(before.computed, last.computed),
        cache: per_second(before.cache, last.cache),
        shared: per_second(before.shared, last.shared),
        failed: per_second(before.failed, last.failed),
        poison: per_second(before.poison, last.poison),
    })
}

/// Rates of Redis. `None` if it has restarted, or its counts were reset.
fn redis_rates(before: &ServerStats, last: &ServerStats, passed: Duration) -> Option<RedisRates> {
    let is_reset = last.uptime < before.uptime || last.commands < before.commands;
    let per_second = per_second(passed).filter(|_| !is_reset)?;
    Some(RedisRates {
        commands: per_second(before.commands, last.commands),
        hits: per_second(before.hits, last.hits),
        misses: per_second(before.misses, last.misses),
        evicted: per_second(before.evicted, last.evicted),
        expired: per_second(before.expired, last.expired),
    })
}

/// Computes rates over this time; `None` if it is 0.
#[expect(clippy::cast_precision_loss, reason = "a rate")]
fn per_second(passed: Duration) -> Option<impl Fn(u64, u64) -> f64> {
    let seconds = passed.as_secs_f64();
    (seconds > 0.0).then_some(move |before: u64, last: u64| {
        rounded(last.saturating_sub(before) as f64 / seconds)
    })
}

fn share(hits: f64, misses: f64) -> Option<f64> {
    (hits + misses > 0.0).then(|| rounded(hits / (hits + misses)))
}

#[cfg(test)]
mod tests;
