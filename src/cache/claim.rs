//! Claims a missing answer: a worker takes the key's lease before it computes, keeps it meanwhile, and gives it back.
//!
//! `{KEY}:lease` holds the token of the request whose worker computes, so that a key is computed once at a time. It is
//! taken where it is free, renewed while computing, and released by its holder alone; a holder that dies stops
//! renewing, and the lease expires. A lease only saves work: a worker that cannot have one, because the store does not
//! answer or refuses, computes without.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};
use tracing::warn;

use super::store::{Claimed, LeaseChange, Refusal, Store, StoreError};
use super::{Budget, Cache, Key, Look, Token, Vacancy};
use crate::procedure::Procedure;
use crate::trace::{self, Operation};

/// TTL of a lease: a holder that is frozen for longer is overtaken.
pub(super) const LEASE: Duration = Duration::from_secs(3);

/// Interval of renewals while computing.
const RENEW: Duration = Duration::from_secs(1);

/// Pause between two attempts to release a lease while the store is away.
const RELEASE_PAUSE: Duration = Duration::from_millis(50);

/// Mark that replaces a lease when there is nothing to wait for: the answer cannot be stored.
pub(super) const UNCACHED: &str = "uncached";

/// TTL of that mark.
const UNCACHED_FOR: Duration = Duration::from_secs(1);

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
        mut budget: Budget,
        token: &Token,
        look: Option<Look>,
        procedure: &Arc<P>,
        argument: &Arc<P::Argument>,
    ) -> Claim<P::Answer> {
        if !self.store.is_up(&key) {
            // Nothing is sent: there will be nothing to release.
            self.count_unanswered(look);
            return Claim::Vacant(Vacancy::without_lease(key, budget));
        }
        let lease = self.lease(&key, token);
        let (lookup_key, started) = (look.is_some().then_some(&key), Instant::now());
        let claim = self
            .store
            .claim(&lease.name, token, LEASE, lookup_key, budget.0);
        let claimed = claim.await;
        budget.spend(started);
        let Ok(Claimed { held, found }) = claimed else {
            self.count_unanswered(look);
            return Claim::Vacant(Vacancy::without_lease(key, budget));
        };
        let outcome = self.taken(lease, held);
        let hit = match look.zip(found) {
            Some((look, found)) => {
                let checked = self.checked(look, &key, found, procedure, argument);
                checked.await
            }
            None => None,
        };
        match (hit, outcome) {
            (Some(answer), outcome) => {
                if let Taken::Ours(lease) = outcome {
                    lease.release(budget.0).await;
                }
                Claim::Hit(answer)
            }
            (None, Taken::Held) => Claim::Held,
            (None, Taken::Unavailable) => Claim::Vacant(Vacancy::without_lease(key, budget)),
            (None, Taken::Ours(lease)) => Claim::Vacant(Vacancy {
                lease: Some(lease),
                ..Vacancy::without_lease(key, budget)
            }),
        }
    }

    /// The store did not say what it has.
    fn count_unanswered(&self, look: Option<Look>) {
        if look == Some(Look::First) {
            self.counts.unanswered.count();
        }
    }

    /// The result of the attempt to take this lease, by what it held before.
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

/// A lease that is held, or may be. Released when dropped, unless it was ended before.
#[must_use]
#[derive(Debug)]
pub(crate) struct Lease {
    name: String,
    token: Token,
    store: Arc<Store>,
    /// Limit of one attempt to renew it, or to release it when it is dropped.
    budget: Duration,
    ended: bool,
}

/// The result of an attempt to take a lease.
pub(super) enum Taken {
    Ours(Lease),
    /// Another request has it, or another worker for this request.
    Held,
    /// No worker holds it, and it cannot be taken: compute without a lease.
    Unavailable,
}

impl Lease {
    /// Made before the store is asked for it, so that an attempt that is dropped leaves nothing behind.
    pub(super) fn new(key: &Key, token: Token, store: &Arc<Store>, budget: Duration) -> Self {
        Self {
            name: key.lease(),
            token,
            store: Arc::clone(store),
            budget,
            ended: false,
        }
    }

    pub(super) fn name_and_token(&self) -> (&str, &Token) {
        (&self.name, &self.token)
    }

    /// Whether it is ours, by what it held when it was claimed.
    pub(super) fn taken(self, held: Option<&[u8]>) -> Taken {
        match held {
            None => Taken::Ours(self),
            Some(token) if token == self.token.as_str().as_bytes() => Taken::Ours(self),
            Some(token) => {
                self.forget();
                if token == UNCACHED.as_bytes() {
                    Taken::Unavailable
                } else {
                    Taken::Held
                }
            }
        }
    }

    /// Ends it without releasing it: another worker holds it, or it has expired, or was released already.
    pub(super) fn forget(mut self) {
        self.ended = true;
    }

    /// Runs `work` to its end, and renews the lease meanwhile where there is one. A lease that is lost all
    /// the same costs another computation, no more.
    pub(crate) async fn kept_during<T>(lease: Option<&Self>, work: impl Future<Output = T>) -> T {
        let Some(lease) = lease else {
            return work.await;
        };
        tokio::select! {
            done = work => done,
            never = lease.renew_for_ever() => match never {},
        }
    }

    async fn renew_for_ever(&self) -> Infallible {
        loop {
            sleep(RENEW).await;
            // Late or refused: tried again in a second.
            let _ = self.change(LeaseChange::Renew(LEASE), self.budget).await;
        }
    }

    /// Releases it now.
    pub(super) async fn release(mut self, limit: Duration) {
        let released = self.change(LeaseChange::Release, limit).await;
        // Otherwise that is tried again when this is dropped.
        self.ended = !matches!(released, Err(StoreError::Unavailable));
    }

    /// Replaces it by a mark for those that wait for it: no answer will be stored.
    pub(super) async fn leave_uncached(mut self, limit: Duration) {
        let leave = LeaseChange::Leave {
            mark: UNCACHED,
            ttl: UNCACHED_FOR,
        };
        let left = self.change(leave, limit).await;
        self.ended = !matches!(left, Err(StoreError::Unavailable));
    }

    /// Removes another worker's lease for the same request, which was lost there.
    pub(super) async fn take_over(&self, limit: Duration) {
        // Failing that, its lease expires.
        let _ = self.change(LeaseChange::TakeOver, limit).await;
    }

    async fn change(&self, change: LeaseChange<'_>, limit: Duration) -> Result<(), StoreError> {
        let (name, token) = self.name_and_token();
        self.store.change_lease(name, token, change, limit).await
    }
}

impl Drop for Lease {
    /// Releases it in the background, for as long as it can last: when its holder gives up, no other worker
    /// has to wait until it expires.
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            return;
        };
        let (store, budget) = (Arc::clone(&self.store), self.budget);
        let (name, token) = (std::mem::take(&mut self.name), self.token.clone());
        runtime.spawn(timeout(LEASE, async move {
            let release = LeaseChange::Release;
            while let Err(StoreError::Unavailable) =
                store.change_lease(&name, &token, release, budget).await
            {
                sleep(RELEASE_PAUSE).await;
            }
        }));
    }
}
