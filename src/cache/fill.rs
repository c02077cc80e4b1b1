//! Stores the answer of a key that was missed, over whatever stands there; and the permission for it, [`Vacancy`].

use tokio::time::Instant;
use tracing::{debug, warn};

use super::store::{Filled, Refusal, StoreError};
use super::{Budget, Cache, Key, Lease};
use crate::trace::{self, Operation};

/// The permission to fill one key, which a miss carries; with the lease, where there is one.
#[must_use]
#[derive(Debug)]
pub(crate) struct Vacancy {
    pub(crate) key: Key,
    pub(crate) budget: Budget,
    pub(crate) lease: Option<Lease>,
}

impl Vacancy {
    pub(super) fn without_lease(key: Key, budget: Budget) -> Self {
        Self {
            key,
            budget,
            lease: None,
        }
    }

    pub(crate) fn key(&self) -> &Key {
        &self.key
    }
}

impl Cache {
    /// The permission to fill a key without having looked: for a call that wants a fresh answer.
    pub(crate) fn vacancy(&self, key: Key) -> Vacancy {
        Vacancy::without_lease(key, self.budget())
    }

    /// Stores the answer within what is left of the budget, over whatever stands there; the lease is
    /// released in the same round trip. `true` once the store has it.
    pub(crate) async fn fill(&self, mut vacancy: Vacancy, answer: &[u8]) -> bool {
        let limit = self.options.max_answer_size;
        if limit.is_some_and(|limit| answer.len() > limit) {
            debug!(key = %vacancy.key, bytes = answer.len(), "an answer too large to be stored");
            self.counts.too_large.count();
            self.leave_empty(vacancy).await;
            return false;
        }
        let operation = match &vacancy.lease {
            Some(_) => Operation::Pipeline,
            None => Operation::Set,
        };
        let filling = self.fill_store(&mut vacancy, answer);
        let filled = trace::within(|| trace::store(operation), filling).await;
        if let (Ok(_), Some(lease)) = (&filled, vacancy.lease.take()) {
            lease.forget();
        }
        match filled {
            Ok(Filled::Stored) => {
                self.counts.stored.count();
                self.counts.refusals.fill_stored();
                true
            }
            Ok(Filled::Refused(refusal)) | Err(StoreError::Refused(refusal)) => {
                self.refused_fill(&vacancy.key, refusal);
                false
            }
            Err(StoreError::Unavailable) => {
                self.counts.unconfirmed.count();
                false
            }
        }
    }

    async fn fill_store(&self, vacancy: &mut Vacancy, answer: &[u8]) -> Result<Filled, StoreError> {
        let lease = vacancy.lease.as_ref().map(Lease::name_and_token);
        // Up to a tenth less at random, so that what was filled together does not expire together.
        let ttl = self.options.ttl;
        let ttl = ttl.map(|ttl| ttl.mul_f64(1.0 - 0.1 * fastrand::f64()));
        let (key, limit, started) = (&vacancy.key, vacancy.budget.0, Instant::now());
        let filled = self.store.fill(key, answer, ttl, lease, limit).await;
        vacancy.budget.spend(started);
        filled
    }

    fn refused_fill(&self, key: &Key, Refusal { reason, .. }: Refusal) {
        self.counts.refused.count();
        if let Some(left_out) = self.logs.refused_fills.happened() {
            warn!(%key, error = reason, left_out, "{} refused a fill", self.store.name());
        }
        self.counts.refusals.fill_refused(reason);
    }
}
