//! Formats the report of a run as a table of text.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::fmt::{self, Display};
use std::time::Duration;

use hdrhistogram::Histogram;

use crate::fault::Fault;
use crate::ledger::{Errors, Stored, Tally};
use crate::report::Report;
use crate::timeline::Count;
use crate::usage::{Growth, Usage};

/// The number of faults that are listed for an error.
const MAX_SHOWN: usize = 6;

#[derive(Default)]
struct Table(String);

impl Table {
    fn row(&mut self, name: impl Display, value: impl Display) {
        use fmt::Write as _;
        writeln!(self.0, "{:<26}{value}", name.to_string()).expect("a String can be written to");
    }
}

pub(crate) fn of(report: &Report) -> String {
    let mut table = Table::default();
    let length = report.took.as_secs();
    table.row("seed", report.seed);
    table.row(
        "length",
        format!(
            "{length} s{}",
            if report.interrupted {
                ", interrupted"
            } else {
                ""
            }
        ),
    );
    let counts = report.timeline.counts();
    let injected = counts.values().map(|count| count.injected);
    table.row("faults", injected.sum::<u64>());
    for (fault, Count { injected, skipped }) in &counts {
        let skipped = match skipped {
            0 => String::new(),
            skipped => format!(", and {skipped} times skipped"),
        };
        table.row(format!("  {fault}"), format!("{injected}{skipped}"));
    }
    let tally = report.ledger.tally();
    calls(&mut table, &tally);
    latencies(&mut table, &tally);
    beside_hostile(&mut table, &tally);
    drop(tally);
    pauses(&mut table, report);
    let tally = report.ledger.tally();
    if !tally.recoveries.is_empty() {
        let recoveries: Vec<_> = tally.recoveries.iter().map(recovery).collect();
        table.row("broker back, first", recoveries.join(", "));
    }
    table.row("workers aborted", tally.aborted_workers);
    table.row("worker exits", format!("{:?}", tally.worker_exits));
    table.row("worker logs", format!("{} kB", tally.log_bytes / 1024));
    table.row("process", "rss MB start, end; descriptors; threads");
    for growth in &report.growths {
        table.row(format!("  {}", growth.name), grown(growth));
    }
    for problem in report.timeline.problems() {
        table.row("driver problem", problem);
    }
    table.0
}

fn calls(table: &mut Table, tally: &Tally) {
    table.row("calls", tally.ended);
    for (source, count) in &tally.answers {
        table.row(format!("  {source}"), count);
    }
    for (code, errors) in &tally.errors {
        table.row(
            format!("  {code}"),
            format!("{} ({})", errors.count, errors.example),
        );
        for line in by_timeout(errors) {
            table.row("", line);
        }
    }
    table.row("wrong", tally.wrong);
    table.row("lost", tally.lost);
    table.row("late", tally.late);
    table.row("broken", tally.broken);
    let stall = tally.stalls.values().max().unwrap_or(&0) / 1000;
    table.row("longest own stall", format!("{stall} ms"));
    let Stored { hits, excused } = tally.stored;
    if hits + excused > 0 {
        table.row(
            "stored answers",
            format!("{hits} hits, {excused} misses in a stall"),
        );
    }
    let computed = &tally.computed;
    table.row(
        "computed",
        format!(
            "{} of {} keys; {} overlapping, {} again at once",
            computed.total,
            computed.keys(),
            computed.overlapping,
            computed.again
        ),
    );
}

/// For each timeout, the longest first: the number of errors, and the share of them under each fault.
fn by_timeout(errors: &Errors) -> Vec<String> {
    let mut timeouts: BTreeMap<u64, (u64, BTreeMap<&str, u64>)> = BTreeMap::new();
    for ((timeout_ms, faults), count) in &errors.by {
        let (all, under) = timeouts.entry(*timeout_ms).or_default();
        *all += count;
        for fault in faults.split('+') {
            *under.entry(fault).or_default() += count;
        }
    }
    let line = |(timeout_ms, (errors, under)): (&u64, &(u64, BTreeMap<&str, u64>))| {
        let mut under: Vec<_> = under
            .iter()
            .map(|(fault, count)| (100 * count / errors, *fault))
            .collect();
        under.sort_by_key(|(share, _)| Reverse(*share));
        let under: Vec<_> = under
            .iter()
            .take(MAX_SHOWN)
            .map(|(share, fault)| format!("{fault} {share} %"))
            .collect();
        format!("  {errors} with {timeout_ms} ms: {}", under.join(", "))
    };
    timeouts.iter().rev().map(line).collect()
}

fn latencies(table: &mut Table, tally: &Tally) {
    table.row("latency, ms", "     p50      p99      max    calls");
    for ((kind, faulty), latencies) in &tally.latencies {
        let at = |quantile| millis(latencies.value_at_quantile(quantile));
        let name = format!(
            "  {kind}, {}",
            if *faulty { "under faults" } else { "no fault" }
        );
        let (max, calls) = (millis(latencies.max()), latencies.len());
        table.row(
            name,
            format!("{:>8.1} {:>8.1} {max:>8.1} {calls:>8}", at(0.5), at(0.99)),
        );
    }
}

/// The 99th percentile of calls with and without a hostile publisher.
fn beside_hostile(table: &mut Table, tally: &Tally) {
    for kind in ["hit", "miss"] {
        let [with, without] =
            [true, false].map(|hostile| tally.beside_hostile.get(&(kind, hostile)));
        let (Some(with), Some(without)) = (with, without) else {
            continue;
        };
        let p99 = |latencies: &Histogram<u64>| millis(latencies.value_at_quantile(0.99));
        table.row(
            format!("{kind} p99, hostile peer"),
            format!(
                "{:.1} ms with, {:.1} ms without ({} and {} calls)",
                p99(with),
                p99(without),
                with.len(),
                without.len()
            ),
        );
    }
}

/// For each fault of several servers, the longest pauses between answers: the median and the maximum of all times that it
/// was injected.
fn pauses(table: &mut Table, report: &Report) {
    let mut by_fault: BTreeMap<Fault, [Vec<Duration>; 2]> = BTreeMap::new();
    for (injected, pauses) in report.pauses() {
        let of = by_fault.entry(injected.fault).or_default();
        of.iter_mut()
            .zip(pauses)
            .for_each(|(of, pause)| of.push(pause));
    }
    if by_fault.is_empty() {
        return;
    }
    table.row(
        "longest pause, s",
        "hits: median, max; computed: median, max",
    );
    for (fault, pauses) in by_fault {
        let [hits, computed] = pauses.map(|mut pauses| {
            pauses.sort();
            let at = |position: usize| pauses[position].as_secs_f64();
            format!(
                "{:>6.2} {:>6.2}",
                at(pauses.len() / 2),
                at(pauses.len() - 1)
            )
        });
        table.row(format!("  {fault}"), format!("{hits}; {computed}"));
    }
}

fn recovery((accepts, first): &(u64, Option<u64>)) -> String {
    first.map_or("never".to_owned(), |first| {
        format!("{:.0} ms", millis(first - accepts))
    })
}

fn grown(Growth { start, end, .. }: &Growth) -> String {
    let both = |of: fn(&Usage) -> u64| {
        let one = |usage: &Option<Usage>| {
            usage
                .as_ref()
                .map_or("-".to_owned(), |usage| of(usage).to_string())
        };
        format!("{:>4} {:>4}", one(start), one(end))
    };
    let [rss, descriptors, threads] = [
        both(|usage| usage.rss_kb / 1024),
        both(|usage| usage.descriptors),
        both(|usage| usage.threads),
    ];
    format!("{rss}; {descriptors}; {threads}")
}

#[expect(clippy::cast_precision_loss, reason = "for people")]
fn millis(micros: u64) -> f64 {
    micros as f64 / 1000.0
}
