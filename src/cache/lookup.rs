//! Looks an answer up in the store: within the budget, checked and counted.

use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tracing::{Instrument as _, warn};

use super::store::{GetResult, Refusal, StoreError};
use super::{Cache, Key, Vacancy};
use crate::counts::ConnectionState;
use crate::error::quote;
use crate::procedure::{Procedure, check};
use crate::procedure_name::ProcedureName;
use crate::trace::{self, Operation};

/// The result of a lookup.
pub(crate) enum Lookup<A> {
    /// An answer that passed the check.
    Hit(A),
    /// No answer, and the permission to fill it in.
    Miss(Vacancy),
}

/// First lookup, or a poll while another worker holds the lease (polls are not counted).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Look {
    First,
    Again,
}

/// Time left of all that this process may wait for the store in one call.
#[derive(Debug, Clone)]
pub(crate) struct Budget(pub(super) Duration);

impl Budget {
    /// Subtracts the time since then.
    pub(super) fn spend(&mut self, since: Instant) {
        self.0 = self.0.saturating_sub(since.elapsed());
    }
}

impl Cache {
    /// The key of this argument's answer.
    pub(crate) fn key(&self, procedure: &ProcedureName, argument: &impl Display) -> Key {
        Key::new(self.options.namespace.as_ref(), procedure, argument)
    }

    /// All that one call may wait for the store.
    pub(crate) fn budget(&self) -> Budget {
        Budget(self.options.budget)
    }

    /// The budget of a call that ends by then. Waits for the first attempt to connect, where the options
    /// say so.
    pub(crate) async fn budget_until(&self, deadline: Instant) -> Budget {
        if self.options.wait_for_connection {
            let connects = self.counts.redis.state() == ConnectionState::Connecting;
            let _span = connects.then(|| trace::begin(trace::connect_to_redis));
            // Elapsed or not, the time left decides.
            let _ = tokio::time::timeout_at(deadline, self.store.ready()).await;
        }
        let left = deadline.saturating_duration_since(Instant::now());
        Budget(self.options.budget.min(left))
    }

    /// Looks up an answer within what is left of the budget. What does not pass the check is a miss.
    ///
    /// Cancel safe.
    pub(crate) async fn lookup<P: Procedure>(
        &self,
        key: Key,
        budget: &mut Budget,
        procedure: &Arc<P>,
        argument: &Arc<P::Argument>,
    ) -> Lookup<P::Answer> {
        // Not by `trace::within`, which would move the future: a hit's would be larger.
        if trace::on() {
            let span = trace::lookup(Operation::Get);
            let lookup = self.lookup_in_store(key, budget, procedure, argument);
            return Box::pin(lookup.instrument(span)).await;
        }
        self.lookup_in_store(key, budget, procedure, argument).await
    }

    /// Looks up without a span of its own.
    pub(crate) async fn lookup_in_store<P: Procedure>(
        &self,
        key: Key,
        budget: &mut Budget,
        procedure: &Arc<P>,
        argument: &Arc<P::Argument>,
    ) -> Lookup<P::Answer> {
        let started = Instant::now();
        let found = self.store.get(key.as_str(), budget.0).await;
        budget.spend(started);
        let checked = self.checked(Look::First, &key, found, procedure, argument);
        match checked.await {
            Some(answer) => Lookup::Hit(answer),
            None => Lookup::Miss(Vacancy::without_lease(key, budget.clone())),
        }
    }

    /// Checks what the store has under a key, and counts the result.
    pub(super) async fn checked<P: Procedure>(
        &self,
        look: Look,
        key: &Key,
        found: GetResult,
        procedure: &Arc<P>,
        argument: &Arc<P::Argument>,
    ) -> Option<P::Answer> {
        let counts = &self.counts;
        let (answer, counter, result) = match found {
            Ok(None) => (None, &counts.misses, "miss"),
            Ok(Some(text)) => match check(procedure, argument, text).await {
                Ok(answer) => (Some(answer), &counts.hits, "hit"),
                Err(text) => {
                    self.log_poisoned(key, &quote(&text));
                    (None, &counts.poisoned, "poisoned")
                }
            },
            Err(StoreError::Refused(refusal)) => {
                if let Some(found) = refusal.no_answer() {
                    self.log_poisoned(key, found);
                    (None, &counts.poisoned, "poisoned")
                } else {
                    self.log_refused_lookup(&refusal);
                    (None, &counts.unanswered, "unanswered")
                }
            }
            Err(StoreError::Unavailable) => (None, &counts.unanswered, "unanswered"),
        };
        trace::record("rpcache.result", result);
        if look == Look::First {
            counter.count();
        }
        answer
    }

    fn log_refused_lookup(&self, Refusal { reason, .. }: &Refusal) {
        if let Some(left_out) = self.logs.refused_lookups.happened() {
            warn!(
                error = reason,
                left_out,
                "{} refused a lookup",
                self.store.name()
            );
        }
    }

    /// What stands under the key is not the answer. The next fill replaces it.
    fn log_poisoned(&self, key: &Key, found: &str) {
        if let Some(left_out) = self.logs.poisoned.happened() {
            warn!(%key, found, left_out, "refused what stands in the cache");
        }
    }
}
