//! The back-off between attempts to connect to the broker.

use std::time::Duration;

use tokio::time::{Instant, sleep};

/// A session that ends sooner counts as a failed attempt.
const MIN_SESSION: Duration = Duration::from_secs(1);

/// The longest pause in milliseconds.
const MAX_PAUSE: u64 = 1000;

/// Counts failed attempts to connect, and pauses between them: exponentially from 50 ms to 1 s.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    attempts: u32,
}

impl Backoff {
    /// Counts a failed attempt.
    pub(crate) fn failed(&mut self) {
        self.attempts += 1;
    }

    /// Counts a session that was opened at `opened` and has ended: starts again after a long one.
    pub(crate) fn session_ended(&mut self, opened: Instant) {
        if opened.elapsed() < MIN_SESSION {
            self.failed();
        } else {
            self.attempts = 0;
        }
    }

    /// Waits before the next attempt. Cancel safe.
    pub(crate) async fn pause(&self) {
        sleep(pause(self.attempts)).await;
    }
}

/// The upper half is random, so that a fleet does not reconnect at the same moment.
fn pause(attempts: u32) -> Duration {
    let longest = 50_u64.saturating_mul(1 << attempts.min(10)).min(MAX_PAUSE);
    Duration::from_millis(fastrand::u64(longest / 2..=longest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn pauses_grow_until_a_session_lasts() {
        let mut backoff = Backoff::default();
        for longest in [50, 100, 200, 400, 800, 1000, 1000] {
            let started = Instant::now();
            backoff.pause().await;
            let millis = started.elapsed().as_millis();
            assert!((longest / 2..=longest + 1).contains(&millis), "{millis}");
            backoff.failed();
        }
        let opened = Instant::now();
        backoff.session_ended(opened);
        assert_eq!(
            backoff.attempts, 8,
            "a session that ends at once is a failed attempt"
        );
        tokio::time::advance(MIN_SESSION).await;
        backoff.session_ended(opened);
        assert_eq!(backoff.attempts, 0);
    }

    #[test]
    fn any_number_of_attempts_has_a_pause() {
        assert!(pause(u32::MAX) <= Duration::from_millis(MAX_PAUSE));
    }
}
