//! The reason why a connected Redis does not store answers: written by connecting and by fills, read by health checks.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The reasons for which Redis currently refuses fills.
#[derive(Debug, Default)]
pub(crate) struct Refusals {
    reasons: Mutex<Reasons>,
    /// Whether `Reasons::fill` is set: read at every successful fill, without the lock.
    fill: AtomicBool,
}

#[derive(Debug, Default)]
struct Reasons {
    /// The server cannot store at all.
    server: Option<String>,
    /// The error of the last fill, if it was refused.
    fill: Option<String>,
}

impl Refusals {
    /// Records why the server cannot store, such as that it is a read-only replica; `None`: it can. A new
    /// connection sets this.
    pub(crate) fn set_server(&self, reason: Option<String>) {
        let mut reasons = self.lock();
        if reason.is_none() {
            self.fill.store(false, Ordering::Relaxed);
            reasons.fill = None;
        }
        reasons.server = reason;
    }

    /// Records that a fill was refused, with Redis' error.
    pub(crate) fn fill_refused(&self, error: String) {
        self.lock().fill = Some(error);
        self.fill.store(true, Ordering::Relaxed);
    }

    /// Records that a fill was stored.
    pub(crate) fn fill_stored(&self) {
        if self.fill.load(Ordering::Relaxed) {
            self.fill.store(false, Ordering::Relaxed);
            self.lock().fill = None;
        }
    }

    /// Why nothing is stored; `None`: no reason is known.
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
    fn a_reason_holds_until_a_fill_is_stored_and_the_servers_comes_first() {
        let refusals = Refusals::default();
        assert_eq!(refusals.reason(), None);
        refusals.fill_refused("OOM".to_owned());
        let full = Some("Redis refuses to store answers: OOM".to_owned());
        assert_eq!(refusals.reason(), full);
        refusals.set_server(Some("a replica".to_owned()));
        assert_eq!(refusals.reason(), Some("a replica".to_owned()));
        refusals.fill_stored();
        assert_eq!(refusals.reason(), Some("a replica".to_owned()));
        refusals.fill_refused("READONLY".to_owned());
        refusals.set_server(None);
        assert_eq!(refusals.reason(), None);
        refusals.fill_refused("OOM".to_owned());
        refusals.fill_stored();
        assert_eq!(refusals.reason(), None);
    }
}
