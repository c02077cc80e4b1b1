//! Records the outcome of a call: in counters, its span, and a log line at debug.

use std::time::Instant;

use tracing::{Level, debug, enabled};

use super::{Answered, Inner};
use crate::cache::Key;
use crate::error::{Error, millis};
use crate::procedure::Procedure;
use crate::trace;

/// The key for the log line, if debug lines are on: a hit has no time for a copy that is not used.
pub(super) fn key_to_log(key: impl FnOnce() -> Key) -> Option<Key> {
    enabled!(Level::DEBUG).then(key)
}

impl<P: Procedure> Inner<P> {
    /// Records the outcome of a call: counts it, adds it to the span, and logs it if there is a key.
    pub(super) fn observe(
        &self,
        key: Option<Key>,
        started: Instant,
        outcome: &Result<Answered<P::Answer>, Error>,
    ) {
        match outcome {
            Ok(answered) => {
                let durations = self.calls.answered.of(answered.source);
                durations.observe(answered.elapsed);
            }
            Err(error) => self.calls.failed.count(error.code()),
        }
        match outcome {
            Ok(answered) => trace::record("rpcache.source", answered.source.as_str()),
            Err(error) => trace::failed(error.code()),
        }
        let Some(key) = key else { return };
        match outcome {
            Ok(answered) => {
                let (source, elapsed_ms) = (answered.source.as_str(), millis(answered.elapsed));
                debug!(%key, source, elapsed_ms, "answered");
            }
            Err(error) => {
                let (error, elapsed_ms) = (error.code(), millis(started.elapsed()));
                debug!(%key, error, elapsed_ms, "not answered");
            }
        }
    }
}
