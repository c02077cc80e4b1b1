//! What a call leaves behind for those who watch: it is counted, what came of it is in its span, and it is
//! told in a line at debug.

use std::time::Instant;

use tracing::{Level, debug, enabled};

use super::{Answered, Inner};
use crate::cache::Key;
use crate::error::{Error, millis};
use crate::procedure::Procedure;
use crate::trace;

#[cfg(feature = "metrics")]
impl<P: Procedure> super::Client<P> {
    /// What this client and its clones count, to be read whenever one likes.
    #[must_use]
    pub fn metrics(&self) -> crate::Metrics {
        use std::sync::Arc;
        let Inner {
            procedure,
            cache,
            requester,
            calls,
            ..
        } = &*self.inner;
        crate::Metrics::of_client(
            procedure.name(),
            Arc::clone(calls),
            Arc::clone(cache.counts()),
            Arc::clone(requester.counts()),
        )
    }
}

/// The key for the line, where one is wanted: a hit has no time for a copy that nobody reads.
pub(super) fn key(key: impl FnOnce() -> Key) -> Option<Key> {
    enabled!(Level::DEBUG).then(key)
}

impl<P: Procedure> Inner<P> {
    /// A call has ended; `key` is there if that is to be told.
    pub(super) fn ended(
        &self,
        key: Option<Key>,
        started: Instant,
        ended: &Result<Answered<P::Answer>, Error>,
    ) {
        match ended {
            Ok(answered) => {
                let durations = self.calls.answered.of(answered.source);
                durations.observe(answered.elapsed);
            }
            Err(error) => self.calls.failed.count(error.code()),
        }
        match ended {
            Ok(answered) => trace::record("rpcache.source", answered.source.as_str()),
            Err(error) => trace::failed(error.code()),
        }
        let Some(key) = key else { return };
        match ended {
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
