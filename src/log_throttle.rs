//! Throttles log lines about events that a peer can cause as often as it likes: the first one is logged, then
//! at most one in ten seconds, which says how many were left out.

use std::num::NonZeroU64;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

const PERIOD: Duration = Duration::from_secs(10);

/// The number of events whose lines were left out. As a field of a log line, `None` is not printed.
pub(crate) type LeftOut = Option<NonZeroU64>;

/// Throttles the log lines of one kind of event.
#[derive(Debug, Default)]
pub(crate) struct LogThrottle(Mutex<Last>);

#[derive(Debug, Default)]
struct Last {
    logged: Option<Instant>,
    left_out: u64,
}

impl LogThrottle {
    /// Counts an event. `Some` if it is to be logged, with the number of earlier ones that were not.
    pub(crate) fn happened(&self) -> Option<LeftOut> {
        self.happened_at(Instant::now())
    }

    fn happened_at(&self, now: Instant) -> Option<LeftOut> {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if last
            .logged
            .is_some_and(|logged| now.duration_since(logged) < PERIOD)
        {
            last.left_out += 1;
            return None;
        }
        last.logged = Some(now);
        Some(NonZeroU64::new(std::mem::take(&mut last.left_out)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_is_logged_and_then_one_in_a_while() {
        let throttle = LogThrottle::default();
        let start = Instant::now();
        assert_eq!(throttle.happened_at(start), Some(None));
        for millis in 1..1000 {
            assert_eq!(
                throttle.happened_at(start + Duration::from_millis(millis)),
                None
            );
        }
        assert_eq!(
            throttle.happened_at(start + PERIOD),
            Some(NonZeroU64::new(999))
        );
        assert_eq!(throttle.happened_at(start + PERIOD), None);
    }
}
