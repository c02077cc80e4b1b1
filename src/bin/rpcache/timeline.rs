//! `rpcache call --trace`: where the time of this one call went, without any collector.
//!
//! The library tells its steps as spans; here they are kept, and shown when the call has ended. What a
//! worker told of its own steps comes as events.

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

/// Of the library's spans, and of the events below it in which it repeats what a worker told.
pub(crate) const SPANS: &str = "rpcache::trace";

/// A call has a dozen; one that is tried for minutes has more, and nobody reads them all.
const MOST_SPANS: usize = 200;

/// What is recorded of one call. Clones are the same one.
#[derive(Debug, Clone, Default)]
pub(crate) struct Timeline(Arc<Mutex<Vec<Recorded>>>);

/// A step of the client.
#[derive(Debug, Clone)]
struct Recorded {
    parent: Option<usize>,
    name: &'static str,
    begun: Instant,
    ended: Option<Instant>,
    fields: Fields,
    worker: Worker,
}

/// What is shown of a span's or an event's fields.
#[derive(Debug, Clone, Default)]
struct Fields {
    key: Option<String>,
    /// Where an answer came from, what a look into Redis found, or why there is nothing.
    result: Option<String>,
    replied: bool,
    step: Option<String>,
    started: Duration,
    took: Duration,
    total: Option<Duration>,
}

/// What a worker told.
#[derive(Debug, Clone, Default)]
struct Worker {
    steps: Vec<Told>,
    total: Option<Duration>,
}

#[derive(Debug, Clone)]
struct Told {
    name: String,
    /// Since it took the request.
    started: Duration,
    took: Duration,
}

/// Where a span stands among the recorded ones.
struct Place(usize);

impl Timeline {
    /// What the layer has to be asked for, and nothing else.
    pub(crate) fn filter() -> Targets {
        Targets::new().with_target(SPANS, LevelFilter::TRACE)
    }

    /// The steps of the call that has ended.
    pub(crate) fn rows(&self) -> Vec<Row> {
        rows::of(&self.lock())
    }

    /// Shows them on stderr: answers alone go to stdout.
    pub(crate) fn print(&self) {
        let text = rows::text(&self.rows());
        // Nobody reads it: there is no other place to say so.
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
        let parent = parent.and_then(|parent| Some(parent.extensions().get::<Place>()?.0));
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        let mut spans = self.lock();
        if spans.len() >= MOST_SPANS {
            return;
        }
        span.extensions_mut().insert(Place(spans.len()));
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
            span.worker.steps.extend(fields.step.map(|name| Told {
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
        let place = place.and_then(|span| Some(span.extensions().get::<Place>()?.0));
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
