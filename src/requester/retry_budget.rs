//! How many requests may be published a second time on mere suspicion. Pure.
//!
//! A request that stays unanswered may have been lost, or its worker may be slow: then a second copy
//! only adds load. So copies are limited to a share of the requests, as in Finagle's retry budget
//! (<https://finagle.github.io/blog/2016/02/08/retry-budgets/>): each request puts a tenth of a copy
//! into the budget, each copy takes a whole one out.

use std::sync::atomic::{AtomicU32, Ordering};

/// Tenths of a copy.
const PER_REQUEST: u32 = 1;
const PER_COPY: u32 = 10;

/// What can be saved up, and what there is at the start: a process that makes few calls needs
/// copies, too.
const MOST: u32 = 10 * PER_COPY;

#[derive(Debug)]
pub(super) struct RetryBudget(AtomicU32);

impl RetryBudget {
    pub(super) fn new() -> Self {
        Self(AtomicU32::new(MOST))
    }

    /// A request was published for the first time.
    pub(super) fn deposit(&self) {
        let more = |tenths: u32| (tenths < MOST).then(|| tenths + PER_REQUEST);
        // Full: nothing to add.
        let _ = self
            .0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
    }

    /// Whether one more copy may be published.
    pub(super) fn withdraw(&self) -> bool {
        let less = |tenths: u32| tenths.checked_sub(PER_COPY);
        self.0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, less)
            .is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_are_a_tenth_of_the_requests_beyond_what_was_saved_up() {
        let budget = RetryBudget::new();
        let mut copies = 0;
        for _ in 0..10_000 {
            budget.deposit();
            copies += u32::from(budget.withdraw());
        }
        assert!((1000..=1010).contains(&copies), "{copies}");
    }

    #[test]
    fn no_more_than_ten_are_saved_up() {
        let budget = RetryBudget::new();
        (0..10_000).for_each(|_| budget.deposit());
        assert_eq!((0..100).filter(|_| budget.withdraw()).count(), 10);
    }
}
