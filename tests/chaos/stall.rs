//! Measures stalls: times in which this process was not scheduled, seen by a ticker that is late.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const TICK: Duration = Duration::from_millis(10);
/// Shorter delays are the resolution of the timer.
const NOTABLE: Duration = Duration::from_millis(2);
/// Stalls are kept this long: longer than from the start of a call to its judgement.
const MEMORY: Duration = Duration::from_secs(60);

#[derive(Clone, Default)]
pub(crate) struct Ticker(Arc<Mutex<Seen>>);

#[derive(Default)]
struct Seen {
    /// The end and the duration of each stall.
    stalls: VecDeque<(Instant, Duration)>,
    worst: Duration,
}

impl Ticker {
    /// Starts a ticker in the runtime of the calls.
    pub(crate) fn start() -> Self {
        let ticker = Self::default();
        let seen = ticker.clone();
        tokio::spawn(async move {
            loop {
                let due = Instant::now() + TICK;
                tokio::time::sleep_until(due.into()).await;
                seen.note(due.elapsed());
            }
        });
        ticker
    }

    /// Adds a stall that ended now.
    pub(crate) fn note(&self, stall: Duration) {
        if stall < NOTABLE {
            return;
        }
        let now = Instant::now();
        let mut seen = self.0.lock().expect("the lock is not poisoned");
        seen.worst = seen.worst.max(stall);
        seen.stalls.push_back((now, stall));
        while seen
            .stalls
            .front()
            .is_some_and(|(at, _)| now - *at > MEMORY)
        {
            seen.stalls.pop_front();
        }
    }

    /// The sum of all stalls from `since` to now, the present tick included.
    pub(crate) async fn since(&self, since: Instant) -> Duration {
        tokio::time::sleep(TICK * 2).await;
        self.within(since, Instant::now())
    }

    /// The sum of all stalls that overlap this time and have ended.
    pub(crate) fn within(&self, since: Instant, until: Instant) -> Duration {
        let seen = self.0.lock().expect("the lock is not poisoned");
        let touches = |(at, stall): &&(Instant, Duration)| {
            *at >= since && at.checked_sub(*stall) <= Some(until)
        };
        let touching = seen.stalls.iter().filter(touches);
        touching.map(|(_, stall)| *stall).sum()
    }

    /// The longest stall since the last call of this function.
    pub(crate) fn worst(&self) -> Duration {
        std::mem::take(&mut self.0.lock().expect("the lock is not poisoned").worst)
    }
}
