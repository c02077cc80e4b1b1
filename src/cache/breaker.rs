//! When to stop asking a Redis that does not answer in time. Pure: no clock, no I/O.
//!
//! Each connection carries one. It trips after a few time-outs with no answer between them; the
//! connection is then given up, lookups miss without waiting, and a replacement is tried in the
//! background at most once a second, see [`super::connection`]. A lost connection needs no count,
//! and an error that Redis itself answers (OOM, READONLY, WRONGTYPE ...) is an answer.

use std::sync::atomic::{AtomicU32, Ordering};

/// Time-outs without an answer between them until it trips. One slow command of somebody else's
/// makes a few of our own late together; a frozen server makes all of them late.
const TOLERATED: u32 = 3;

#[derive(Debug, Default)]
pub(crate) struct Breaker {
    late: AtomicU32,
}

impl Breaker {
    /// Redis answered in time.
    pub(crate) fn answered(&self) {
        // A plain load first: on the path of every hit the cache line stays shared.
        if self.late.load(Ordering::Relaxed) != 0 {
            self.late.store(0, Ordering::Relaxed);
        }
    }

    /// Redis did not answer within the budget. `true` once, when it trips.
    pub(crate) fn timed_out(&self) -> bool {
        self.late.fetch_add(1, Ordering::Relaxed) + 1 == TOLERATED
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Barrier;

    #[test]
    fn it_trips_once_after_time_outs_in_a_row() {
        let breaker = Breaker::default();
        let trips: Vec<bool> = (0..6).map(|_| breaker.timed_out()).collect();
        assert_eq!(trips, [false, false, true, false, false, false]);
    }

    #[test]
    fn an_answer_between_them_starts_the_count_anew() {
        let breaker = Breaker::default();
        for _ in 0..100 {
            assert!(!breaker.timed_out());
            assert!(!breaker.timed_out());
            breaker.answered();
        }
    }

    #[test]
    fn ten_thousand_generated_sequences_trip_it_as_they_should() {
        for seed in 0..10_000 {
            let (mut rng, breaker) = (fastrand::Rng::with_seed(seed), Breaker::default());
            let mut in_a_row = 0;
            for _ in 0..100 {
                if rng.u8(..3) == 0 {
                    breaker.answered();
                    in_a_row = 0;
                } else {
                    in_a_row += 1;
                    assert_eq!(breaker.timed_out(), in_a_row == TOLERATED, "seed {seed}");
                }
            }
        }
    }

    /// Each of a few threads does as it is told, all at once; how often it tripped.
    fn at_once(threads: u32, does: impl Fn(u32) -> u32 + Sync) -> u32 {
        let start = Barrier::new(threads as usize);
        std::thread::scope(|scope| {
            let thread = |number| {
                let (start, does) = (&start, &does);
                scope.spawn(move || {
                    start.wait();
                    does(number)
                })
            };
            let threads: Vec<_> = (0..threads).map(thread).collect();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap())
                .sum()
        })
    }

    #[test]
    fn no_time_out_goes_uncounted_whoever_else_is_late() {
        let breakers: Vec<Breaker> = (0..100_000).map(|_| Breaker::default()).collect();
        // All but two come before; the threads take the steps together, so that those two meet.
        for breaker in &breakers {
            (2..TOLERATED).for_each(|_| assert!(!breaker.timed_out()));
        }
        let steps = AtomicU32::new(0);
        let trips = at_once(2, |_| {
            let trip = |(breaker, together): (&Breaker, u32)| {
                steps.fetch_add(1, Ordering::SeqCst);
                while steps.load(Ordering::SeqCst) < together {
                    std::thread::yield_now();
                }
                u32::from(breaker.timed_out())
            };
            breakers.iter().zip((2..).step_by(2)).map(trip).sum()
        });
        assert_eq!(trips, 100_000);
    }

    #[test]
    fn every_trip_has_had_its_time_outs_whoever_is_answered() {
        let (breaker, answers) = (Breaker::default(), AtomicU32::new(0));
        let trips = at_once(4, |number| {
            let mut rng = fastrand::Rng::with_seed(number.into());
            let event = |_| {
                if rng.u8(..4) > 0 {
                    return u32::from(breaker.timed_out());
                }
                answers.fetch_add(1, Ordering::Relaxed);
                breaker.answered();
                0
            };
            (0..25_000).map(event).sum()
        });
        let answers = answers.into_inner();
        assert!(trips <= answers + 1, "{trips} trips, {answers} answers");
        assert!(trips <= (100_000 - answers) / TOLERATED, "{trips}");
        assert!(trips > 1000, "only {trips}");
    }
}
