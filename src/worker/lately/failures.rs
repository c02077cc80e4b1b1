//! The last requests without an answer: which, why and when. Pure: told what time it is.

use std::time::Duration;

use tokio::time::Instant;

use crate::error::ErrorCode;

/// Of each code. A flood of one kind pushes out no other: poison is seldom, and matters.
const KEPT: usize = 4;

/// What failed longer ago is forgotten.
const LATELY: Duration = Duration::from_secs(600);

/// Requests that failed alike.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failed {
    /// `None`: what was asked for is no argument, so it has no key.
    pub(super) key: Option<String>,
    pub(super) code: ErrorCode,
    /// How often in a row, as far as it is remembered.
    pub(super) times: u64,
    /// The last time.
    pub(super) at: Instant,
}

/// The last of each code, the latest last.
#[derive(Debug, Default)]
pub(super) struct Failures(Vec<Failed>);

impl Failures {
    pub(super) fn failed(&mut self, key: Option<&str>, code: ErrorCode, at: Instant) {
        let all = &mut self.0;
        let same = |failed: &Failed| failed.code == code && failed.key.as_deref() == key;
        let mut failed = match all.iter().position(same) {
            Some(known) => all.remove(known),
            None => Failed {
                key: key.map(str::to_owned),
                code,
                times: 0,
                at,
            },
        };
        (failed.times, failed.at) = (failed.times.saturating_add(1), at);
        all.push(failed);
        if all.iter().filter(|failed| failed.code == code).count() > KEPT {
            let oldest = all.iter().position(|failed| failed.code == code);
            oldest.map(|oldest| all.remove(oldest));
        }
    }

    /// The latest first.
    pub(super) fn latest(&mut self, now: Instant) -> Vec<Failed> {
        self.0
            .retain(|failed| now.saturating_duration_since(failed.at) < LATELY);
        self.0.iter().rev().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_failures_pushes_out_its_own_kind_alone() {
        let (mut failures, now) = (Failures::default(), Instant::now());
        failures.failed(Some("killer"), ErrorCode::Poison, now);
        for n in 0..1000 {
            failures.failed(Some(&n.to_string()), ErrorCode::Expired, now);
        }
        failures.failed(None, ErrorCode::BadArgument, now);
        failures.failed(None, ErrorCode::BadArgument, now);
        let latest = failures.latest(now);
        let keys: Vec<_> = latest.iter().map(|failed| failed.key.as_deref()).collect();
        let numbers = ["999", "998", "997", "996"].map(Some);
        assert_eq!(keys[..1], [None]);
        assert_eq!(keys[1..5], numbers);
        assert_eq!(keys[5..], [Some("killer")]);
        assert_eq!(latest[0].times, 2);
    }

    #[test]
    fn what_failed_long_ago_is_forgotten() {
        let (mut failures, now) = (Failures::default(), Instant::now());
        failures.failed(Some("a"), ErrorCode::Failed, now);
        let later = now + LATELY / 2;
        failures.failed(Some("b"), ErrorCode::Failed, later);
        assert_eq!(failures.latest(later).len(), 2);
        let left = failures.latest(now + LATELY);
        assert_eq!(left.len(), 1);
        assert_eq!(left[0].key.as_deref(), Some("b"));
    }
}
