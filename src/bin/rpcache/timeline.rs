//! `rpcache call --trace`: records the steps of one call and prints their durations, without a collector.
//!
//! The steps of the client are the library's spans. The steps that a worker reports in its reply are events.

mod rows;

use std::io::Write;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

pub(crate) use self::rows::Row;
use crate::stderr;

/// Target of the library's spans; the events with the steps of a worker have a target below it.
pub(crate) const SPANS: &str = "rpcache::trace";

/// Limit of recorded spans. A call has about twelve; one that is retried for minutes has more.
const MAX_SPANS: usize = 200;

/// The recorded steps of one call. Clones share them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Timeline(Arc<Mutex<Vec<Recorded>>>);

/// A recorded span: a step of the client.
#[derive(Debug, Clone)]
struct Recorded {
    parent: Option<usize>,
    name: &'static str,
    begun: Instant,
    ended: Option<Instant>,
    fields: Fields,
    worker: Worker,
}

/// The fields of a span or event that are shown.
#[derive(Debug, Clone, Default)]
struct Fields {
    key: Option<String>,
    /// The source of the answer, the result of a lookup, or an error's code.
    result: Option<String>,
    replied: bool,
    step: Option<String>,
    started: Duration,
    took: Duration,
    total: Option<Duration>,
}

/// The steps that a worker reported.
#[derive(Debug, Clone, Default)]
struct Worker {
    steps: Vec<WorkerStep>,
    total: Option<Duration>,
}

#[derive(Debug, Clone)]
struct WorkerStep {
    name: String,
    /// Time since the worker took the request.
    started: Duration,
    took: Duration,
}

/// Index of a span among the recorded ones.
struct Index(usize);

impl Timeline {
    /// The filter that passes nothing but these spans and events.
    pub(crate) fn filter() -> Targets {
        Targets::new().with_target(SPANS, LevelFilter::TRACE)
    }

    /// The steps of the finished call.
    pub(crate) fn rows(&self) -> Vec<Row> {
        rows::of(&self.lock())
    }

    /// Prints the steps on stderr, because stdout is for answers.
    pub(crate) fn print(&self) {
        let text = rows::text(&self.rows());
        // If stderr cannot be written, there is no other place for them.
        let _ = stderr::direct().write_all(text.as_bytes());
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Recorded>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Timeline {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        let parent = span.parent();
        let parent = parent.and_then(|parent| Some(parent.extensions().get::<Index>()?.0));
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        let mut spans = self.lock();
        if spans.len() >= MAX_SPANS {
            return;
        }
        span.extensions_mut().insert(Index(spans.len()));
        spans.push(Recorded {
            parent,
            name: attributes.metadata().name(),
            begun: Instant::now(),
            ended: None,
            fields,
            worker: Worker::default(),
        });
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        self.change(id, &context, |span| values.record(&mut span.fields));
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let Some(span) = context.event_span(event) else {
            return;
        };
        self.change(&span.id(), &context, |span| {
            span.worker.total = fields.total.or(span.worker.total);
            span.worker.steps.extend(fields.step.map(|name| WorkerStep {
                name,
                started: fields.started,
                took: fields.took,
            }));
        });
    }

    fn on_close(&self, id: Id, context: Context<'_, S>) {
        self.change(&id, &context, |span| span.ended = Some(Instant::now()));
    }
}

impl Timeline {
    fn change<S: Subscriber + for<'a> LookupSpan<'a>>(
        &self,
        id: &Id,
        context: &Context<'_, S>,
        change: impl FnOnce(&mut Recorded),
    ) {
        let place = context.span(id);
        let place = place.and_then(|span| Some(span.extensions().get::<Index>()?.0));
        if let Some(place) = place {
            self.lock().get_mut(place).map(change);
        }
    }
}

impl Visit for Fields {
    fn record_u64(&mut self, field: &Field, value: u64) {
        let value = Duration::from_micros(value);
        match field.name() {
            "started_us" => self.started = value,
            "took_us" => self.took = value,
            "total_us" => self.total = Some(value),
            _ => {}
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "rpcache.source" | "rpcache.result" | "error.type" => {
                self.result = Some(value.to_owned());
            }
            "rpcache.replied" => self.replied = true,
            "step" => self.step = Some(value.to_owned()),
            _ => {}
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        if field.name() == "rpcache.key" {
            self.key = Some(format!("{value:?}"));
        }
    }
}
