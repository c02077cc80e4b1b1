//! Counts every call, and judges it by the faults that were active while it ran: wrong, lost, late or broken.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::sync::{Arc, Mutex, MutexGuard};

use hdrhistogram::Histogram;

use crate::call::{Argument, Batch, Call, Clock, Outcome, micros};
use crate::client::PATIENT;
use crate::computed::Computed;
use crate::crasher;
use crate::excuse::Excuse;
use crate::fault::{Fault, Scope};
use crate::oracle;
use crate::pauses::{Pauses, Stream};
use crate::stall::Ticker;
use crate::timeline::Timeline;

/// Failures beyond this number are counted but not described.
const MAX_DESCRIBED: usize = 10;

/// Longer than any call takes, in microseconds.
const LONGEST: u64 = 100_000_000;

/// Time to connect and to fill the cache, in microseconds.
const WARM_UP: u64 = 2_000_000;

pub(crate) struct Ledger {
    clock: Clock,
    began: u64,
    timeline: Arc<Timeline>,
    excuse: Excuse,
    /// Stalls of this process, which forwards the traffic of every call.
    ticker: Ticker,
    tally: Mutex<Tally>,
}

/// All counts of a run so far.
pub(crate) struct Tally {
    pub(crate) ended: u64,
    /// Calls begun, by client.
    pub(crate) begun: BTreeMap<usize, u64>,
    pub(crate) answers: BTreeMap<String, u64>,
    pub(crate) wrong: u64,
    pub(crate) lost: u64,
    pub(crate) late: u64,
    /// Patient calls that ended in an error no fault explains, misses of stored answers, and other effects that a
    /// fault must not have.
    pub(crate) broken: u64,
    /// Workers that aborted because of an argument of the crasher.
    pub(crate) aborted_workers: u64,
    /// Descriptions of what was wrong, lost, late or broken.
    pub(crate) failures: Vec<String>,
    pub(crate) errors: BTreeMap<String, Errors>,
    pub(crate) latencies: BTreeMap<(&'static str, bool), Histogram<u64>>,
    /// Latencies with and without a hostile publisher, while no server is under another fault.
    pub(crate) beside_hostile: BTreeMap<(&'static str, bool), Histogram<u64>>,
    pub(crate) stored: Stored,
    pub(crate) computed: Computed,
    pub(crate) pauses: Pauses,
    /// The longest stall of each client process, in microseconds.
    pub(crate) stalls: BTreeMap<usize, u64>,
    /// When a killed broker accepted connections again, and the first computed answer after that.
    pub(crate) recoveries: Vec<(u64, Option<u64>)>,
    /// Exit codes of workers after SIGTERM, and how often each; `None`: it had to be killed.
    pub(crate) worker_exits: BTreeMap<Option<i32>, u64>,
    pub(crate) leaks: Vec<String>,
    /// Bytes that all processes logged.
    pub(crate) log_bytes: u64,
}

/// Calls for answers that were stored just before.
#[derive(Default)]
pub(crate) struct Stored {
    pub(crate) hits: u64,
    /// Misses while a process was not scheduled.
    pub(crate) excused: u64,
}

/// The errors of one code.
#[derive(Default)]
pub(crate) struct Errors {
    pub(crate) count: u64,
    /// How many, by the timeout of the call in milliseconds and the active faults.
    pub(crate) by: BTreeMap<(u64, String), u64>,
    /// The first message.
    pub(crate) example: String,
}

impl Ledger {
    pub(crate) fn new(
        clock: Clock,
        timeline: Arc<Timeline>,
        excuse: Excuse,
        ticker: Ticker,
    ) -> Self {
        let tally = Tally {
            ended: 0,
            begun: BTreeMap::new(),
            answers: BTreeMap::new(),
            wrong: 0,
            lost: 0,
            late: 0,
            broken: 0,
            aborted_workers: 0,
            failures: Vec::new(),
            errors: BTreeMap::new(),
            latencies: BTreeMap::new(),
            beside_hostile: BTreeMap::new(),
            stored: Stored::default(),
            computed: Computed::default(),
            pauses: Pauses::new(clock.now()),
            stalls: BTreeMap::new(),
            recoveries: Vec::new(),
            worker_exits: BTreeMap::new(),
            leaks: Vec::new(),
            log_bytes: 0,
        };
        Self {
            clock,
            timeline,
            excuse,
            began: clock.now(),
            ticker,
            tally: Mutex::new(tally),
        }
    }

    pub(crate) fn tally(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().expect("the lock is not poisoned")
    }

    pub(crate) fn take(&self, client: usize, batch: Batch) {
        let mut tally = self.tally();
        tally.begun.insert(client, batch.begun);
        let stall = tally.stalls.entry(client).or_default();
        *stall = batch.stall.max(*stall);
        for call in batch.calls {
            self.judge(&mut tally, &call);
        }
    }

    fn judge(&self, tally: &mut Tally, call: &Call) {
        let faults = self.timeline.active(call.start, call.end);
        let names = || match faults.len() {
            0 => "no fault".to_owned(),
            _ => faults
                .iter()
                .map(|fault| fault.about().name)
                .collect::<Vec<_>>()
                .join("+"),
        };
        let took = call.end.saturating_sub(call.start);
        tally.ended += 1;
        let mut failure = None;
        match &call.outcome {
            Outcome::Answered(source) => {
                *tally.answers.entry(source.clone()).or_default() += 1;
                let kind = if source == "cache" { "hit" } else { "miss" };
                record(&mut tally.latencies, (kind, !faults.is_empty()), took);
                let servers = || {
                    faults
                        .iter()
                        .filter(|fault| fault.about().scope != Scope::Worker)
                };
                let hostile = servers().any(|fault| *fault == Fault::HostilePublisher);
                if servers().count() == usize::from(hostile) && call.start > self.began + WARM_UP {
                    record(&mut tally.beside_hostile, (kind, hostile), took);
                }
                if let ("cache", Argument::Fib(n)) = (source.as_str(), call.argument) {
                    tally.pauses.note(Stream::hits_of(n), call.end);
                }
                if source == "computed" {
                    tally.pauses.note(Stream::Computed, call.end);
                    for (accepts, first) in &mut tally.recoveries {
                        if first.is_none() && call.end > *accepts {
                            *first = Some(call.end);
                        }
                    }
                    let undisturbed = faults.iter().all(|fault| {
                        !matches!(fault.about().scope, Scope::Redis | Scope::RedisNode)
                    });
                    if let Argument::Fib(n) = call.argument {
                        tally.computed.note(call, n, undisturbed);
                    }
                }
            }
            Outcome::Wrong => {
                tally.wrong += 1;
                failure = Some("wrong");
            }
            Outcome::Lost => {
                tally.lost += 1;
                failure = Some("lost");
            }
            Outcome::Failed(code, _) if is_expected(call, code, &faults) => {
                let expected = format!("{code}, as expected");
                *tally.answers.entry(expected).or_default() += 1;
            }
            Outcome::Failed(code, message) => {
                if is_impossible(call, code) {
                    tally.wrong += 1;
                    failure = Some("wrong");
                } else if call.timeout_ms == PATIENT && !self.excuse.covers(&faults, code) {
                    tally.broken += 1;
                    failure = Some("broken");
                }
                let errors = tally.errors.entry(code.clone()).or_default();
                errors.count += 1;
                *errors.by.entry((call.timeout_ms, names())).or_default() += 1;
                if errors.example.is_empty() {
                    errors.example.clone_from(message);
                }
            }
        }
        if let Some(stall) = call.stored {
            let hit = matches!(&call.outcome, Outcome::Answered(source) if source == "cache");
            let excused = !hit && self.costs_a_hit(call, stall);
            tally.stored.hits += u64::from(hit);
            tally.stored.excused += u64::from(excused);
            if !hit && !excused {
                tally.broken += 1;
                failure = failure.or(Some("broken"));
            }
        }
        if call.late > 0 && call.outcome != Outcome::Lost {
            tally.late += 1;
            failure = failure.or(Some("late"));
        }
        if let Some(failure) = failure
            && tally.failures.len() < MAX_DESCRIBED
        {
            tally.failures.push(format!(
                "{failure}: {} with {} ms ended after {} ms, {} ms late, as {:?}, under {}",
                call.argument,
                call.timeout_ms,
                took / 1000,
                call.late / 1000,
                call.outcome,
                names()
            ));
        }
    }

    /// Whether the client, or this process, which forwards its lookups, was not scheduled for so much of the
    /// cache budget that a hit may have become a miss.
    fn costs_a_hit(&self, call: &Call, stall: u64) -> bool {
        let start = self.clock.instant(call.start);
        let own = self.ticker.within(start, start + oracle::BUDGET);
        micros(own).max(stall) >= micros(oracle::COSTS_A_HIT)
    }

    /// Notes that a client has ended; calls that it began and did not report are lost.
    pub(crate) fn client_ended(&self, client: usize, ended: u64, clean: bool) {
        let mut tally = self.tally();
        let begun = tally.begun.get(&client).copied().unwrap_or(0);
        let missing = begun.saturating_sub(ended);
        if missing > 0 {
            tally.lost += missing;
            tally.failures.push(format!(
                "lost: {missing} calls of client {client} never ended"
            ));
        }
        if !clean {
            tally
                .leaks
                .push(format!("client {client} did not end by itself"));
        }
    }

    pub(crate) fn broker_accepts(&self) {
        let now = self.clock.now();
        self.tally().recoveries.push((now, None));
    }

    pub(crate) fn worker_ended(&self, code: Option<i32>) {
        *self.tally().worker_exits.entry(code).or_default() += 1;
    }

    /// Notes an effect that a fault must not have.
    pub(crate) fn broken(&self, what: impl Display) {
        let mut tally = self.tally();
        tally.broken += 1;
        tally.failures.push(format!("broken: {what}"));
    }

    pub(crate) fn leak(&self, what: String) {
        self.tally().leaks.push(what);
    }
}

fn record(
    histograms: &mut BTreeMap<(&'static str, bool), Histogram<u64>>,
    of: (&'static str, bool),
    took: u64,
) {
    let new = || Histogram::new_with_max(LONGEST, 3).expect("three digits");
    histograms
        .entry(of)
        .or_insert_with(new)
        .saturating_record(took);
}

/// Whether the call must end in this error.
fn is_expected(call: &Call, code: &str, faults: &[Fault]) -> bool {
    match call.argument {
        Argument::Fib(n) => {
            code == "too-large" && oracle::is_large(n) && faults.contains(&Fault::ReplyRefused)
        }
        Argument::Crasher(n) => crasher::behaviour(n).error() == Some(code),
    }
}

/// Whether no call with this argument may end in this error, whatever the faults.
fn is_impossible(call: &Call, code: &str) -> bool {
    match call.argument {
        // Every argument of the campaign is valid.
        Argument::Fib(_) => ["too-large", "bad-argument"].contains(&code),
        Argument::Crasher(n) => crasher::behaviour(n).excludes(code),
    }
}
