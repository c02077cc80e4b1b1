//! Limits how many requests may be published a second time. Pure.
//!
//! An unanswered request may be lost, or its worker slow: then a copy only adds load. So copies are limited to a
//! tenth of the requests, as in Finagle's retry budget
//! (<https://finagle.github.io/blog/2016/02/08/retry-budgets/>): each request deposits a tenth of a copy, each
//! copy withdraws a whole one.

use std::sync::atomic::{AtomicU32, Ordering};

/// The deposit of a request and the price of a copy, in tenths of a copy.
const PER_REQUEST: u32 = 1;
const PER_COPY: u32 = 10;

/// The initial balance: a process that makes few calls needs copies, too.
const INITIAL_BALANCE: u32 = 10 * PER_COPY;

/// The largest balance. A node that is lost takes a prefetch window of requests with it, in one moment.
const MAX_BALANCE: u32 = 100 * PER_COPY;

/// The balance of copies, in tenths.
#[derive(Debug)]
pub(super) struct RetryBudget(AtomicU32);

impl RetryBudget {
    pub(super) fn new() -> Self {
        Self(AtomicU32::new(INITIAL_BALANCE))
    }

    /// Deposits for a request that is published for the first time.
    pub(super) fn deposit(&self) {
        let more = |tenths: u32| (tenths < MAX_BALANCE).then(|| tenths + PER_REQUEST);
        // An error: the balance is full.
        let _ = self
            .0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
    }

    /// Withdraws one copy. `false`: the balance is too low.
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
    fn copies_are_a_tenth_of_the_requests_plus_the_initial_balance() {
        let budget = RetryBudget::new();
        let mut copies = 0;
        for _ in 0..10_000 {
            budget.deposit();
            copies += u32::from(budget.withdraw());
        }
        assert!((1000..=1010).contains(&copies), "{copies}");
    }

    #[test]
    fn the_balance_is_at_most_a_hundred_copies() {
        let budget = RetryBudget::new();
        (0..10_000).for_each(|_| budget.deposit());
        assert_eq!((0..1000).filter(|_| budget.withdraw()).count(), 100);
    }
}
