//! Computes and prints the report, as text or JSON.

use std::collections::BTreeMap;
use std::io::{self, Write};

use hdrhistogram::Histogram;
use rpcache::Source;
use serde::Serialize;

use super::Run;
use crate::args::{Bench, Distribution};
use crate::output::Failure;

/// Width of the longest bar, in characters.
const MAX_WIDTH: f64 = 40.0;

/// The options of the run.
#[derive(Serialize)]
pub(super) struct Setting {
    concurrency: u16,
    rate: Option<u32>,
    first: u64,
    keys: u32,
    distribution: &'static str,
    skew: Option<f64>,
    hits: Option<f64>,
    seed: u64,
}

/// The result of a run.
#[derive(Serialize)]
pub(super) struct Report {
    #[serde(flatten)]
    setting: Setting,
    seconds: f64,
    interrupted: bool,
    answered: u64,
    per_second: f64,
    sources: BTreeMap<&'static str, u64>,
    failed: u64,
    errors: BTreeMap<&'static str, u64>,
    /// Calls that were due but had not begun when the time was up.
    not_started: u64,
    /// Calls that had begun but not ended at the interrupt.
    given_up: u64,
    distinct: u64,
    computations_per_distinct: f64,
    latency_ms: Latency,
    /// Calls of the task that made the fewest, as a fraction of the mean.
    slowest_task: f64,
    histogram: Vec<Bin>,
}

#[derive(Serialize)]
struct Latency {
    min: f64,
    mean: f64,
    p50: f64,
    p90: f64,
    p99: f64,
    p99_9: f64,
    max: f64,
}

/// Counts latencies up to a limit and above that of the bin before.
#[derive(Serialize)]
struct Bin {
    up_to_ms: f64,
    count: u64,
}

impl Setting {
    pub(super) fn new(bench: &Bench) -> Self {
        let is_zipf = bench.distribution == Distribution::Zipf;
        Self {
            concurrency: bench.concurrency,
            rate: bench.rate,
            first: bench.first,
            keys: bench.keys,
            distribution: match bench.distribution {
                Distribution::Uniform => "uniform",
                Distribution::Sequential => "sequential",
                Distribution::Zipf => "zipf",
            },
            skew: is_zipf.then_some(bench.skew),
            hits: bench.hits,
            seed: bench.seed.unwrap_or_else(|| fastrand::u32(..).into()),
        }
    }

    pub(super) fn seed(&self) -> u64 {
        self.seed
    }

    /// Whether the keys are stored before the start.
    pub(super) fn stores_keys(&self) -> bool {
        self.hits.is_some()
    }
}

impl Report {
    /// The report of a run in its present state.
    pub(super) fn of(run: &Run, setting: Setting, interrupted: bool) -> Result<Self, Failure> {
        let seconds = run.pace.elapsed().as_secs_f64();
        let counts = run.tally.total();
        let counts = counts.ok_or_else(|| Failure::new(1, "no memory for the report"))?;
        let (answered, failed) = (counts.latency.len(), counts.failed());
        let by_task = run.tally.by_task();
        let fewest = by_task.iter().min().copied().unwrap_or_default();
        let mean = ratio(by_task.iter().sum(), by_task.len() as u64);
        let distinct = run.load.distinct();
        let computed = counts.sources.get(Source::Computed.as_str());
        Ok(Self {
            setting,
            seconds,
            interrupted,
            answered,
            per_second: float(answered) / seconds,
            failed,
            not_started: run.pace.not_started(),
            given_up: run.pace.begun().saturating_sub(answered + failed),
            distinct,
            computations_per_distinct: ratio(computed.copied().unwrap_or_default(), distinct),
            latency_ms: Latency::of(&counts.latency),
            slowest_task: if mean > 0.0 {
                float(fewest) / mean
            } else {
                0.0
            },
            histogram: bins(&counts.latency),
            sources: counts.sources,
            errors: counts.errors,
        })
    }

    pub(super) fn print(&self, json: bool) -> io::Result<()> {
        let mut out = io::stdout().lock();
        if json {
            serde_json::to_writer(&mut out, self)?;
            return writeln!(out);
        }
        self.write_setting(&mut out)?;
        self.write_counts(&mut out)?;
        self.write_latency(&mut out)?;
        self.write_histogram(&mut out)
    }

    fn write_setting(&self, out: &mut impl Write) -> io::Result<()> {
        let Setting {
            concurrency,
            rate,
            first,
            keys,
            distribution,
            skew,
            hits,
            seed,
        } = &self.setting;
        write!(out, "{concurrency} tasks")?;
        if let Some(rate) = rate {
            write!(out, ", {rate} calls a second due")?;
        }
        write!(out, ", {:.1} s", self.seconds)?;
        if self.interrupted {
            write!(out, " (interrupted)")?;
        }
        write!(out, "; {keys} keys from {first}, {distribution}")?;
        if let Some(skew) = skew {
            write!(out, " {skew}")?;
        }
        if let Some(hits) = hits {
            write!(out, ", stored before for {hits} of the calls")?;
        }
        writeln!(out, ", seed {seed}\n")
    }

    fn write_counts(&self, out: &mut impl Write) -> io::Result<()> {
        writeln!(
            out,
            "{:<14} {:>10}  {:.0}/s",
            "answered", self.answered, self.per_second
        )?;
        for (source, &count) in &self.sources {
            let share = percent(count, self.answered);
            write!(out, "  {source:<12} {count:>10}  {share}")?;
            if *source == Source::Computed.as_str() {
                write!(
                    out,
                    "; {:.2} for each of {} distinct arguments",
                    self.computations_per_distinct, self.distinct
                )?;
            }
            writeln!(out)?;
        }
        writeln!(out, "{:<14} {:>10}", "failed", self.failed)?;
        for (code, count) in &self.errors {
            writeln!(out, "  {code:<12} {count:>10}")?;
        }
        for (what, count) in [
            ("not started", self.not_started),
            ("given up", self.given_up),
        ] {
            if count > 0 {
                writeln!(out, "{what:<14} {count:>10}")?;
            }
        }
        writeln!(out)
    }

    fn write_latency(&self, out: &mut impl Write) -> io::Result<()> {
        let Latency {
            p50,
            p90,
            p99,
            p99_9,
            max,
            ..
        } = self.latency_ms;
        writeln!(
            out,
            "{:<14} {:>10} {:>10} {:>10} {:>10} {:>10}",
            "latency, ms", "p50", "p90", "p99", "p99.9", "max"
        )?;
        writeln!(
            out,
            "{:<14} {p50:>10.3} {p90:>10.3} {p99:>10.3} {p99_9:>10.3} {max:>10.3}",
            ""
        )?;
        let slowest = self.slowest_task * 100.0;
        writeln!(out, "{:<14} {slowest:>8.0} % of the mean\n", "slowest task")
    }

    fn write_histogram(&self, out: &mut impl Write) -> io::Result<()> {
        let most = self.histogram.iter().map(|bin| bin.count).max();
        for Bin { up_to_ms, count } in &self.histogram {
            let length = MAX_WIDTH * ratio(*count, most.unwrap_or_default());
            let share = percent(*count, self.answered);
            writeln!(out, "to {up_to_ms:>7} ms {share:>10}  {}", bar(length))?;
        }
        Ok(())
    }
}

impl Latency {
    fn of(latency: &Histogram<u64>) -> Self {
        let at = |quantile| milliseconds(float(latency.value_at_quantile(quantile)));
        Self {
            min: milliseconds(float(latency.min())),
            mean: milliseconds(latency.mean()),
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p99_9: at(0.999),
            max: milliseconds(float(latency.max())),
        }
    }
}

/// Bins with the limits 1, 2 and 5 times each power of ten, from the smallest latency to the largest.
fn bins(latency: &Histogram<u64>) -> Vec<Bin> {
    // From 1 µs to 5 * 10^8 s.
    let ends = (3..18).flat_map(|power| [1, 2, 5].map(|n| n * 10_u64.pow(power)));
    let mut recorded = latency.iter_recorded().peekable();
    let mut bins = Vec::new();
    for end in ends {
        let mut count = 0;
        while let Some(these) = recorded.next_if(|these| these.value_iterated_to() < end) {
            count += these.count_at_value();
        }
        if count > 0 || !bins.is_empty() {
            let up_to_ms = float(end) / 1e6;
            bins.push(Bin { up_to_ms, count });
        }
        if recorded.peek().is_none() {
            break;
        }
    }
    bins
}

/// A bar of a length in characters, in steps of an eighth. Any length above 0 is visible.
fn bar(length: f64) -> String {
    const PARTS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];
    if length <= 0.0 {
        return String::new();
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "from 1 to 8 times the maximum width"
    )]
    let eighths = (length * 8.0).round().max(1.0) as usize;
    "█".repeat(eighths / 8) + PARTS[eighths % 8]
}

fn percent(part: u64, whole: u64) -> String {
    match ratio(part, whole) * 100.0 {
        share if share > 0.0 && share < 0.01 => "< 0.01 %".to_owned(),
        share => format!("{share:.2} %"),
    }
}

/// A fraction; 0 if the whole is 0.
fn ratio(part: u64, whole: u64) -> f64 {
    match whole {
        0 => 0.0,
        whole => float(part) / float(whole),
    }
}

/// Nanoseconds as milliseconds, rounded to microseconds.
fn milliseconds(nanos: f64) -> f64 {
    (nanos / 1e3).round() / 1e3
}

#[expect(clippy::cast_precision_loss, reason = "for display")]
fn float(number: u64) -> f64 {
    number as f64
}

#[cfg(test)]
mod tests;
