//! What a request leaves behind for those who watch, beside its place in the counts: a line at debug.

use tokio::time::Instant;
use tracing::{Level, debug, enabled};

use super::Desk;
use crate::error::millis;
use crate::message::{Reply, Request, Source};
use crate::procedure::Procedure;

impl<P: Procedure> Desk<P> {
    /// A line for each request, where one is wanted; its key is not kept for that.
    pub(super) fn tell(&self, request: &Request, reply: &Reply, taken: Instant) {
        if !enabled!(Level::DEBUG) {
            return;
        }
        let key = request.argument::<P::Argument>();
        let key = key.map(|argument| self.cache.key::<P>(&argument));
        let key = key.map_or_else(|_| "none".to_owned(), |key| key.to_string());
        let elapsed_ms = millis(taken.elapsed());
        match &reply.outcome {
            Ok(_) => {
                let source = reply.source.map(Source::as_str);
                debug!(key, source, elapsed_ms, "answered");
            }
            Err(failure) => {
                let error = failure.code.as_str();
                debug!(key, error, elapsed_ms, "not answered");
            }
        }
    }
}
