//! What workers do with a missing answer: claim it, give it back.

use std::sync::Arc;

use redis::RedisError;
use tokio::time::Instant;
use tracing::warn;

use super::connection::Unanswered;
use super::lease::{Claimed, Lease, Token};
use super::{Budget, Cache, Key, Look, Vacancy, connection};
use crate::procedure::Procedure;
use crate::trace::{self, Operation};

type Replied = Result<Option<Vec<u8>>, RedisError>;

/// What a worker that is to compute finds.
pub(crate) enum Claim<A> {
    /// An answer that passed the check.
    Hit(A),
    /// None, and nobody else computes it as far as one can know.
    Vacant(Vacancy),
    /// None, and another worker computes it.
    Held,
}

impl Cache {
    /// Tries for the key's lease and looks for the answer, in one round trip and in this order: in
    /// the other, a holder that fills and releases in between would be missed twice. A hit wins.
    /// Without a `look` it does not look. What is left of the budget then goes on with the vacancy.
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
        if !self.connection.is_up() {
            // Nothing will be sent: there will be nothing to release.
            self.unlooked(look);
            return Claim::Vacant(vacancy);
        }
        let lease = self.lease(&vacancy.key, token);
        let mut commands = redis::pipe();
        commands.ignore_errors().add_command(lease.take());
        if look.is_some() {
            commands.get(vacancy.key.as_str());
        }
        commands.add_command(lease.bound()).ignore();
        let replies: Result<Vec<Replied>, _> =
            self.run_all_twice(&commands, &mut vacancy.budget).await;
        let Ok(replies) = replies else {
            self.unlooked(look);
            return Claim::Vacant(vacancy);
        };
        let mut replies = replies.into_iter();
        let claimed = self.claimed(lease, replies.next());
        let hit = match look.zip(replies.next()) {
            Some((look, found)) => {
                let found = found.map_err(Unanswered::Refused);
                let checked = self.checked(look, &vacancy.key, found, procedure, argument);
                checked.await
            }
            None => None,
        };
        match (hit, claimed) {
            (Some(answer), claimed) => {
                if let Claimed::Ours(lease) = claimed {
                    lease.release(vacancy.budget.0).await;
                }
                Claim::Hit(answer)
            }
            (None, Claimed::Held) => Claim::Held,
            (None, Claimed::Free) => Claim::Vacant(vacancy),
            (None, Claimed::Ours(lease)) => Claim::Vacant(Vacancy {
                lease: Some(lease),
                ..vacancy
            }),
        }
    }

    /// Redis did not say what it has.
    fn unlooked(&self, look: Option<Look>) {
        if look == Some(Look::First) {
            self.counts.unanswered.count();
        }
    }

    /// What became of the attempt to take a lease.
    fn claimed(&self, lease: Lease, reply: Option<Replied>) -> Claimed {
        match reply {
            Some(Ok(held)) => lease.claimed(held.as_deref()),
            Some(Err(error)) => {
                if let Some(left_out) = self.refused_leases.happened() {
                    let error = connection::describe(&error);
                    warn!(error, left_out, "Redis refused a lease; computing without");
                }
                lease.forget();
                Claimed::Free
            }
            None => Claimed::Free,
        }
    }

    /// A redelivered request: whoever else holds a lease for it has lost it, and is overtaken.
    pub(crate) async fn take_over(&self, key: &Key, token: &Token, budget: &mut Budget) {
        let lease = self.lease(key, token);
        let started = Instant::now();
        lease.take_over(budget.0).await;
        lease.forget();
        budget.spend(started);
    }

    /// Nothing was computed: the next one may.
    pub(crate) async fn give_back(&self, vacancy: Vacancy) {
        if let Some(lease) = vacancy.lease {
            lease.release(vacancy.budget.0).await;
        }
    }

    /// There is no answer to store: those who wait for it compute for themselves.
    pub(crate) async fn leave_empty(&self, vacancy: Vacancy) {
        if let Some(lease) = vacancy.lease {
            lease.leave_uncached(vacancy.budget.0).await;
        }
    }

    fn lease(&self, key: &Key, token: &Token) -> Lease {
        Lease::new(key, token.clone(), &self.connection, self.options.budget)
    }
}
