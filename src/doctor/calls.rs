//! The last two checks: a call that a worker must answer, and one whose answer it must store.
//!
//! They are ordinary calls: what they leave in the cache is a correct answer.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::{Doctor, Found, Judged, Severity};
use crate::cache::{Cache, Lookup, Stored};
use crate::cache_use::CacheUse;
use crate::client::{Answered, CallOptions, Client};
use crate::error::Error;
use crate::procedure::Procedure;
use crate::source::Source;

/// Where a call's answer was stored.
enum StoreOutcome {
    Judged(Judged),
    /// The worker's answer came from a cache, though this one had none. Either the worker has another cache, and
    /// this client stored the answer here; or another call stored it in between.
    Unclear(String),
}

impl<P: Procedure<Argument: Clone>> Doctor<P> {
    /// Checks that a worker answers, by a call that bypasses the cache.
    pub(super) async fn call(&mut self) -> Judged {
        let Some(probe) = self.probes.first().cloned() else {
            return Judged::skipped(Found::Unknown(
                "there is no argument to call with".to_owned(),
            ));
        };
        let Some(client) = self.client() else {
            return Judged::nothing();
        };
        match self.ask(&client, &probe, CacheUse::Bypass).await {
            Ok(answered) => Judged::ok(Found::Answered(answered.elapsed)),
            Err(error) => Judged::failure(Found::Failed(error)),
        }
    }

    /// Checks that a worker's answer is stored and found, by the first probe that is not stored yet.
    pub(super) async fn hit(&mut self) -> Judged {
        let (Some(client), Some(cache)) = (self.client(), self.cache.take()) else {
            return Judged::nothing();
        };
        let judged = self.store_and_find(&client, &cache).await;
        judged.unwrap_or_else(|error| Judged::failure(Found::Failed(error)))
    }

    async fn store_and_find(&self, client: &Client<P>, cache: &Cache) -> Result<Judged, Error> {
        let mut unclear = false;
        for probe in &self.probes {
            let argument = Arc::new(probe.clone());
            let held = match cache.get(&self.procedure, &argument).await? {
                Stored::Answer(_) => continue,
                Stored::Refused(held) => Some(held),
                Stored::Nothing => None,
            };
            match self.fill_one(client, cache, &argument, held).await? {
                StoreOutcome::Judged(judged) => return Ok(judged),
                // Twice in a row is not another call's doing.
                StoreOutcome::Unclear(key) if unclear => {
                    return Ok(Judged::failure(Found::StoredElsewhere(key)));
                }
                StoreOutcome::Unclear(_) => unclear = true,
            }
        }
        let Some(probe) = self.probes.first() else {
            return Ok(Judged::nothing());
        };
        Ok(match self.find(probe).await {
            Some(took) => Judged::ok(Found::AlreadyStored(took)),
            None => Judged::warning(Found::TooLate(self.options.budget)),
        })
    }

    /// Looks the answer up like a call, within the cache budget. Returns how long that took; `None` without a hit.
    async fn find(&self, probe: &P::Argument) -> Option<Duration> {
        let mut options = self.options.cache(self.options.redis.clone().ok()?);
        options.budget = self.options.budget;
        let cache = Cache::open(options);
        let (key, argument) = (
            cache.key(self.procedure.name(), probe),
            Arc::new(probe.clone()),
        );
        // Connecting is not part of the time.
        let _ = cache.connected().await;
        let started = Instant::now();
        let mut budget = cache.budget_until(started + self.options.timeout).await;
        let looked = cache.lookup(key, &mut budget, &self.procedure, &argument);
        matches!(looked.await, Lookup::Hit(_)).then(|| started.elapsed())
    }

    async fn fill_one(
        &self,
        client: &Client<P>,
        cache: &Cache,
        argument: &Arc<P::Argument>,
        held: Option<String>,
    ) -> Result<StoreOutcome, Error> {
        let key = cache.key_of(&*self.procedure, argument).to_string();
        let answered = self.ask(client, argument, CacheUse::Normal).await?;
        let stored = cache.get(&self.procedure, argument).await?;
        if !matches!(stored, Stored::Answer(_)) {
            return Ok(StoreOutcome::Judged(Judged::failure(if answered.stored {
                Found::StoredElsewhere(key)
            } else {
                Found::NotStored(key)
            })));
        }
        if answered.source == Source::Cache {
            return Ok(StoreOutcome::Unclear(key));
        }
        Ok(StoreOutcome::Judged(
            match (self.find(argument).await, held) {
                (None, _) => Judged::warning(Found::TooLate(self.options.budget)),
                (_, Some(held)) => Judged::warning(Found::Replaced { key, held }),
                (Some(took), None) => Judged::ok(Found::Hit(took)),
            },
        ))
    }

    async fn ask(
        &self,
        client: &Client<P>,
        argument: &P::Argument,
        cache: CacheUse,
    ) -> Result<Answered<P::Answer>, Error> {
        let options = CallOptions {
            timeout: self.options.timeout,
            cache,
            wait: false,
        };
        client.call_with(argument.clone(), options).await
    }
}

impl Judged {
    fn new(severity: Severity, found: Found) -> Self {
        Self { severity, found }
    }

    pub(super) fn ok(found: Found) -> Self {
        Self::new(Severity::Ok, found)
    }

    pub(super) fn warning(found: Found) -> Self {
        Self::new(Severity::Warning, found)
    }

    pub(super) fn failure(found: Found) -> Self {
        Self::new(Severity::Failure, found)
    }

    pub(super) fn skipped(found: Found) -> Self {
        Self::new(Severity::Skipped, found)
    }

    /// A skipped check whose input is missing, though nothing has failed. Not reached: a defensive default.
    pub(super) fn nothing() -> Self {
        Self::skipped(Found::Unknown("there is nothing to check".to_owned()))
    }
}
