//! The last failed requests: key, code and time. Pure: the time is an argument.

use std::time::Duration;

use tokio::time::Instant;

use crate::error::ErrorCode;

/// Failures kept of each code. Of each, so that a flood of one code does not push out a rare one like `poison`.
const KEPT: usize = 4;

/// How long a failure is kept.
const KEPT_FOR: Duration = Duration::from_secs(600);

/// Requests with the same key that failed with the same code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failed {
    /// `None` if the body is no argument.
    pub(super) key: Option<String>,
    pub(super) code: ErrorCode,
    /// The number of failures since the entry was made.
    pub(super) times: u64,
    /// The time of the last failure.
    pub(super) at: Instant,
}

/// The last failures of each code, latest last.
#[derive(Debug, Default)]
pub(super) struct Failures(Vec<Failed>);

impl Failures {
    /// Records a failure.
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

    /// The failures that are not too old, latest first.
    pub(super) fn latest(&mut self, now: Instant) -> Vec<Failed> {
        self.0
            .retain(|failed| now.saturating_duration_since(failed.at) < KEPT_FOR);
        self.0.iter().rev().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flood_of_failures_pushes_out_its_own_code_only() {
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
    fn old_failures_are_forgotten() {
        let (mut failures, now) = (Failures::default(), Instant::now());
        failures.failed(Some("a"), ErrorCode::Failed, now);
        let later = now + KEPT_FOR / 2;
        failures.failed(Some("b"), ErrorCode::Failed, later);
        assert_eq!(failures.latest(later).len(), 2);
        let left = failures.latest(now + KEPT_FOR);
        assert_eq!(left.len(), 1);
        assert_eq!(left[0].key.as_deref(), Some("b"));
    }
}
