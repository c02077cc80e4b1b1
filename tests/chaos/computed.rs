//! How often the same was computed, as far as callers heard of it: by the source of their answers.

use std::collections::HashMap;

use crate::record::Call;

#[derive(Default)]
pub(crate) struct Computed {
    pub(crate) total: u64,
    /// Began before the last one for the same key had ended: a lease prevents it.
    pub(crate) overlapping: u64,
    /// Began within a second after the last one for the same key had ended, while nothing was
    /// wrong with Redis: the answer should have been there.
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
            // Batches of several clients come in any order.
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
