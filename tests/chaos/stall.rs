//! How long this process itself did not get to run: a ticker that is late.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const TICK: Duration = Duration::from_millis(10);
/// Less is the timer's own grain.
const NOTABLE: Duration = Duration::from_millis(2);
/// For as long as a stall can matter to a call that is judged now.
const MEMORY: Duration = Duration::from_secs(60);

#[derive(Clone, Default)]
pub(crate) struct Ticker(Arc<Mutex<Seen>>);

#[derive(Default)]
struct Seen {
    /// When each stall ended and how long it was.
    stalls: VecDeque<(Instant, Duration)>,
    worst: Duration,
}

impl Ticker {
    /// Starts one in this runtime, beside the calls.
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

    pub(crate) fn note(&self, stall: Duration) {
        if stall < NOTABLE {
            return;
        }
        let now = Instant::now();
        let mut seen = self.0.lock().expect("nobody panics with it");
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

    /// All stalls together that touch the time from `since` to now, the tick under way included.
    pub(crate) async fn since(&self, since: Instant) -> Duration {
        tokio::time::sleep(TICK * 2).await;
        self.within(since, Instant::now())
    }

    /// Those that touch the time between these, as far as they are over.
    pub(crate) fn within(&self, since: Instant, until: Instant) -> Duration {
        let seen = self.0.lock().expect("nobody panics with it");
        let touches = |(at, stall): &&(Instant, Duration)| {
            *at >= since && at.checked_sub(*stall) <= Some(until)
        };
        let touching = seen.stalls.iter().filter(touches);
        touching.map(|(_, stall)| *stall).sum()
    }

    /// The worst one since this was asked last.
    pub(crate) fn worst(&self) -> Duration {
        std::mem::take(&mut self.0.lock().expect("nobody panics with it").worst)
    }
}
