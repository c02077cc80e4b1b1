//! Every call is counted here, and judged together with the faults that were active when it ran.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::sync::{Arc, Mutex, MutexGuard};

use hdrhistogram::Histogram;

use crate::client::PATIENT;
use crate::computed::Computed;
use crate::fault::{Fault, Scope};
use crate::oracle;
use crate::record::{Asked, Batch, Call, Clock, Outcome, micros};
use crate::stall::Ticker;
use crate::timeline::Timeline;
use crate::trap;

/// So many of a kind are told in words; the others are counted.
const TOLD: usize = 10;

/// In microseconds: longer than any call is waited for.
const LONGEST: u64 = 100_000_000;

/// Connections are made and the cache is filled, in microseconds.
const WARM_UP: u64 = 2_000_000;

pub(crate) struct Ledger {
    clock: Clock,
    began: u64,
    timeline: Arc<Timeline>,
    /// One fault at a time.
    apart: bool,
    /// Stalls of this process, through which every call goes.
    ticker: Ticker,
    tally: Mutex<Tally>,
}

/// All that a run has come to so far.
pub(crate) struct Tally {
    pub(crate) ended: u64,
    /// Calls begun, by client.
    pub(crate) begun: BTreeMap<usize, u64>,
    pub(crate) answers: BTreeMap<String, u64>,
    pub(crate) wrong: u64,
    pub(crate) lost: u64,
    pub(crate) late: u64,
    /// Patient calls that ended in an error without an excuse, hits that were none, and whatever else a
    /// fault must not come to.
    pub(crate) broken: u64,
    /// Workers that a call for a trap has ended.
    pub(crate) killed_by_traps: u64,
    /// What was wrong, lost, late or broken, in words.
    pub(crate) failures: Vec<String>,
    pub(crate) errors: BTreeMap<String, Errors>,
    pub(crate) latencies: BTreeMap<(&'static str, bool), Histogram<u64>>,
    /// Of calls beside a hostile publisher, and of those without: while no server is under a fault.
    pub(crate) beside_hostile: BTreeMap<(&'static str, bool), Histogram<u64>>,
    pub(crate) stored: Stored,
    pub(crate) computed: Computed,
    /// The longest stall of each client's own, in microseconds.
    pub(crate) stalls: BTreeMap<usize, u64>,
    /// When a killed broker accepted connections again, and the first computed answer after that.
    pub(crate) recoveries: Vec<(u64, Option<u64>)>,
    /// How often a worker that was asked to end did so with which exit code; none: it was killed.
    pub(crate) worker_exits: BTreeMap<Option<i32>, u64>,
    pub(crate) leaks: Vec<String>,
    /// What all workers together have logged.
    pub(crate) log_bytes: u64,
}

/// Calls for answers that were stored a moment before.
#[derive(Default)]
pub(crate) struct Stored {
    pub(crate) hits: u64,
    /// Misses while a process did not get to run.
    pub(crate) excused: u64,
}

/// The errors of one code.
#[derive(Default)]
pub(crate) struct Errors {
    pub(crate) count: u64,
    /// By how long the call could wait, in milliseconds, and by the faults that were active.
    pub(crate) by: BTreeMap<(u64, String), u64>,
    /// The first message.
    pub(crate) example: String,
}

impl Ledger {
    pub(crate) fn new(clock: Clock, timeline: Arc<Timeline>, apart: bool, ticker: Ticker) -> Self {
        let tally = Tally {
            ended: 0,
            begun: BTreeMap::new(),
            answers: BTreeMap::new(),
            wrong: 0,
            lost: 0,
            late: 0,
            broken: 0,
            killed_by_traps: 0,
            failures: Vec::new(),
            errors: BTreeMap::new(),
            latencies: BTreeMap::new(),
            beside_hostile: BTreeMap::new(),
            stored: Stored::default(),
            computed: Computed::default(),
            stalls: BTreeMap::new(),
            recoveries: Vec::new(),
            worker_exits: BTreeMap::new(),
            leaks: Vec::new(),
            log_bytes: 0,
        };
        Self {
            clock,
            timeline,
            apart,
            began: clock.now(),
            ticker,
            tally: Mutex::new(tally),
        }
    }

    pub(crate) fn tally(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().expect("nobody panics with it")
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
                if source == "computed" {
                    for (accepts, first) in &mut tally.recoveries {
                        if first.is_none() && call.end > *accepts {
                            *first = Some(call.end);
                        }
                    }
                    let undisturbed = faults
                        .iter()
                        .all(|fault| fault.about().scope != Scope::Redis);
                    if let Asked::Fib(n) = call.asked {
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
            Outcome::Failed(code, _) if must_end_in(call, code, &faults) => {
                let ending = format!("{code}, as it must");
                *tally.answers.entry(ending).or_default() += 1;
            }
            Outcome::Failed(code, message) => {
                if never_ends_in(call, code) {
                    tally.wrong += 1;
                    failure = Some("wrong");
                } else if call.timeout_ms == PATIENT && !self.excuses(&faults, code) {
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
            && tally.failures.len() < TOLD
        {
            tally.failures.push(format!(
                "{failure}: {} with {} ms ended after {} ms, {} ms late, as {:?}, under {}",
                call.asked,
                call.timeout_ms,
                took / 1000,
                call.late / 1000,
                call.outcome,
                names()
            ));
        }
    }

    /// Whether the client, or this process, which its lookups go through, did not get to run for a good part
    /// of the time that a call may wait for the cache.
    fn costs_a_hit(&self, call: &Call, stall: u64) -> bool {
        let start = self.clock.instant(call.start);
        let own = self.ticker.within(start, start + oracle::BUDGET);
        micros(own).max(stall) >= micros(oracle::COSTS_A_HIT)
    }

    /// Whether a patient call may end in this error under these faults. One fault at a time it sits
    /// out, except where the fault means that the call is refused at once; with several at a time
    /// there is no telling.
    fn excuses(&self, faults: &[Fault], code: &str) -> bool {
        match faults {
            [] => false,
            _ if !self.apart => true,
            faults => code == "overloaded" && faults.contains(&Fault::BrokerAlarm),
        }
    }

    /// A client that has ended: what it began must have ended, too.
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

    /// What a fault has come to and must not.
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

/// Whether this error is as right as an answer.
fn must_end_in(call: &Call, code: &str, faults: &[Fault]) -> bool {
    match call.asked {
        Asked::Fib(n) => {
            code == "too-large" && oracle::is_large(n) && faults.contains(&Fault::ReplyRefused)
        }
        Asked::Trap(n) => trap::nature(n).ends_in() == Some(code),
    }
}

fn never_ends_in(call: &Call, code: &str) -> bool {
    match call.asked {
        // Every argument is a good one.
        Asked::Fib(_) => ["too-large", "bad-argument"].contains(&code),
        Asked::Trap(n) => trap::nature(n).never_ends_in(code),
    }
}
