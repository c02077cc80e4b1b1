//! Every call is counted here, and judged together with the faults that were active when it ran.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use hdrhistogram::Histogram;

use crate::computed::Computed;
use crate::fault::Scope;
use crate::record::{Batch, Call, Clock, Outcome};
use crate::timeline::Timeline;

/// So many of a kind are told in words; the others are counted.
const TOLD: usize = 10;

/// In microseconds: longer than any call is waited for.
const LONGEST: u64 = 100_000_000;

pub(crate) struct Ledger {
    clock: Clock,
    timeline: Arc<Timeline>,
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
    /// What was wrong, lost or late, in words.
    pub(crate) failures: Vec<String>,
    pub(crate) errors: BTreeMap<String, Errors>,
    pub(crate) latencies: BTreeMap<(&'static str, bool), Histogram<u64>>,
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
    pub(crate) fn new(clock: Clock, timeline: Arc<Timeline>) -> Self {
        let tally = Tally {
            ended: 0,
            begun: BTreeMap::new(),
            answers: BTreeMap::new(),
            wrong: 0,
            lost: 0,
            late: 0,
            failures: Vec::new(),
            errors: BTreeMap::new(),
            latencies: BTreeMap::new(),
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
                let latencies = tally.latencies.entry((kind, !faults.is_empty()));
                latencies
                    .or_insert_with(|| Histogram::new_with_max(LONGEST, 3).expect("three digits"))
                    .saturating_record(took);
                if source == "computed" {
                    for (accepts, first) in &mut tally.recoveries {
                        if first.is_none() && call.end > *accepts {
                            *first = Some(call.end);
                        }
                    }
                    let undisturbed = faults
                        .iter()
                        .all(|fault| fault.about().scope != Scope::Redis);
                    tally.computed.note(call, undisturbed);
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
            Outcome::Failed(code, message) => {
                let errors = tally.errors.entry(code.clone()).or_default();
                errors.count += 1;
                *errors.by.entry((call.timeout_ms, names())).or_default() += 1;
                if errors.example.is_empty() {
                    errors.example.clone_from(message);
                }
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
                "{failure}: fib {} with {} ms ended after {} ms, {} ms late, as {:?}, under {}",
                call.n,
                call.timeout_ms,
                took / 1000,
                call.late / 1000,
                call.outcome,
                names()
            ));
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

    pub(crate) fn leak(&self, what: String) {
        self.tally().leaks.push(what);
    }
}
