//! Plans which fault is injected when, into which worker, and for how long: a pure function of the seed.
//!
//! Each worker but the first, the broker and Redis, or the servers of each kind, has a lane with a generator of its own. The events of
//! a lane never overlap; those of different lanes do. Worker 0 has no lane: it lives through every fault
//! of the servers, so that its memory and descriptors at the end show leaks.

use std::ops::{Range, RangeInclusive};
use std::time::Duration;

use fastrand::Rng;

use crate::fault::{Fault, Scope, Topology};

/// Time without faults at the start, as a baseline, and at the end, for recovery.
pub(crate) const LEAD_IN: Duration = Duration::from_secs(5);
pub(crate) const LEAD_OUT: Duration = Duration::from_secs(4);

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Event {
    /// Time after the start of the run.
    pub(crate) at: Duration,
    pub(crate) fault: Fault,
    /// The target, if that is a worker.
    pub(crate) worker: Option<usize>,
    pub(crate) lasts: Duration,
    /// Random bits for other choices, such as which link.
    pub(crate) draw: u64,
}

/// The parameters of a plan.
pub(crate) struct Run<'a> {
    pub(crate) seed: u64,
    pub(crate) length: Duration,
    pub(crate) topology: Topology,
    /// Of this topology.
    pub(crate) faults: &'a [Fault],
    pub(crate) workers: usize,
    /// One fault at a time in the whole fleet, with time to recover after each.
    pub(crate) apart: bool,
}

/// The parameters of one lane.
struct Lane {
    seed: u64,
    faults: Vec<Fault>,
    /// The workers that its faults may target.
    workers: Range<usize>,
    /// Time between the repair of one fault and the next fault, in milliseconds.
    pause: RangeInclusive<u64>,
}

/// The lanes of a run; each has its events in the order of time.
pub(crate) fn plan(run: &Run) -> Vec<Vec<Event>> {
    let of = |scope| {
        run.faults
            .iter()
            .copied()
            .filter(move |fault| fault.about().scope == scope)
            .collect()
    };
    let lane = |number: u64, faults, workers, pause| Lane {
        seed: run.seed ^ number << 32,
        faults,
        workers,
        pause,
    };
    let lanes: Vec<Lane> = if run.apart {
        vec![lane(0, run.faults.to_vec(), 1..run.workers, 2500..=3500)]
    } else {
        let (servers, pause) = match run.topology {
            Topology::Single => (
                [
                    lane(1, of(Scope::Broker), 0..0, 1500..=3500),
                    lane(2, of(Scope::Redis), 0..0, 600..=1800),
                ],
                100..=600,
            ),
            // Between two faults, the servers elect, and copy what the one that was away has missed.
            Topology::Cluster | Topology::Sentinel => (
                [
                    lane(1, of(Scope::BrokerNode), 0..0, 5000..=10_000),
                    lane(2, of(Scope::RedisNode), 0..0, 3000..=6000),
                ],
                4000..=12_000,
            ),
        };
        let workers = (1..run.workers).map(|worker| {
            lane(
                worker as u64 + 2,
                of(Scope::Worker),
                worker..worker + 1,
                pause.clone(),
            )
        });
        workers.chain(servers).collect()
    };
    let end = run.length.saturating_sub(LEAD_OUT);
    lanes.iter().map(|lane| lane.draw(end)).collect()
}

impl Lane {
    fn draw(&self, end: Duration) -> Vec<Event> {
        let mut rng = Rng::with_seed(self.seed);
        let mut events = Vec::new();
        let faults = || self.faults.iter().map(|fault| fault.about());
        let faults =
            || faults().filter(|about| about.scope != Scope::Worker || !self.workers.is_empty());
        let weights: u64 = faults().map(|about| about.weight).sum();
        if weights == 0 {
            return events;
        }
        let mut at = LEAD_IN;
        loop {
            at += Duration::from_millis(rng.u64(self.pause.clone()));
            let mut ticket = rng.u64(0..weights);
            let drawn = faults().find(|about| match ticket.checked_sub(about.weight) {
                Some(left) => {
                    ticket = left;
                    false
                }
                None => true,
            });
            let about = drawn.expect("the ticket is below the sum");
            // The cube makes short durations frequent and long ones rare.
            let share = rng.u64(0..=1000).pow(3);
            let (shortest, longest) = about.lasts;
            let lasts =
                Duration::from_millis(shortest + (longest - shortest) * share / 1_000_000_000);
            let draw = rng.u64(..);
            let worker = (about.scope == Scope::Worker).then(|| rng.usize(self.workers.clone()));
            let repaired = at + lasts + Duration::from_millis(about.repair);
            if repaired > end {
                return events;
            }
            events.push(Event {
                at,
                fault: about.fault,
                worker,
                lasts,
                draw,
            });
            at = repaired;
        }
    }
}

/// The plan as text, in the order of time.
pub(crate) fn print(lanes: &[Vec<Event>]) -> String {
    let mut events: Vec<&Event> = lanes.iter().flatten().collect();
    events.sort_by_key(|event| event.at);
    let line = |event: &&Event| {
        let target = event
            .worker
            .map_or(String::new(), |worker| format!("  worker {worker}"));
        format!(
            "{:>8.3} s  {:<23} {:>6} ms{target}\n",
            event.at.as_secs_f64(),
            event.fault,
            event.lasts.as_millis()
        )
    };
    events.iter().map(line).collect()
}
