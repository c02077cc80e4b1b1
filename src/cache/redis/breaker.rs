//! The circuit breaker of one connection: trips when Redis does not answer in time. Pure: no clock, no I/O.
//!
//! It trips after a few time-outs in a row, with no answer between them; the connection is then given up,
//! lookups miss without waiting, and a replacement is tried in the background at most once a second, see
//! [`super::connection`]. Commands that were in flight together and are late together count once: one slow
//! command of another client may have delayed them, or this process itself, by starting thousands of calls at
//! once. A lost connection needs no count, and an error from Redis (OOM, READONLY, WRONGTYPE ...) is an
//! answer.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};

use tokio::time::Instant;

/// Time-outs in a row until it trips.
const TOLERATED: u32 = 3;

#[derive(Debug, Default)]
pub(crate) struct Breaker {
    late: AtomicU32,
    /// When the last time-out that counted was noticed.
    noticed: Mutex<Option<Instant>>,
}

impl Breaker {
    /// Notes an answer in time.
    pub(crate) fn answered(&self) {
        // A plain load first: on the path of every hit the cache line stays shared.
        if self.late.load(Ordering::Relaxed) != 0 {
            self.late.store(0, Ordering::Relaxed);
        }
    }

    /// Notes that a command `sent` then has no answer by `now`. `true` once, when the breaker trips.
    pub(crate) fn timed_out(&self, sent: Instant, now: Instant) -> bool {
        let mut noticed = self.noticed.lock().unwrap_or_else(PoisonError::into_inner);
        if noticed.is_some_and(|noticed| sent < noticed) {
            return false;
        }
        *noticed = Some(now);
        self.late.fetch_add(1, Ordering::Relaxed) + 1 == TOLERATED
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const BUDGET: Duration = Duration::from_millis(50);

    #[test]
    fn it_trips_once_after_time_outs_one_after_another() {
        let (breaker, mut now) = (Breaker::default(), Instant::now());
        let trips: Vec<bool> = (0..6)
            .map(|_| {
                now += BUDGET;
                breaker.timed_out(now - BUDGET, now)
            })
            .collect();
        assert_eq!(trips, [false, false, true, false, false, false]);
    }

    #[test]
    fn those_that_were_under_way_together_count_once() {
        let (breaker, sent) = (Breaker::default(), Instant::now());
        for n in 0..10_000 {
            let later = Duration::from_micros(n);
            assert!(!breaker.timed_out(sent + later, sent + later + BUDGET));
        }
        assert_eq!(breaker.late.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn ten_thousand_generated_sequences_trip_it_as_they_should() {
        for seed in 0..10_000 {
            let (mut rng, breaker) = (fastrand::Rng::with_seed(seed), Breaker::default());
            let (mut now, mut noticed, mut in_a_row) = (Instant::now(), None, 0);
            for _ in 0..100 {
                now += Duration::from_millis(rng.u64(..30));
                if rng.u8(..3) == 0 {
                    breaker.answered();
                    in_a_row = 0;
                    continue;
                }
                let sent = now - BUDGET;
                let counts = noticed.is_none_or(|noticed| sent >= noticed);
                if counts {
                    (noticed, in_a_row) = (Some(now), in_a_row + 1);
                }
                let trips = counts && in_a_row == TOLERATED;
                assert_eq!(breaker.timed_out(sent, now), trips, "seed {seed}");
            }
        }
    }

    #[test]
    fn of_threads_that_are_late_together_one_counts() {
        let breakers: Vec<Breaker> = (0..10_000).map(|_| Breaker::default()).collect();
        let sent = Instant::now();
        let late = |breaker: &Breaker| breaker.timed_out(sent, sent + BUDGET);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| assert!(!breakers.iter().any(late)));
            }
        });
        for breaker in breakers {
            assert_eq!(breaker.late.into_inner(), 1);
        }
    }
}
