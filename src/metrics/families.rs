//! Defines the metrics: names, help texts, and the counters that they read.
//!
//! Names follow <https://prometheus.io/docs/practices/naming/>; the encoder appends `_total` to counters and
//! `_seconds` to durations. Names and labels are stable: dashboards and alerts use them.

use prometheus_client::metrics::MetricType;

use super::{Part, Role};
use crate::counts::{BySource, ConnectionState, Counter, Histogram};
use crate::error::{Error, ErrorCode};
use crate::source::Source;
use crate::worker::Activity;

/// A metric: all samples of one name.
pub(super) struct Family {
    pub(super) name: &'static str,
    pub(super) help: &'static str,
    pub(super) kind: MetricType,
    pub(super) of: Of,
}

/// Which role exports a metric, and how its samples are read. Metrics of both have the label `role`.
pub(super) enum Of {
    Both(fn(&Part) -> Vec<Sample<'_>>),
    Client(fn(&crate::counts::Calls) -> Vec<Sample<'_>>),
    /// The second argument is the number of compute slots.
    Worker(fn(&Activity, u64) -> Vec<Sample<'_>>),
}

/// A number or a histogram, with the label that distinguishes it within its family.
pub(super) struct Sample<'a> {
    pub(super) label: Option<(&'static str, &'static str)>,
    pub(super) value: Value<'a>,
}

pub(super) enum Value<'a> {
    Number(u64),
    Durations(&'a Histogram),
}

pub(super) const FAMILIES: [Family; 22] = [
    counter(
        "rpcache_answers",
        "Answers by where they came from: local (a client's own copies), cache, shared (computed for \
         another call) or computed",
        Of::Both(|part| {
            let count = |(source, durations): (Source, &Histogram)| {
                labelled("source", source.as_str(), durations.count())
            };
            match &part.of {
                Role::Client(calls) => calls.answered.each().map(count).collect(),
                Role::Worker { activity, .. } => of_worker(&activity.answered).map(count).collect(),
            }
        }),
    ),
    counter(
        "rpcache_errors",
        "Failed calls (of a client) and requests (of a worker), by error code",
        Of::Both(|part| {
            let (failed, codes) = match &part.of {
                Role::Client(calls) => (&calls.failed, Error::CODES.to_vec()),
                Role::Worker { activity, .. } => {
                    let codes = ErrorCode::ALL.map(ErrorCode::as_str);
                    (&activity.failed, codes.to_vec())
                }
            };
            let count = |code| labelled("code", code, failed.of(code).map_or(0, Counter::get));
            codes.into_iter().map(count).collect()
        }),
    ),
    counter(
        "rpcache_shared_flights",
        "Calls (of a client) and requests (of a worker) that joined one already under way",
        Of::Both(|part| {
            one(match &part.of {
                Role::Client(calls) => calls.shared_flights.get(),
                Role::Worker { activity, .. } => activity.shared_flights.get(),
            })
        }),
    ),
    durations(
        "rpcache_call_duration",
        "From the start of a client's call to its answer",
        Of::Client(|calls| by_source(calls.answered.each())),
    ),
    gauge(
        "rpcache_requests_in_flight",
        "Requests of a client that wait for their reply",
        Of::Client(|calls| one(calls.in_flight.get())),
    ),
    counter(
        "rpcache_wrong_answers",
        "Answers of workers that failed verification in a client; does another program serve the queue?",
        Of::Client(|calls| one(calls.wrong_answers.get())),
    ),
    counter(
        "rpcache_requests",
        "Requests that a worker took from the queue",
        Of::Worker(|activity, _| one(activity.taken.get())),
    ),
    durations(
        "rpcache_request_duration",
        "From taking a request to having its answer, in a worker",
        Of::Worker(|activity, _| by_source(of_worker(&activity.answered))),
    ),
    gauge(
        "rpcache_requests_held",
        "Requests that a worker has taken and not settled",
        Of::Worker(|activity, _| one(activity.held.get())),
    ),
    durations(
        "rpcache_compute_duration",
        "Computing alone, whatever the outcome",
        Of::Worker(|activity, _| {
            vec![Sample {
                label: None,
                value: Value::Durations(&activity.computed),
            }]
        }),
    ),
    gauge(
        "rpcache_computations",
        "Computations under way, without those that take no slot because they are cheap",
        Of::Worker(|activity, _| one(activity.computations() as u64)),
    ),
    gauge(
        "rpcache_compute_slots",
        "Computations that may be under way at once",
        Of::Worker(|_, slots| one(slots)),
    ),
    counter(
        "rpcache_lease_waits",
        "Missing answers that a worker waited for because another worker was computing them",
        Of::Worker(|activity, _| one(activity.lease_waits.get())),
    ),
    counter(
        "rpcache_refused_reply_to",
        "Requests refused because their reply_to is not a callback queue",
        Of::Worker(|activity, _| one(activity.refused_reply_to.get())),
    ),
    counter(
        "rpcache_cache_lookups",
        "Lookups of answers in Redis, by result: hit, miss, poisoned (the value was not the answer) \
         or unanswered (Redis disconnected, late or refusing)",
        Of::Both(|part| {
            let cache = &part.cache;
            by(
                "result",
                [
                    ("hit", &cache.hits),
                    ("miss", &cache.misses),
                    ("poisoned", &cache.poisoned),
                    ("unanswered", &cache.unanswered),
                ],
            )
        }),
    ),
    counter(
        "rpcache_cache_fills",
        "Attempts to store an answer in Redis, by result: stored, refused (by Redis), \
         too-large (for the limit set here) or unanswered",
        Of::Both(|part| {
            let cache = &part.cache;
            by(
                "result",
                [
                    ("stored", &cache.stored),
                    ("refused", &cache.refused),
                    ("too-large", &cache.too_large),
                    ("unanswered", &cache.unconfirmed),
                ],
            )
        }),
    ),
    gauge(
        "rpcache_redis_up",
        "1 while Redis is used; 0 while lookups miss at once because it is disconnected or too late",
        Of::Both(|part| flag(part.cache.redis.state() == ConnectionState::Up)),
    ),
    counter(
        "rpcache_redis_losses",
        "Connections to Redis that ended: lost, or late (given up by the breaker)",
        Of::Both(|part| {
            let redis = &part.cache.redis;
            by("cause", [("lost", &redis.lost), ("late", &redis.late)])
        }),
    ),
    counter(
        "rpcache_redis_reconnects",
        "Connections to Redis after the first",
        Of::Both(|part| one(part.cache.redis.reconnects())),
    ),
    gauge(
        "rpcache_broker_up",
        "1 while connected to RabbitMQ, a worker while it consumes; a client connects at its first miss",
        Of::Both(|part| flag(part.broker.connection.state() == ConnectionState::Up)),
    ),
    gauge(
        "rpcache_broker_blocked",
        "1 while RabbitMQ has raised an alarm and accepts no messages",
        Of::Both(|part| flag(part.broker.is_blocked())),
    ),
    counter(
        "rpcache_broker_reconnects",
        "Connections to RabbitMQ after the first",
        Of::Both(|part| one(part.broker.connection.reconnects())),
    ),
];

const fn counter(name: &'static str, help: &'static str, of: Of) -> Family {
    family(name, help, MetricType::Counter, of)
}

const fn gauge(name: &'static str, help: &'static str, of: Of) -> Family {
    family(name, help, MetricType::Gauge, of)
}

const fn durations(name: &'static str, help: &'static str, of: Of) -> Family {
    family(name, help, MetricType::Histogram, of)
}

const fn family(name: &'static str, help: &'static str, kind: MetricType, of: Of) -> Family {
    Family {
        name,
        help,
        kind,
        of,
    }
}

fn one(number: u64) -> Vec<Sample<'static>> {
    vec![Sample {
        label: None,
        value: Value::Number(number),
    }]
}

fn flag(is_set: bool) -> Vec<Sample<'static>> {
    one(u64::from(is_set))
}

fn labelled(name: &'static str, value: &'static str, number: u64) -> Sample<'static> {
    Sample {
        label: Some((name, value)),
        value: Value::Number(number),
    }
}

fn by<const N: usize>(
    name: &'static str,
    counters: [(&'static str, &Counter); N],
) -> Vec<Sample<'static>> {
    let sample = |(value, counter): (_, &Counter)| labelled(name, value, counter.get());
    counters.map(sample).into()
}

/// The sources that a worker has: it never answers from a client's near cache.
fn of_worker(answered: &BySource<Histogram>) -> impl Iterator<Item = (Source, &Histogram)> {
    answered
        .each()
        .filter(|&(source, _)| source != Source::Local)
}

fn by_source<'a>(durations: impl Iterator<Item = (Source, &'a Histogram)>) -> Vec<Sample<'a>> {
    let sample = |(source, durations): (Source, _)| Sample {
        label: Some(("source", source.as_str())),
        value: Value::Durations(durations),
    };
    durations.map(sample).collect()
}
