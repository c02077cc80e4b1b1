//! What a request leaves behind for those who watch, beside its place in the counts: what came of it in its
//! span, a line at debug, and its key if it failed.

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
    /// A line for each request, where one is wanted, and a note of each that failed; its key is not
    /// kept for that.
    pub(super) fn tell(&self, request: &Request, reply: &Reply, taken: Instant) {
        match (&reply.outcome, reply.source) {
            (Ok(_), Some(source)) => trace::record("rpcache.source", source.as_str()),
            (Ok(_), None) => {}
            (Err(failure), _) => {
                trace::failed(failure.code.as_str());
                self.note(request, failure);
            }
        }
        if !enabled!(Level::DEBUG) {
            return;
        }
        let key = self.named(request);
        let elapsed_ms = millis(taken.elapsed());
        // To find the line by a trace, whoever collects that one.
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

    /// A note of a request that failed, for announcements.
    fn note(&self, request: &Request, failure: &Failure) {
        let key = self.key_of(request);
        let lately = &self.vitals.activity.lately;
        lately.failed(key.as_ref().map(Key::as_str), failure.code);
    }

    /// The same of a request that the broker gave up.
    pub(super) fn tell_given_up(&self, request: &Request, failure: &Failure) {
        self.note(request, failure);
        // Whoever may publish to the queue of dead letters can say so of anything.
        if failure.code == ErrorCode::Poison
            && let Some(left_out) = self.poison.happened()
        {
            let key = self.named(request);
            error!(
                key,
                left_out, "the broker has delivered a request too often and gave it up"
            );
        }
    }

    /// Its key, for a line.
    fn named(&self, request: &Request) -> String {
        let key = self.key_of(request);
        key.map_or_else(|| "none".to_owned(), |key| key.to_string())
    }

    fn key_of(&self, request: &Request) -> Option<Key> {
        let argument = request.argument(&**self.computer.procedure()).ok()?;
        Some(self.cache.key(self.name(), &argument))
    }
}
