//! Why Redis stores nothing although it is there: written by those who find out, read by health checks.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Reasons for which fills are refused at the moment.
#[derive(Debug, Default)]
pub(crate) struct Refusals {
    reasons: Mutex<Reasons>,
    /// Whether there is a reason of a fill: read for each one that is taken.
    fill: AtomicBool,
}

#[derive(Debug, Default)]
struct Reasons {
    server: Option<String>,
    fill: Option<String>,
}

impl Refusals {
    /// The server cannot store: it is a replica, for example. `None`: it can, as far as is known.
    pub(crate) fn server(&self, reason: Option<String>) {
        let mut reasons = self.lock();
        if reason.is_none() {
            self.fill.store(false, Ordering::Relaxed);
            reasons.fill = None;
        }
        reasons.server = reason;
    }

    /// A fill was refused, by this error.
    pub(crate) fn fill(&self, error: String) {
        self.lock().fill = Some(error);
        self.fill.store(true, Ordering::Relaxed);
    }

    /// A fill was taken.
    pub(crate) fn filled(&self) {
        if self.fill.load(Ordering::Relaxed) {
            self.fill.store(false, Ordering::Relaxed);
            self.lock().fill = None;
        }
    }

    /// Why nothing is stored; `None`: all that is known is that it is.
    pub(crate) fn reason(&self) -> Option<String> {
        let reasons = self.lock();
        let refused = |error| format!("Redis refuses to store answers: {error}");
        let fill = || reasons.fill.as_ref().map(refused);
        reasons.server.clone().or_else(fill)
    }

    fn lock(&self) -> MutexGuard<'_, Reasons> {
        // Nothing panics while it is held.
        self.reasons.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_holds_until_a_fill_is_taken_and_the_server_s_comes_first() {
        let refusals = Refusals::default();
        assert_eq!(refusals.reason(), None);
        refusals.fill("OOM".to_owned());
        let full = Some("Redis refuses to store answers: OOM".to_owned());
        assert_eq!(refusals.reason(), full);
        refusals.server(Some("a replica".to_owned()));
        assert_eq!(refusals.reason(), Some("a replica".to_owned()));
        refusals.filled();
        assert_eq!(refusals.reason(), Some("a replica".to_owned()));
        refusals.fill("READONLY".to_owned());
        refusals.server(None);
        assert_eq!(refusals.reason(), None);
        refusals.fill("OOM".to_owned());
        refusals.filled();
        assert_eq!(refusals.reason(), None);
    }
}
