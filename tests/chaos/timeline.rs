//! Records which faults were active when: written by the lanes that inject them, read by the ledger.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Mutex;

use serde::Serialize;

use crate::call::Clock;
use crate::fault::{Fault, Scope, Skipped};

/// Faults are kept this long after their repair, in microseconds: longer than any call takes.
const MEMORY: u64 = 120_000_000;

pub(crate) struct Timeline {
    clock: Clock,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    recent: VecDeque<Interval>,
    next: u64,
    counts: BTreeMap<Fault, Count>,
    problems: Vec<String>,
    /// Faults of several servers that were injected: their number is small.
    of_nodes: Vec<Injected>,
}

/// A fault that was injected, when it began, and when its repair was complete.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Injected {
    pub(crate) fault: Fault,
    pub(crate) start: u64,
    pub(crate) end: u64,
}

/// How often a fault was injected, and how often it was planned but not injected.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) struct Count {
    pub(crate) injected: u64,
    pub(crate) skipped: u64,
}

/// The time during which one fault was active.
struct Interval {
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

    /// A fault begins. The number that is returned ends it.
    pub(crate) fn begin(&self, fault: Fault) -> u64 {
        let now = self.clock.now();
        let mut inner = self.inner.lock().expect("the lock is not poisoned");
        inner.next += 1;
        let number = inner.next;
        inner.recent.push_back(Interval {
            number,
            fault,
            start: now,
            end: None,
        });
        while inner
            .recent
            .front()
            .is_some_and(|interval| interval.end.is_some_and(|end| end + MEMORY < now))
        {
            inner.recent.pop_front();
        }
        number
    }

    /// The repair of a fault is complete.
    pub(crate) fn end(&self, number: u64, outcome: Result<(), Skipped>) {
        let now = self.clock.now();
        let mut inner = self.inner.lock().expect("the lock is not poisoned");
        let Some(interval) = inner
            .recent
            .iter_mut()
            .find(|interval| interval.number == number)
        else {
            return;
        };
        interval.end = Some(now);
        let (fault, start) = (interval.fault, interval.start);
        let count = inner.counts.entry(fault).or_default();
        match outcome {
            Ok(()) => {
                count.injected += 1;
                if matches!(fault.about().scope, Scope::BrokerNode | Scope::RedisNode) {
                    inner.of_nodes.push(Injected {
                        fault,
                        start,
                        end: now,
                    });
                }
            }
            Err(skipped) => {
                count.skipped += 1;
                if let Skipped::Failed(reason) = skipped {
                    inner.problems.push(format!("{fault}: {reason}"));
                }
            }
        }
    }

    /// The faults that were active, or had been repaired just before, at any time from `start` to `end`:
    /// each once.
    pub(crate) fn active(&self, start: u64, end: u64) -> Vec<Fault> {
        let inner = self.inner.lock().expect("the lock is not poisoned");
        let touches = |interval: &&Interval| {
            interval.start <= end
                && interval
                    .end
                    .is_none_or(|repaired| start <= repaired + aftermath(interval.fault))
        };
        let mut faults: Vec<Fault> = inner
            .recent
            .iter()
            .filter(touches)
            .map(|interval| interval.fault)
            .collect();
        faults.sort();
        faults.dedup();
        faults
    }

    /// The faults of several servers that were injected, in the order of their ends.
    pub(crate) fn of_nodes(&self) -> Vec<Injected> {
        let inner = self.inner.lock().expect("the lock is not poisoned");
        inner.of_nodes.clone()
    }

    pub(crate) fn active_now(&self) -> Vec<Fault> {
        let now = self.clock.now();
        self.active(now, now)
    }

    /// How often each fault was injected, of those whose repair is complete.
    pub(crate) fn counts(&self) -> BTreeMap<Fault, Count> {
        self.inner
            .lock()
            .expect("the lock is not poisoned")
            .counts
            .clone()
    }

    /// Faults that the driver failed to inject, and why.
    pub(crate) fn problems(&self) -> Vec<String> {
        self.inner
            .lock()
            .expect("the lock is not poisoned")
            .problems
            .clone()
    }
}

/// How long a fault still counts as active after its repair, in microseconds: the time to reconnect and to
/// fill the cache.
fn aftermath(fault: Fault) -> u64 {
    match fault.about().scope {
        Scope::Worker => 500_000,
        Scope::Redis | Scope::RedisNode => 1_500_000,
        Scope::Broker | Scope::BrokerNode => 2_000_000,
    }
}
