//! Looks many answers up at once, for many calls.

use std::sync::Arc;

use tokio::time::Instant;

use super::store::StoreError;
use super::{Cache, Key, Look, Lookup, Vacancy};
use crate::procedure::Procedure;

/// How much one lookup of many answers returned.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Gave {
    Bytes(usize),
    NothingInTime,
    Unknown,
}

impl Cache {
    /// Looks up many answers within one budget.
    pub(crate) async fn lookup_many<P: Procedure>(
        &self,
        wanted: Vec<(Key, Arc<P::Argument>)>,
        procedure: &Arc<P>,
        deadline: Instant,
    ) -> (Vec<Lookup<P::Answer>>, Gave) {
        match <[_; 1]>::try_from(wanted) {
            Ok([(key, argument)]) => {
                let mut budget = self.budget_until(deadline).await;
                let lookup = self.lookup(key, &mut budget, procedure, &argument);
                (vec![lookup.await], Gave::Unknown)
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
                None => Lookup::Miss(Vacancy::without_lease(key, budget.clone())),
            });
        }
        (lookups, gave)
    }
}
