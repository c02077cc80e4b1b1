//! Which faults struck when: told by those who strike, asked by those who judge.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Mutex;

use serde::Serialize;

use crate::fault::{Fault, Miss, Scope};
use crate::record::Clock;

/// No call is judged so long after it began.
const MEMORY: u64 = 120_000_000;

pub(crate) struct Timeline {
    clock: Clock,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    recent: VecDeque<Struck>,
    next: u64,
    counts: BTreeMap<Fault, Count>,
    problems: Vec<String>,
}

/// How often a fault struck, and how often it was to and did not.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) struct Count {
    pub(crate) struck: u64,
    pub(crate) missed: u64,
}

struct Struck {
    number: u64,
    fault: Fault,
    start: u64,
    end: Option<u64>,
}

impl Timeline {
    pub(crate) fn new(clock: Clock) -> Self {
        Self {
            clock,
            inner: Mutex::default(),
        }
    }

    /// A fault strikes now. The number is what ends it.
    pub(crate) fn begin(&self, fault: Fault) -> u64 {
        let now = self.clock.now();
        let mut inner = self.inner.lock().expect("nobody panics with it");
        inner.next += 1;
        let number = inner.next;
        inner.recent.push_back(Struck {
            number,
            fault,
            start: now,
            end: None,
        });
        while inner
            .recent
            .front()
            .is_some_and(|struck| struck.end.is_some_and(|end| end + MEMORY < now))
        {
            inner.recent.pop_front();
        }
        number
    }

    /// Its repair is complete.
    pub(crate) fn end(&self, number: u64, outcome: Result<(), Miss>) {
        let now = self.clock.now();
        let mut inner = self.inner.lock().expect("nobody panics with it");
        let Some(struck) = inner
            .recent
            .iter_mut()
            .find(|struck| struck.number == number)
        else {
            return;
        };
        struck.end = Some(now);
        let fault = struck.fault;
        let count = inner.counts.entry(fault).or_default();
        match outcome {
            Ok(()) => count.struck += 1,
            Err(miss) => {
                count.missed += 1;
                if let Miss::Problem(problem) = miss {
                    inner.problems.push(format!("{fault}: {problem}"));
                }
            }
        }
    }

    /// The faults that were active, or had been repaired a moment before, at any time from `start`
    /// to `end`: each once.
    pub(crate) fn active(&self, start: u64, end: u64) -> Vec<Fault> {
        let inner = self.inner.lock().expect("nobody panics with it");
        let touches = |struck: &&Struck| {
            struck.start <= end
                && struck
                    .end
                    .is_none_or(|repaired| start <= repaired + aftermath(struck.fault))
        };
        let mut faults: Vec<Fault> = inner
            .recent
            .iter()
            .filter(touches)
            .map(|struck| struck.fault)
            .collect();
        faults.sort();
        faults.dedup();
        faults
    }

    pub(crate) fn active_now(&self) -> Vec<Fault> {
        let now = self.clock.now();
        self.active(now, now)
    }

    /// How often each struck, as far as their repairs are complete.
    pub(crate) fn counts(&self) -> BTreeMap<Fault, Count> {
        self.inner
            .lock()
            .expect("nobody panics with it")
            .counts
            .clone()
    }

    /// What the driver itself could not do.
    pub(crate) fn problems(&self) -> Vec<String> {
        self.inner
            .lock()
            .expect("nobody panics with it")
            .problems
            .clone()
    }
}

/// How long a fault still counts as active after its repair, in microseconds: connections are made
/// again, caches filled.
fn aftermath(fault: Fault) -> u64 {
    match fault.about().scope {
        Scope::Worker => 500_000,
        Scope::Redis => 1_500_000,
        Scope::Broker => 2_000_000,
    }
}
