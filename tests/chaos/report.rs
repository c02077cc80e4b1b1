//! The result of a run: whether it failed, and its figures as JSON. `table` formats them for people.

use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use crate::args::Args;
use crate::ledger::{Errors, Ledger};
use crate::timeline::{Injected, Timeline};
use crate::usage::Growth;

pub(crate) struct Report {
    pub(crate) seed: u64,
    pub(crate) took: Duration,
    pub(crate) interrupted: bool,
    pub(crate) growths: Vec<Growth>,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) timeline: Arc<Timeline>,
}

impl Report {
    /// Descriptions of everything that makes the run a failure.
    pub(crate) fn failures(&self) -> Vec<String> {
        let tally = self.ledger.tally();
        let mut failures = tally.failures.clone();
        failures.extend(tally.leaks.iter().map(|leak| format!("leak: {leak}")));
        let growing = self.growths.iter().filter(|growth| growth.is_leak());
        failures.extend(growing.map(|growth| format!("leak: {} has grown", growth.name)));
        if tally.ended == 0 {
            failures.push("no call was made".to_owned());
        }
        failures
    }

    /// For each fault of several servers: the longest pauses of hits and of computed answers from its beginning to a
    /// moment after its repair.
    pub(crate) fn pauses(&self) -> Vec<(Injected, [Duration; 2])> {
        let tally = self.ledger.tally();
        let injected = self.timeline.of_nodes().into_iter();
        let pauses = injected.map(|injected| {
            let pauses = tally.pauses.between(injected.start, injected.end);
            (injected, pauses)
        });
        pauses.collect()
    }

    pub(crate) fn json(&self, args: &Args) -> Value {
        let pauses = self.pauses().into_iter();
        let pauses = pauses.map(|(Injected { fault, start, end }, [hits, computed])| {
            json!({"fault": fault.to_string(), "lasted_us": end - start,
                "hits_ms": hits.as_millis(), "computed_ms": computed.as_millis()})
        });
        let pauses: Vec<_> = pauses.collect();
        let failures = self.failures();
        let tally = self.ledger.tally();
        let faults = self
            .timeline
            .counts()
            .into_iter()
            .map(|(fault, count)| (fault.to_string(), json!(count)));
        let errors = tally
            .errors
            .iter()
            .map(|(code, errors)| (code.clone(), errors.json()));
        let answers = tally
            .answers
            .iter()
            .map(|(source, count)| (source.clone(), (*count).into()));
        let latencies = tally.latencies.iter().map(|((kind, faulty), latencies)| {
            let at = |quantile| latencies.value_at_quantile(quantile);
            json!({"of": kind, "under_faults": faulty, "calls": latencies.len(),
                "p50_us": at(0.5), "p99_us": at(0.99), "p999_us": at(0.999), "max_us": latencies.max()})
        });
        let beside_hostile = tally
            .beside_hostile
            .iter()
            .map(|((kind, hostile), latencies)| {
                json!({"of": kind, "hostile_publisher": hostile, "calls": latencies.len(),
                "p99_us": latencies.value_at_quantile(0.99)})
            });
        let exits = tally
            .worker_exits
            .iter()
            .map(|(code, count)| json!({"code": code, "count": count}));
        json!({
            "date": output_of("date", &["-u", "+%FT%TZ"]),
            "commit": output_of("git", &["describe", "--always", "--dirty"]),
            "machine": machine(),
            "seed": self.seed,
            "seconds": self.took.as_secs_f64(),
            "interrupted": self.interrupted,
            "topology": format!("{:?}", args.topology()).to_lowercase(),
            "selection": args.faults.to_string(),
            "apart": args.apart,
            "workers": args.workers,
            "clients": args.clients,
            "callers": args.load.callers,
            "rate": args.load.rate,
            "hits": args.load.hits,
            "crashers": args.load.crashers,
            "ttl_ms": args.load.ttl_ms,
            "faults": faults.collect::<serde_json::Map<_, _>>(),
            "calls": tally.ended,
            "answers": answers.collect::<serde_json::Map<_, _>>(),
            "errors": errors.collect::<serde_json::Map<_, _>>(),
            "wrong": tally.wrong,
            "lost": tally.lost,
            "late": tally.late,
            "broken": tally.broken,
            "aborted_workers": tally.aborted_workers,
            "longest_own_stall_us": tally.stalls.values().max(),
            "computed": {"calls": tally.computed.total, "keys": tally.computed.keys(),
                "overlapping": tally.computed.overlapping, "again_at_once": tally.computed.again},
            "latencies": latencies.collect::<Vec<_>>(),
            "stored": {"hits": tally.stored.hits, "misses_in_a_stall": tally.stored.excused},
            "beside_hostile": beside_hostile.collect::<Vec<_>>(),
            "recoveries_us": tally.recoveries.iter().map(|(accepts, first)| first.map(|first| first - accepts)).collect::<Vec<_>>(),
            "pauses": pauses,
            "worker_exits": exits.collect::<Vec<_>>(),
            "processes": self.growths,
            "worker_log_bytes": tally.log_bytes,
            "failures": failures,
            "driver_problems": self.timeline.problems(),
        })
    }
}

impl Errors {
    fn json(&self) -> Value {
        let by = self.by.iter().map(|((timeout_ms, faults), count)| json!({"timeout_ms": timeout_ms, "faults": faults, "count": count}));
        json!({"count": self.count, "example": self.example, "by": by.collect::<Vec<_>>()})
    }
}

fn machine() -> String {
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    let value = |text: &str, name: &str| {
        let line = text.lines().find(|line| line.starts_with(name));
        line.and_then(|line| line.split_once(':'))
            .map_or(String::new(), |(_, value)| value.trim().to_owned())
    };
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    format!(
        "{cores} x {}, {} memory",
        value(&read("/proc/cpuinfo"), "model name"),
        value(&read("/proc/meminfo"), "MemTotal")
    )
}

fn output_of(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    output.map_or(String::new(), |output| {
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    })
}
