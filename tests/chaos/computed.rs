//! Counts computations, and those that repeat another one for the same key, by the source of the callers' answers.

use std::collections::HashMap;

use crate::call::Call;

#[derive(Default)]
pub(crate) struct Computed {
    pub(crate) total: u64,
    /// Began before the last one for that key had ended: a lease prevents it.
    pub(crate) overlapping: u64,
    /// Began within a second after the last one for that key had ended, without a fault of Redis:
    /// the answer should have been stored.
    pub(crate) again: u64,
    /// When the last call that computed a key began and ended.
    last: HashMap<u64, (u64, u64)>,
}

impl Computed {
    pub(crate) fn note(&mut self, call: &Call, n: u64, undisturbed: bool) {
        self.total += 1;
        if !call.cached {
            return;
        }
        if let Some((start, end)) = self.last.insert(n, (call.start, call.end)) {
            // Batches of several clients arrive in any order.
            let (_, first_end) = (start, end).min((call.start, call.end));
            let second_start = start.max(call.start);
            if second_start < first_end {
                self.overlapping += 1;
            } else if undisturbed && second_start < first_end + 1_000_000 {
                self.again += 1;
            }
        }
    }

    pub(crate) fn keys(&self) -> usize {
        self.last.len()
    }
}
