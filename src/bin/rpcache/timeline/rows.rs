//! Turns recorded spans into rows, one per step, indented below the step that it is part of. Pure.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::{Recorded, WorkerStep};

/// Widths in columns, for 80 in all: of the step's name, and of its bar.
const LABEL: usize = 38;
const BAR: u8 = 28;

/// Shorter waits of a worker are not shown.
const MIN_WAIT: Duration = Duration::from_micros(10);

/// A step with its duration.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Row {
    /// Its path, such as `call.request.worker.compute`.
    step: String,
    #[serde(skip)]
    label: String,
    /// Time since the start of the call.
    start_ms: f64,
    took_ms: f64,
    /// Source of the answer, result of a lookup, or code of an error.
    #[serde(skip_serializing_if = "Option::is_none")]
    result: Option<String>,
}

impl Row {
    fn depth(&self) -> usize {
        self.step.matches('.').count()
    }
}

/// The rows, in the order in which the steps began. Empty if nothing was recorded.
pub(super) fn of(spans: &[Recorded]) -> Vec<Row> {
    let mut tree = Tree {
        spans,
        rows: Vec::new(),
        begun: Instant::now(),
        ended: Instant::now(),
    };
    if let Some(call) = spans.iter().position(|span| span.parent.is_none()) {
        tree.begun = spans[call].begun;
        tree.ended = spans[call].ended.unwrap_or(tree.ended);
        tree.add(call, "");
    }
    tree.rows
}

struct Tree<'a> {
    spans: &'a [Recorded],
    rows: Vec<Row>,
    begun: Instant,
    /// End of the call. Steps that have not ended are cut here, such as waiting for a confirm after the reply.
    ended: Instant,
}

impl Tree<'_> {
    fn add(&mut self, place: usize, path: &str) {
        let span = &self.spans[place];
        let (key, result) = (span.fields.key.clone(), span.fields.result.clone());
        let label = match span.name {
            "call" => key.unwrap_or_default(),
            name => label(name).unwrap_or(name).to_owned(),
        };
        let path = format!("{path}{}", span.name);
        self.push(path.clone(), label, span.begun, self.end(span), result);
        let path = path + ".";
        let children = (place..self.spans.len()).filter(|&n| self.spans[n].parent == Some(place));
        for child in children.collect::<Vec<_>>() {
            self.add(child, &path);
        }
        if span.name == "request" {
            self.add_worker(place, &path);
        }
    }

    fn end(&self, span: &Recorded) -> Instant {
        span.ended.unwrap_or(self.ended).min(self.ended)
    }

    /// Adds the rows between a request and its reply. Clocks of two machines are not compared: the worker reports its
    /// total, and the rest is the time in the queue and on the network.
    fn add_worker(&mut self, request: usize, path: &str) {
        let span = &self.spans[request];
        let is_sent = |sent: &&Recorded| sent.name == "send" && sent.parent == Some(request);
        let Some(sent) = self.spans.iter().find(is_sent).map(|sent| sent.begun) else {
            return;
        };
        let replied = self.end(span);
        let push = |tree: &mut Self, step: &str, label: &str, begun, ended| {
            tree.push(
                format!("{path}{step}"),
                label.to_owned(),
                begun,
                ended,
                None,
            );
        };
        let total = match span.worker.total {
            _ if !span.fields.replied => return push(self, "wait", "no reply", sent, replied),
            None => {
                let label = "queue and worker (not reported)";
                return push(self, "worker", label, sent, replied);
            }
            Some(total) => total,
        };
        // The worker is placed at the end, because the way back has no queue to wait in.
        let taken = replied.checked_sub(total).unwrap_or(sent).max(sent);
        let within = |begun: Instant| begun.min(replied);
        push(self, "queue", "queue and network", sent, taken);
        push(self, "worker", "worker", taken, replied);
        for WorkerStep {
            name,
            started,
            took,
        } in &span.worker.steps
        {
            if name.ends_with("-wait") && *took < MIN_WAIT {
                continue;
            }
            let label = label(name).unwrap_or(name);
            let (begun, ended) = (taken + *started, taken + *started + *took);
            let step = format!("worker.{name}");
            push(self, &step, label, within(begun), within(ended));
        }
    }

    fn push(
        &mut self,
        step: String,
        label: String,
        begun: Instant,
        ended: Instant,
        result: Option<String>,
    ) {
        self.rows.push(Row {
            step,
            label,
            start_ms: milliseconds(begun.saturating_duration_since(self.begun)),
            took_ms: milliseconds(ended.saturating_duration_since(begun)),
            result,
        });
    }
}

fn label(name: &str) -> Option<&'static str> {
    Some(match name {
        "connect-redis" => "connect to Redis",
        "lookup" => "look in Redis",
        "shared-flight" => "wait for another call",
        "connect-rabbitmq" => "connect to RabbitMQ",
        "send" => "publish, until confirmed",
        "slot-wait" => "wait for a slot",
        "lease-wait" => "wait for another worker",
        "fill" => "store in Redis",
        _ => return None,
    })
}

/// Rounded to microseconds.
fn milliseconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}

/// Formats the rows as a table with bars, in 80 columns.
pub(super) fn text(rows: &[Row]) -> String {
    let whole = rows.first().map_or(0.0, |call| call.took_ms);
    let mut text = String::new();
    for row in rows {
        let indent = 2 * row.depth();
        let result = row.result.as_ref().map(|result| format!(": {result}"));
        let label = format!("{}{}", row.label, result.unwrap_or_default());
        let label = shortened(&label, LABEL - indent);
        let bar = bar(row.start_ms, row.took_ms, whole);
        let width = LABEL - indent;
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "{:indent$}{label:<width$} {:>9.2} ms {bar}",
            "", row.took_ms
        );
    }
    text
}

fn shortened(label: &str, columns: usize) -> String {
    if label.chars().count() <= columns {
        return label.to_owned();
    }
    let kept: String = label.chars().take(columns.saturating_sub(1)).collect();
    kept + "…"
}

/// A bar that shows start and duration within the whole.
fn bar(start: f64, took: f64, whole: f64) -> String {
    let share = |part: f64| {
        if whole > 0.0 {
            (part / whole).clamp(0.0, 1.0)
        } else {
            0.0
        }
    };
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "between 0 and the width"
    )]
    let columns = |part: f64| (share(part) * f64::from(BAR)).round() as usize;
    let length = columns(took);
    let from = columns(start).min(usize::from(BAR) - length.max(1));
    let bar = match length {
        0 => "▏".to_owned(),
        length => "█".repeat(length),
    };
    " ".repeat(from) + &bar
}

#[cfg(test)]
mod tests {
    use super::super::{Fields, Worker};
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn span(parent: usize, name: &'static str, [from, to]: [u32; 2], begun: Instant) -> Recorded {
        Recorded {
            parent: (name != "call").then_some(parent),
            name,
            begun: begun + MS * from,
            ended: Some(begun + MS * to),
            fields: Fields::default(),
            worker: Worker::default(),
        }
    }

    /// A miss of 100 ms: 10 ms in Redis, 90 ms for the request, which was sent after 20 ms of them.
    fn miss() -> Vec<Recorded> {
        let begun = Instant::now();
        let mut spans = vec![
            span(0, "call", [0, 100], begun),
            span(0, "lookup", [0, 10], begun),
            span(0, "request", [10, 100], begun),
            span(2, "connect-rabbitmq", [10, 30], begun),
            span(2, "send", [30, 40], begun),
        ];
        spans[0].fields.key = Some("fib:30".to_owned());
        spans[0].fields.result = Some("computed".to_owned());
        spans[2].fields.replied = true;
        spans
    }

    fn step(name: &str, started: u32, took: u32) -> WorkerStep {
        WorkerStep {
            name: name.to_owned(),
            started: MS * started,
            took: MS * took,
        }
    }

    #[test]
    fn the_worker_is_at_the_end_of_the_request_and_the_rest_is_the_queue() {
        let mut spans = miss();
        spans[2].worker = Worker {
            steps: vec![
                step("slot-wait", 0, 0),
                step("compute", 5, 20),
                step("new", 25, 5),
            ],
            total: Some(MS * 30),
        };
        let shown = text(&of(&spans));
        let expected = "\
fib:30: computed                          100.00 ms ████████████████████████████
  look in Redis                            10.00 ms ███
  request                                  90.00 ms    █████████████████████████
    connect to RabbitMQ                    20.00 ms    ██████
    publish, until confirmed               10.00 ms         ███
    queue and network                      40.00 ms         ███████████
    worker                                 30.00 ms                     ████████
      compute                              20.00 ms                      ██████
      new                                   5.00 ms                            █
";
        assert_eq!(shown, expected, "\n{shown}");
    }

    #[test]
    fn a_worker_that_reports_more_than_the_whole_leaves_nothing_for_the_queue() {
        let mut spans = miss();
        spans[2].worker.total = Some(MS * 100_000);
        let rows = of(&spans);
        let took = |step: &str| rows.iter().find(|row| row.step == step).unwrap().took_ms;
        assert!(took("call.request.queue") < 0.001);
        assert!((took("call.request.worker") - 70.0).abs() < 0.001);
    }

    #[test]
    fn a_step_that_did_not_end_lasts_until_the_end_of_the_call() {
        let mut spans = miss();
        spans[2].fields.replied = false;
        for span in &mut spans[2..] {
            span.ended = None;
        }
        let rows = of(&spans);
        let last = rows.last().unwrap();
        assert_eq!(
            (last.label.as_str(), last.start_ms, last.took_ms),
            ("no reply", 30.0, 70.0)
        );
    }

    #[test]
    fn without_spans_nothing_is_shown() {
        assert_eq!(text(&of(&[])), "");
    }

    #[test]
    fn lines_fit_80_columns() {
        let mut spans = miss();
        spans[0].fields.key = Some("é".repeat(300));
        for spans in [spans, vec![span(0, "call", [0, 0], Instant::now())]] {
            let shown = text(&of(&spans));
            assert!(
                shown.lines().all(|line| line.chars().count() <= 80),
                "{shown}"
            );
        }
    }
}
