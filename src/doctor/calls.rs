//! The last checks: a call that a worker has to answer, and one that it has to store. They are calls as
//! any other, so what they leave behind is a right answer in the cache.

use std::sync::Arc;

use super::{Doctor, Found, Judged, Severity};
use crate::cache::{Cache, Stored};
use crate::client::{Answered, CallOptions, Client};
use crate::error::Error;
use crate::message::{CacheUse, Source};
use crate::procedure::Procedure;

/// What a call showed about where its answer is stored.
enum Shown {
    Judged(Judged),
    /// A worker that had the answer already, or somebody stored it in between.
    Unclear(String),
}

impl<P: Procedure<Argument: Clone>> Doctor<P> {
    /// Past the caches.
    pub(super) async fn call(&mut self) -> Judged {
        let Some(probe) = self.probes.first().cloned() else {
            return Judged::skipped(Found::NotTold("there is no argument to ask for".to_owned()));
        };
        let Some(client) = self.client() else {
            return Judged::nothing();
        };
        match self.ask(&client, &probe, CacheUse::Bypass).await {
            Ok(answered) => Judged::ok(Found::Answered(answered.elapsed)),
            Err(error) => Judged::failure(Found::Failed(error)),
        }
    }

    /// By the first argument that is not stored yet: only that one has to be stored.
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
                Shown::Judged(judged) => return Ok(judged),
                // Twice in a row is no chance any more.
                Shown::Unclear(key) if unclear => {
                    return Ok(Judged::failure(Found::StoredElsewhere(key)));
                }
                Shown::Unclear(_) => unclear = true,
            }
        }
        let Some(probe) = self.probes.first() else {
            return Ok(Judged::nothing());
        };
        let found = self.ask(client, probe, CacheUse::Normal).await?;
        Ok(match found.source {
            Source::Cache => Judged::ok(Found::AlreadyStored(found.elapsed)),
            _ => Judged::warning(Found::TooLate(self.options.budget)),
        })
    }

    async fn fill_one(
        &self,
        client: &Client<P>,
        cache: &Cache,
        argument: &Arc<P::Argument>,
        held: Option<String>,
    ) -> Result<Shown, Error> {
        let key = cache.key_of::<P>(argument).to_string();
        let first = self.ask(client, argument, CacheUse::Normal).await?;
        let again = self.ask(client, argument, CacheUse::Normal).await?;
        if again.source == Source::Cache {
            return Ok(match (first.source, held) {
                // It was not in ours.
                (Source::Cache, _) => Shown::Unclear(key),
                (_, Some(held)) => Shown::Judged(Judged::warning(Found::Replaced { key, held })),
                (_, None) => Shown::Judged(Judged::ok(Found::Hit(again.elapsed))),
            });
        }
        Ok(Shown::Judged(
            match cache.get(&self.procedure, argument).await? {
                Stored::Answer(_) => Judged::warning(Found::TooLate(self.options.budget)),
                _ if first.stored => Judged::failure(Found::StoredElsewhere(key)),
                _ => Judged::failure(Found::NotStored(key)),
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

    /// What it needs is not there, though nothing has failed: no check comes to this.
    pub(super) fn nothing() -> Self {
        Self::skipped(Found::NotTold("there is nothing to look at".to_owned()))
    }
}
