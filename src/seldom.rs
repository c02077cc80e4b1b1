//! Log lines for events that a peer can cause as often as it likes: one at first, then at most one
//! in a while that says how many were left out.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

const PERIOD: Duration = Duration::from_secs(10);

/// One kind of event.
#[derive(Debug, Default)]
pub(crate) struct Seldom(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    logged: Option<Instant>,
    left_out: u64,
}

impl Seldom {
    /// Counts an event. `Some` if it is to be logged, with how many before it were not.
    pub(crate) fn happened(&self) -> Option<u64> {
        self.happened_at(Instant::now())
    }

    fn happened_at(&self, now: Instant) -> Option<u64> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if state
            .logged
            .is_some_and(|logged| now.duration_since(logged) < PERIOD)
        {
            state.left_out += 1;
            return None;
        }
        state.logged = Some(now);
        Some(std::mem::take(&mut state.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_is_logged_and_then_one_in_a_while() {
        let seldom = Seldom::default();
        let start = Instant::now();
        assert_eq!(seldom.happened_at(start), Some(0));
        for millis in 1..1000 {
            assert_eq!(
                seldom.happened_at(start + Duration::from_millis(millis)),
                None
            );
        }
        assert_eq!(seldom.happened_at(start + PERIOD), Some(999));
        assert_eq!(seldom.happened_at(start + PERIOD), None);
    }
}
