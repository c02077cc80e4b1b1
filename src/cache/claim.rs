//! Claims: a worker takes the lease of a missing answer before it computes, and gives it back.

use std::sync::Arc;

use tokio::time::Instant;
use tracing::warn;

use super::lease::{LEASE, Lease, Taken, Token};
use super::store::{Claimed, Refusal, StoreError};
use super::{Budget, Cache, Key, Look, Vacancy};
use crate::procedure::Procedure;
use crate::trace::{self, Operation};

/// The result of a claim.
pub(crate) enum Claim<A> {
    /// An answer that passed the check.
    Hit(A),
    /// No answer, and no other worker computes it as far as is known.
    Vacant(Vacancy),
    /// No answer, and another worker computes it.
    Held,
}

impl Cache {
    /// Tries to take the key's lease and looks up the answer, in one round trip and in this order: in
    /// the other, a holder that fills and releases in between would be missed twice. A hit wins.
    /// Without a `look` it looks nothing up. The vacancy carries on what is left of the budget.
    ///
    /// Cancel safe: a lease that was taken is released.
    pub(crate) fn claim<P: Procedure>(
        &self,
        key: Key,
        budget: Budget,
        token: &Token,
        look: Option<Look>,
        procedure: &Arc<P>,
        argument: &Arc<P::Argument>,
    ) -> impl Future<Output = Claim<P::Answer>> {
        let span = || trace::lookup(Operation::Pipeline);
        trace::within(
            span,
            self.claim_now(key, budget, token, look, procedure, argument),
        )
    }

    async fn claim_now<P: Procedure>(
        &self,
        key: Key,
        budget: Budget,
        token: &Token,
        look: Option<Look>,
        procedure: &Arc<P>,
        argument: &Arc<P::Argument>,
    ) -> Claim<P::Answer> {
        let mut vacancy = Vacancy {
            key,
            budget,
            lease: None,
        };
        if !self.store.is_up() {
            // Nothing will be sent: there will be nothing to release.
            self.count_unanswered(look);
            return Claim::Vacant(vacancy);
        }
        let lease = self.lease(&vacancy.key, token);
        let claimed = self.claim_in_store(&lease, &mut vacancy, look).await;
        let Ok(Claimed { held, found }) = claimed else {
            self.count_unanswered(look);
            return Claim::Vacant(vacancy);
        };
        let outcome = self.taken(lease, held);
        let hit = match look.zip(found) {
            Some((look, found)) => {
                let checked = self.checked(look, &vacancy.key, found, procedure, argument);
                checked.await
            }
            None => None,
        };
        match (hit, outcome) {
            (Some(answer), outcome) => {
                if let Taken::Ours(lease) = outcome {
                    lease.release(vacancy.budget.0).await;
                }
                Claim::Hit(answer)
            }
            (None, Taken::Held) => Claim::Held,
            (None, Taken::Unavailable) => Claim::Vacant(vacancy),
            (None, Taken::Ours(lease)) => Claim::Vacant(Vacancy {
                lease: Some(lease),
                ..vacancy
            }),
        }
    }

    async fn claim_in_store(
        &self,
        lease: &Lease,
        vacancy: &mut Vacancy,
        look: Option<Look>,
    ) -> Result<Claimed, StoreError> {
        let (name, token) = lease.name_and_token();
        let key = look.is_some().then_some(&vacancy.key);
        let (limit, started) = (vacancy.budget.0, Instant::now());
        let claimed = self.store.claim(name, token, LEASE, key, limit).await;
        vacancy.budget.spend(started);
        claimed
    }

    /// The store did not say what it has.
    fn count_unanswered(&self, look: Option<Look>) {
        if look == Some(Look::First) {
            self.counts.unanswered.count();
        }
    }

    fn taken(&self, lease: Lease, held: Result<Option<Vec<u8>>, Refusal>) -> Taken {
        match held {
            Ok(held) => lease.taken(held.as_deref()),
            Err(Refusal { reason, .. }) => {
                if let Some(left_out) = self.logs.refused_leases.happened() {
                    warn!(
                        error = reason,
                        left_out,
                        "{} refused a lease; computing without",
                        self.store.name()
                    );
                }
                lease.forget();
                Taken::Unavailable
            }
        }
    }

    /// Removes the lease that another worker still holds for a redelivered request: that worker has lost
    /// the request.
    pub(crate) async fn take_over(&self, key: &Key, token: &Token, budget: &mut Budget) {
        let lease = self.lease(key, token);
        let started = Instant::now();
        lease.take_over(budget.0).await;
        lease.forget();
        budget.spend(started);
    }

    /// Releases the lease of an answer that was not computed: another worker may compute it.
    pub(crate) async fn give_back(&self, vacancy: Vacancy) {
        if let Some(lease) = vacancy.lease {
            lease.release(vacancy.budget.0).await;
        }
    }

    /// Marks the key as uncached, since there is no answer to store: workers that wait for the lease compute
    /// for themselves.
    pub(crate) async fn leave_empty(&self, vacancy: Vacancy) {
        if let Some(lease) = vacancy.lease {
            lease.leave_uncached(vacancy.budget.0).await;
        }
    }

    fn lease(&self, key: &Key, token: &Token) -> Lease {
        Lease::new(key, token.clone(), &self.store, self.options.budget)
    }
}
