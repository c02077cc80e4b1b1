//! Draws the lines above the tables: queue, Redis, all workers together, and why nothing is answered.

use std::fmt::Write as _;
use std::time::Duration;

use ratatui::style::Style;
use ratatui::text::{Line, Span};
use rpcache::inspect::QueueDepth;

use super::super::snapshot::{Fleet, Latency, Rates, Redis, Seen, Snapshot};
use super::numbers::{percent, rate, time};
use super::{View, fitted};
use crate::text::{bytes, thousands};

/// Width of the names at the left.
const NAMES: usize = 10;

/// Width from which the line of Redis shows more.
const WIDE: usize = 100;

/// A server is shown as late after this number of intervals, and at least this time, without a result.
const LATE_INTERVALS: u32 = 3;
const LATE: Duration = Duration::from_secs(5);

pub(super) fn lines(view: View, snapshot: &Snapshot, columns: usize) -> Vec<Line<'static>> {
    let lines = [
        title(view, snapshot),
        queue(view, snapshot),
        redis(view, snapshot, columns >= WIDE),
        workers(view, snapshot),
        answers(view, snapshot),
        latencies(view, snapshot),
        standstill(view, snapshot),
    ];
    lines.into_iter().map(|line| cut(line, columns)).collect()
}

/// Cuts a line and marks the cut.
fn cut(line: Line<'static>, columns: usize) -> Line<'static> {
    let mut left = columns;
    let spans = line.spans.into_iter().map(|span| {
        let text = fitted(&span.content, left);
        left -= Span::raw(text.as_str()).width().min(left);
        Span::styled(text, span.style)
    });
    Line::from(spans.collect::<Vec<_>>())
}

fn title(view: View, snapshot: &Snapshot) -> Line<'static> {
    let mut title = format!("rpcache top  {}", snapshot.queue);
    if let Some(namespace) = &snapshot.namespace {
        // Writing to a String cannot fail.
        let _ = write!(title, "  namespace {namespace}");
    }
    let every = time(Duration::from_millis(snapshot.interval_ms).as_secs_f64() * 1e3);
    let mut spans = vec![
        Span::styled(title, view.head()),
        Span::styled(format!("  every {every}"), view.faint()),
    ];
    if view.paused {
        spans.push(Span::styled("  PAUSED", view.warning()));
    }
    Line::from(spans)
}

fn named(view: View, name: &str, spans: Vec<Span<'static>>) -> Line<'static> {
    let name = Span::styled(format!("{name:<NAMES$}"), view.faint());
    Line::from([vec![name], spans].concat())
}

/// Shows a value, or why it is unknown.
fn seen<T>(
    view: View,
    name: &str,
    seen: &Seen<T>,
    show: impl FnOnce(&T) -> Vec<Span<'static>>,
) -> Line<'static> {
    let spans = match seen {
        Seen::Waiting => vec![Span::styled("no answer yet", view.warning())],
        Seen::NotPermitted => vec![Span::styled("not permitted", view.warning())],
        Seen::Down { error } => vec![
            Span::styled("DOWN ", view.bad()),
            Span::raw(error.to_string()),
        ],
        Seen::Ok(found) => show(found),
    };
    named(view, name, spans)
}

/// Adds the time since the last result, if the next one is late.
fn late(view: View, snapshot: &Snapshot, silence: Duration, line: &mut Line<'static>) {
    let interval = Duration::from_millis(snapshot.interval_ms);
    if !view.paused && silence > (interval * LATE_INTERVALS).max(LATE) {
        let late = format!("  (no answer for {} s)", silence.as_secs());
        // At the front, where it is not cut off.
        line.spans.insert(1, Span::styled(late + "  ", view.bad()));
    }
}

fn queue(view: View, snapshot: &Snapshot) -> Line<'static> {
    let mut line = seen(view, "queue", &snapshot.broker, |depths| {
        let mut spans = depth(view, depths.requests);
        spans.push(Span::raw("   "));
        spans.push(Span::styled("dead letters  ", view.faint()));
        spans.push(match depths.dead_letters {
            QueueDepth::Missing => Span::raw("no such queue"),
            QueueDepth::Ok { ready: 0, .. } => Span::raw("none waiting"),
            QueueDepth::Ok { ready, .. } => Span::styled(
                format!("{} waiting", thousands(ready.into())),
                view.warning(),
            ),
            _ => Span::styled("not permitted", view.warning()),
        });
        spans
    });
    late(view, snapshot, snapshot.silence.broker, &mut line);
    line
}

fn depth(view: View, depth: QueueDepth) -> Vec<Span<'static>> {
    match depth {
        QueueDepth::Ok { ready, consumers } => {
            let waiting = Span::raw(format!("{} waiting, ", thousands(ready.into())));
            let consumers = match consumers {
                0 => Span::styled("no worker serves it", view.bad()),
                1 => Span::raw("1 consumer"),
                n => Span::raw(format!("{} consumers", thousands(n.into()))),
            };
            vec![waiting, consumers]
        }
        QueueDepth::Missing => vec![Span::styled("no such queue: start a worker", view.bad())],
        _ => vec![Span::styled("not permitted", view.warning())],
    }
}

fn redis(view: View, snapshot: &Snapshot, is_wide: bool) -> Line<'static> {
    let mut line = seen(view, "redis", &snapshot.redis, |redis| {
        let Redis {
            version,
            memory,
            memory_limit,
            ..
        } = redis;
        let limit = memory_limit.map_or(String::new(), |limit| format!(" of {}", bytes(limit)));
        let mut text = format!("{}{limit}", bytes(*memory));
        if let Some(rates) = redis.per_second {
            let lookups = rate(rates.hits + rates.misses);
            let hits = redis.hit_share.map_or("-".to_owned(), percent);
            let _ = write!(
                text,
                "   hits {hits} of {lookups}/s   {} commands/s",
                rate(rates.commands)
            );
            if rates.evicted > 0.0 {
                let _ = write!(text, "   evicted {}/s", rate(rates.evicted));
            }
        }
        if is_wide {
            let _ = write!(text, "   {} clients   {version}", thousands(redis.clients));
        }
        vec![Span::raw(text)]
    });
    late(view, snapshot, snapshot.silence.redis, &mut line);
    line
}

fn workers(view: View, snapshot: &Snapshot) -> Line<'static> {
    if let Seen::Down { .. } = snapshot.fleet {
        let text = "unknown: workers announce themselves in Redis";
        return named(view, "workers", vec![Span::raw(text)]);
    }
    seen(view, "workers", &snapshot.fleet, |fleet| {
        let Fleet {
            workers,
            other_workers,
            slots,
            under_way,
            held,
            ..
        } = fleet;
        if *workers == 0 {
            let mut text = "none announced in this Redis and namespace".to_owned();
            if *other_workers > 0 {
                let _ = write!(text, "; {other_workers} of other queues");
            }
            return vec![Span::styled(text, view.warning())];
        }
        let mut text = format!(
            "{}, computing {} of {} at once, {} requests held",
            thousands(*workers as u64),
            thousands(*under_way),
            thousands(*slots),
            thousands(*held)
        );
        if *other_workers > 0 {
            let _ = write!(text, "; {other_workers} of other queues");
        }
        vec![Span::raw(text)]
    })
}

fn answers(view: View, snapshot: &Snapshot) -> Line<'static> {
    let Seen::Ok(Fleet {
        per_second: Some(rates),
        ..
    }) = &snapshot.fleet
    else {
        return named(view, "answered", vec![Span::raw("-")]);
    };
    let Rates {
        answered,
        computed,
        cache,
        shared,
        failed,
        poison,
    } = *rates;
    let text = format!(
        "{}/s: computed {}, cache {}, shared {}, ",
        rate(answered),
        rate(computed),
        rate(cache),
        rate(shared)
    );
    let mut failures = format!("failed {}", rate(failed));
    if poison > 0.0 {
        let _ = write!(failures, " (poison {})", rate(poison));
    }
    let style = if failed > 0.0 {
        view.bad()
    } else {
        Style::new()
    };
    named(
        view,
        "answered",
        vec![Span::raw(text), Span::styled(failures, style)],
    )
}

fn latencies(view: View, snapshot: &Snapshot) -> Line<'static> {
    let text = match &snapshot.fleet {
        Seen::Ok(fleet) => format!(
            "requests {}   computing {}",
            latency(fleet.request_ms),
            latency(fleet.compute_ms)
        ),
        _ => "-".to_owned(),
    };
    named(view, "latency", vec![Span::raw(text)])
}

fn standstill(view: View, snapshot: &Snapshot) -> Line<'static> {
    match &snapshot.standstill {
        Some(reason) => named(
            view,
            "stopped",
            vec![Span::styled(reason.clone(), view.bad())],
        ),
        None => Line::default(),
    }
}

fn latency(Latency { p50, p99 }: Latency) -> String {
    let show = |millis: Option<f64>| millis.map_or("-".to_owned(), time);
    format!("p50 {} p99 {}", show(p50), show(p99))
}
