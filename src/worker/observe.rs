//! Observes the outcome of each request: in its span, in a debug log line, and failures by key. Counting is
//! [`super::counters`]'.

use tokio::time::Instant;
use tracing::{Level, debug, enabled, error};

use super::Service;
use crate::cache::Key;
use crate::error::{ErrorCode, millis};
use crate::message::{Failure, Reply, Request};
use crate::procedure::Procedure;
use crate::source::Source;
use crate::trace;

impl<P: Procedure> Service<P> {
    /// Records a reply in the request's span, in the failures by key, and in a log line at debug.
    ///
    /// Computes the key again where it is needed: most requests do not need it.
    pub(super) fn observe(&self, request: &Request, reply: &Reply, taken: Instant) {
        match (&reply.outcome, reply.source) {
            (Ok(_), Some(source)) => trace::record("rpcache.source", source.as_str()),
            (Ok(_), None) => {}
            (Err(failure), _) => {
                trace::failed(failure.code.as_str());
                self.record_failure(request, failure);
            }
        }
        if !enabled!(Level::DEBUG) {
            return;
        }
        let key = self.key_text(request);
        let elapsed_ms = millis(taken.elapsed());
        // Finds the log line of a trace.
        let trace_id = request.trace.as_ref();
        let trace_id = trace_id.map(|trace| format!("{:032x}", trace.trace_id));
        match &reply.outcome {
            Ok(_) => {
                let source = reply.source.map(Source::as_str);
                debug!(key, source, elapsed_ms, trace_id, "answered");
            }
            Err(failure) => {
                let error = failure.code.as_str();
                debug!(key, error, elapsed_ms, trace_id, "not answered");
            }
        }
    }

    /// Records a failed request for announcements.
    fn record_failure(&self, request: &Request, failure: &Failure) {
        let key = self.key_of(request);
        let recent = &self.counters.activity.recent;
        recent.failed(key.as_ref().map(Key::as_str), failure.code);
    }

    /// Records a request that the broker gave up.
    pub(super) fn observe_given_up(&self, request: &Request, failure: &Failure) {
        self.record_failure(request, failure);
        // Throttled: anybody who may publish to the dead-letter queue can forge such a message.
        if failure.code == ErrorCode::Poison
            && let Some(left_out) = self.poison.happened()
        {
            let key = self.key_text(request);
            error!(
                key,
                left_out, "poison request: the broker delivered it too often and gave it up"
            );
        }
    }

    /// The request's key for a log line; "none" if the body is no argument.
    fn key_text(&self, request: &Request) -> String {
        let key = self.key_of(request);
        key.map_or_else(|| "none".to_owned(), |key| key.to_string())
    }

    fn key_of(&self, request: &Request) -> Option<Key> {
        let argument = request.argument(&**self.computer.procedure()).ok()?;
        Some(self.cache.key(self.name(), &argument))
    }
}
