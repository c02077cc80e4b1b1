//! Exports the counters of clients and workers as Prometheus metrics. Only with the feature `metrics`.
//!
//! Stores nothing: each scrape reads the current values from [`crate::counts`], in the order of [`families`].
//! Labels are the procedure, the role (`client` or `worker`), a source or an error code: what peers send
//! cannot add series.

mod families;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{
    DescriptorEncoder, MetricEncoder, NoLabelSet, prometheus_text, text,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit};

use self::families::{FAMILIES, Family, Of, Value};
use crate::counts::{BOUNDS, BrokerCounts, CacheCounts, Calls};
use crate::procedure_name::ProcedureName;
use crate::worker::{Activity, Counters};

/// The metrics of a client or a worker: see [`Client::metrics`](crate::Client::metrics) and
/// [`Worker::metrics`](crate::Worker::metrics).
///
/// Only with the feature `metrics`. [`encode`](Self::encode) returns the text with which an HTTP endpoint
/// answers a scrape. A program that has a registry of prometheus-client registers this as a [`Collector`]
/// there instead:
///
/// ```no_run
/// # use rpcache::{CacheOptions, Client, ClientOptions, Procedure, fibonacci::Fibonacci};
/// # fn example(client: Client<Fibonacci>) {
/// let mut registry = prometheus_client::registry::Registry::default();
/// registry.register_collector(Box::new(client.metrics()));
/// # }
/// ```
///
/// A process with several clients or workers [joins](Self::and) their metrics into one, because each family
/// must be exported only once.
#[derive(Debug, Clone)]
pub struct Metrics {
    parts: Vec<Part>,
}

/// The text format of exported metrics. Both carry the same values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum MetricsFormat {
    /// OpenMetrics text 1.0.0, for scrapers that request it.
    OpenMetrics,
    /// Prometheus' own text format 0.0.4, which every scraper reads.
    Prometheus,
}

impl MetricsFormat {
    /// The format that an HTTP header `accept` requests; Prometheus' own for an empty one.
    #[must_use]
    pub fn accepted_by(accept: &str) -> Self {
        let wants = |range: &str| range.trim().starts_with("application/openmetrics-text");
        if accept.split(',').any(wants) {
            Self::OpenMetrics
        } else {
            Self::Prometheus
        }
    }

    /// The value of the HTTP header `content-type`.
    #[must_use]
    pub fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Prometheus => prometheus_text::CONTENT_TYPE,
        }
    }
}

/// The counters of one client or worker.
#[derive(Debug, Clone)]
struct Part {
    procedure: ProcedureName,
    cache: Arc<CacheCounts>,
    broker: Arc<BrokerCounts>,
    of: Role,
}

#[derive(Debug, Clone)]
enum Role {
    Client(Arc<Calls>),
    Worker { activity: Arc<Activity>, slots: u16 },
}

impl Metrics {
    pub(crate) fn of_client(
        procedure: &ProcedureName,
        calls: Arc<Calls>,
        cache: Arc<CacheCounts>,
        broker: Arc<BrokerCounts>,
    ) -> Self {
        let part = Part {
            procedure: procedure.clone(),
            cache,
            broker,
            of: Role::Client(calls),
        };
        Self { parts: vec![part] }
    }

    pub(crate) fn of_worker(procedure: &ProcedureName, slots: u16, counters: Counters) -> Self {
        let Counters {
            activity,
            cache,
            broker,
        } = counters;
        let part = Part {
            procedure: procedure.clone(),
            cache,
            broker,
            of: Role::Worker { activity, slots },
        };
        Self { parts: vec![part] }
    }

    /// Joins two sets of metrics into one.
    ///
    /// Two clients, or two workers, of one procedure would export the same series twice: share one client
    /// instead, or use a registry for each.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.parts.extend(other.parts);
        self
    }

    /// Writes the current values as text.
    #[must_use]
    pub fn encode(&self, format: MetricsFormat) -> String {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(self.clone()));
        let mut out = String::new();
        // Writing to a String cannot fail.
        let _ = match format {
            MetricsFormat::OpenMetrics => text::encode(&mut out, &registry),
            MetricsFormat::Prometheus => prometheus_text::encode(&mut out, &registry),
        };
        out
    }
}

impl Collector for Metrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let help = "The version of rpcache";
        encoder
            .encode_descriptor("rpcache_build", help, None, MetricType::Info)?
            .encode_info(&[("version", env!("CARGO_PKG_VERSION"))])?;
        FAMILIES
            .iter()
            .try_for_each(|family| self.encode_family(family, &mut encoder))
    }
}

impl Metrics {
    /// Writes all samples of one family together. A family without samples is left out.
    fn encode_family(&self, family: &Family, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let mut samples = self.parts.iter().flat_map(|part| part.samples(family));
        let Some(first) = samples.next() else {
            return Ok(());
        };
        let unit = (family.kind == MetricType::Histogram).then_some(Unit::Seconds);
        let Family {
            name, help, kind, ..
        } = *family;
        let mut encoder = encoder.encode_descriptor(name, help, unit.as_ref(), kind)?;
        std::iter::once(first)
            .chain(samples)
            .try_for_each(|(labels, value)| encode_sample(kind, &labels, &value, &mut encoder))
    }
}

type Labels<'a> = Vec<(&'static str, &'a str)>;

impl Part {
    fn samples<'a>(&'a self, family: &Family) -> Vec<(Labels<'a>, Value<'a>)> {
        let samples = match (&family.of, &self.of) {
            (Of::Both(samples), _) => samples(self),
            (Of::Client(samples), Role::Client(calls)) => samples(calls),
            (Of::Worker(samples), Role::Worker { activity, slots }) => {
                samples(activity, u64::from(*slots))
            }
            (Of::Client(_) | Of::Worker(_), _) => Vec::new(),
        };
        let role = match (&family.of, &self.of) {
            (Of::Both(_), Role::Client(_)) => Some(("role", "client")),
            (Of::Both(_), Role::Worker { .. }) => Some(("role", "worker")),
            _ => None,
        };
        let labels = |own| {
            let labels = [Some(("procedure", self.procedure.as_str())), role, own];
            labels.into_iter().flatten().collect()
        };
        samples
            .into_iter()
            .map(|sample| (labels(sample.label), sample.value))
            .collect()
    }
}

fn encode_sample(
    kind: MetricType,
    labels: &Labels<'_>,
    value: &Value<'_>,
    encoder: &mut MetricEncoder<'_>,
) -> fmt::Result {
    let mut encoder = encoder.encode_family(labels)?;
    match value {
        Value::Number(number) if kind == MetricType::Counter => {
            encoder.encode_counter::<NoLabelSet, _, f64>(number, None)
        }
        Value::Number(number) => encoder.encode_gauge(number),
        Value::Durations(durations) => {
            let bounds = BOUNDS.map(|nanos| Duration::from_nanos(nanos).as_secs_f64());
            let bounds = bounds.into_iter().chain([f64::INFINITY]);
            let buckets: Vec<_> = bounds.zip(durations.buckets()).collect();
            let count = buckets.iter().map(|(_, count)| count).sum();
            let sum = durations.sum().as_secs_f64();
            encoder.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)
        }
    }
}
