//! Lookups: one answer or many, within the budget, checked and counted.

use std::sync::Arc;

use tokio::time::Instant;
use tracing::{Instrument as _, warn};

use super::store::{GetResult, Refusal, StoreError};
use super::{Budget, Cache, Key, Vacancy};
use crate::error::quote;
use crate::procedure::{Procedure, check};
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

/// How much one lookup of many answers returned.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Gave {
    Bytes(usize),
    NothingInTime,
    Unknown,
}

impl Cache {
    /// Looks up an answer within the budget, and within the call's time. What does not pass the check is a
    /// miss.
    ///
    /// Cancel safe.
    pub(crate) async fn lookup<P: Procedure>(
        &self,
        key: Key,
        procedure: &Arc<P>,
        argument: &Arc<P::Argument>,
        deadline: Instant,
    ) -> Lookup<P::Answer> {
        let mut budget = self.budget_until(deadline).await;
        if trace::on() {
            let span = trace::lookup(Operation::Get);
            let lookup = self.lookup_within(&mut budget, key, procedure, argument);
            return Box::pin(lookup.instrument(span)).await;
        }
        self.lookup_within(&mut budget, key, procedure, argument)
            .await
    }

    /// Looks up an answer within what is left of a budget.
    ///
    /// Cancel safe.
    pub(crate) async fn lookup_within<P: Procedure>(
        &self,
        budget: &mut Budget,
        key: Key,
        procedure: &Arc<P>,
        argument: &Arc<P::Argument>,
    ) -> Lookup<P::Answer> {
        let started = Instant::now();
        let found = self.store.get(key.as_str(), budget.0).await;
        budget.spend(started);
        let checked = self.checked(Look::First, &key, found, procedure, argument);
        if let Some(answer) = checked.await {
            return Lookup::Hit(answer);
        }
        Lookup::Miss(Vacancy {
            key,
            budget: budget.clone(),
            lease: None,
        })
    }

    /// Looks up many answers within one budget.
    pub(crate) async fn lookup_many<P: Procedure>(
        &self,
        wanted: Vec<(Key, Arc<P::Argument>)>,
        procedure: &Arc<P>,
        deadline: Instant,
    ) -> (Vec<Lookup<P::Answer>>, Gave) {
        match <[_; 1]>::try_from(wanted) {
            Ok([(key, argument)]) => {
                let found = self.lookup(key, procedure, &argument, deadline).await;
                (vec![found], Gave::Unknown)
            }
            Err(wanted) if wanted.is_empty() => (Vec::new(), Gave::Unknown),
            Err(wanted) => self.lookup_together(wanted, procedure, deadline).await,
        }
    }

    async fn lookup_together<P: Procedure>(
        &self,
        wanted: Vec<(Key, Arc<P::Argument>)>,
        procedure: &Arc<P>,
        deadline: Instant,
    ) -> (Vec<Lookup<P::Answer>>, Gave) {
        let mut budget = self.budget_until(deadline).await;
        let keys: Vec<_> = wanted.iter().map(|(key, _)| key.as_bytes()).collect();
        let started = Instant::now();
        let found = self.store.get_many(&keys, budget.0).await;
        budget.spend(started);
        let gave = match &found {
            Ok(found) => {
                let sizes = found.iter().flatten().flatten().map(Vec::len);
                Gave::Bytes(sizes.sum())
            }
            Err(StoreError::Unavailable) => Gave::NothingInTime,
            Err(StoreError::Refused(_)) => Gave::Unknown,
        };
        let found = found.unwrap_or_else(|error| vec![Err(error); wanted.len()]);
        let mut found = found.into_iter();
        let mut lookups = Vec::with_capacity(wanted.len());
        for (key, argument) in wanted {
            let found = found.next().unwrap_or(Ok(None));
            let checked = self.checked(Look::First, &key, found, procedure, &argument);
            lookups.push(match checked.await {
                Some(answer) => Lookup::Hit(answer),
                None => Lookup::Miss(Vacancy {
                    key,
                    budget: budget.clone(),
                    lease: None,
                }),
            });
        }
        (lookups, gave)
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
