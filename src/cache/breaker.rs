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
}
