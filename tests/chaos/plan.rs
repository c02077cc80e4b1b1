//! Which fault strikes when, whom, and for how long: a pure function of the seed.
//!
//! Each scope is a lane of its own with a generator of its own, so that a lane's events follow one
//! another and never overlap. Lanes overlap freely. Worker 0 has no lane: it sees every fault of the
//! servers, and what it holds at the end is what a long life has left behind.

use std::time::Duration;

use fastrand::Rng;

use crate::fault::{Fault, Scope};

/// Without faults at the start, to compare with, and at the end, to recover in.
pub(crate) const LEAD_IN: Duration = Duration::from_secs(5);
pub(crate) const LEAD_OUT: Duration = Duration::from_secs(4);

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Event {
    /// After the start of the run.
    pub(crate) at: Duration,
    pub(crate) fault: Fault,
    /// The worker that it strikes, when it strikes one.
    pub(crate) worker: Option<usize>,
    pub(crate) lasts: Duration,
    /// Whatever else is drawn, such as which link.
    pub(crate) draw: u64,
}

/// The lanes of a run, each in the order of time.
pub(crate) fn plan(
    seed: u64,
    length: Duration,
    faults: &[Fault],
    workers: usize,
) -> Vec<Vec<Event>> {
    let end = length.saturating_sub(LEAD_OUT);
    let of = |scope| {
        let faults = faults.iter().copied();
        faults
            .filter(|fault| fault.about().scope == scope)
            .collect::<Vec<_>>()
    };
    let workers = (1..workers).map(|worker| {
        lane(
            seed ^ worker as u64,
            end,
            &of(Scope::Worker),
            Some(worker),
            (100, 600),
        )
    });
    let servers = [
        lane(seed ^ 1 << 32, end, &of(Scope::Broker), None, (1500, 3500)),
        lane(seed ^ 2 << 32, end, &of(Scope::Redis), None, (600, 1800)),
    ];
    workers.chain(servers).collect()
}

/// `pause`: between the repair of one fault and the next one, in milliseconds.
fn lane(
    seed: u64,
    end: Duration,
    faults: &[Fault],
    worker: Option<usize>,
    pause: (u64, u64),
) -> Vec<Event> {
    let mut rng = Rng::with_seed(seed);
    let mut events = Vec::new();
    let weights: u64 = faults.iter().map(|fault| fault.about().weight).sum();
    let mut at = LEAD_IN;
    while weights > 0 {
        at += Duration::from_millis(rng.u64(pause.0..=pause.1));
        let mut ticket = rng.u64(0..weights);
        let fault = faults.iter().find(|fault| {
            let weight = fault.about().weight;
            let drawn = ticket < weight;
            ticket = ticket.wrapping_sub(weight);
            drawn
        });
        let about = fault.expect("the ticket is below the sum").about();
        // The cube draws short ones often and long ones seldom.
        let share = rng.u64(0..=1000).pow(3);
        let (shortest, longest) = about.lasts;
        let lasts = Duration::from_millis(shortest + (longest - shortest) * share / 1_000_000_000);
        let draw = rng.u64(..);
        let repaired = at + lasts + Duration::from_millis(about.repair);
        if repaired > end {
            break;
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
    events
}

/// The plan as text, in the order of time.
pub(crate) fn print(lanes: &[Vec<Event>]) -> String {
    let mut events: Vec<&Event> = lanes.iter().flatten().collect();
    events.sort_by_key(|event| event.at);
    let line = |event: &&Event| {
        let whom = event
            .worker
            .map_or(String::new(), |worker| format!("  worker {worker}"));
        format!(
            "{:>8.3} s  {:<16} {:>6} ms{whom}\n",
            event.at.as_secs_f64(),
            event.fault,
            event.lasts.as_millis()
        )
    };
    events.iter().map(line).collect()
}
