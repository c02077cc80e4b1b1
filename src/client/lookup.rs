//! The lookup of a call: in the near cache, then in the store.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::near::StoreTicket;
use super::{Answered, CallOptions, Inner};
use crate::FOR_EVER;
use crate::cache::{Key, Lookup, Vacancy};
use crate::procedure::Procedure;
use crate::source::Source;

/// A verified answer, where it came from, and whether the store has it.
#[derive(Debug, Clone)]
pub(super) struct Resolved<A> {
    pub(super) answer: A,
    pub(super) source: Source,
    pub(super) stored: bool,
}

/// One call: its options and when it started.
#[derive(Clone, Copy)]
pub(super) struct Call {
    pub(super) options: CallOptions,
    pub(super) started: Instant,
}

/// What to do before a request.
pub(super) enum BeforeLookup<A> {
    /// This call does not read the store.
    Skip(Looked<A>),
    /// Look in the store. The ticket is for a near copy of a hit.
    Look(Option<StoreTicket>),
}

/// The outcome of the lookup.
pub(super) enum Looked<A> {
    Hit(Resolved<A>),
    /// No answer, and the permission to fill it in, if this call stores answers.
    Miss(Option<Vacancy>),
}

impl<A> Looked<A> {
    pub(super) fn is_hit(&self) -> bool {
        matches!(self, Self::Hit(_))
    }
}

impl<A> From<Lookup<A>> for Looked<A> {
    fn from(lookup: Lookup<A>) -> Self {
        match lookup {
            Lookup::Hit(answer) => Self::Hit(Resolved::from_store(answer)),
            Lookup::Miss(vacancy) => Self::Miss(Some(vacancy)),
        }
    }
}

impl<A> Resolved<A> {
    pub(super) fn from_store(answer: A) -> Self {
        Self {
            answer,
            source: Source::Cache,
            stored: true,
        }
    }

    pub(super) fn answered(self, started: Instant) -> Answered<A> {
        Answered {
            answer: self.answer,
            source: self.source,
            stored: self.stored,
            elapsed: started.elapsed(),
        }
    }
}

impl Call {
    pub(super) fn new(options: CallOptions) -> Self {
        Self {
            options,
            started: Instant::now(),
        }
    }

    pub(super) fn deadline(&self) -> tokio::time::Instant {
        let deadline = self.started + self.options.timeout.min(FOR_EVER);
        tokio::time::Instant::from_std(deadline)
    }

    /// The same call, whose time starts later: a wait does not count against its timeout.
    pub(super) fn started_later_by(self, waited: Duration) -> Self {
        Self {
            started: self.started + waited,
            ..self
        }
    }
}

impl<P: Procedure> Inner<P> {
    /// This process's copy of the answer, if the call may use one; else the key.
    pub(super) fn near_copy(
        &self,
        argument: &P::Argument,
        call: Call,
    ) -> Result<Resolved<P::Answer>, Key> {
        let key = || self.key(argument);
        match &self.near {
            Some(near) if call.options.cache.reads() => near.look(argument, key, call.started),
            _ => Err(key()),
        }
    }

    /// Looks in the store, if the call reads it.
    pub(super) async fn look(
        &self,
        key: Key,
        argument: &Arc<P::Argument>,
        call: Call,
    ) -> Looked<P::Answer> {
        match self.before_lookup(&key, call) {
            BeforeLookup::Skip(looked) => looked,
            BeforeLookup::Look(ticket) => {
                let (procedure, deadline) = (&self.procedure, call.deadline());
                let lookup = self.cache.lookup(key, procedure, argument, deadline);
                self.after_lookup(lookup.await, ticket, call)
            }
        }
    }

    pub(super) fn before_lookup(&self, key: &Key, call: Call) -> BeforeLookup<P::Answer> {
        let cache_use = call.options.cache;
        if cache_use.reads() {
            return BeforeLookup::Look(self.near.as_ref().map(|near| near.ticket(key)));
        }
        let vacancy = || self.cache.vacancy(key.clone());
        BeforeLookup::Skip(Looked::Miss(cache_use.writes().then(vacancy)))
    }

    /// Keeps a near copy of a hit.
    pub(super) fn after_lookup(
        &self,
        lookup: Lookup<P::Answer>,
        ticket: Option<StoreTicket>,
        call: Call,
    ) -> Looked<P::Answer> {
        let looked = Looked::from(lookup);
        if let (Looked::Hit(hit), Some(near), Some(ticket)) = (&looked, &self.near, ticket) {
            near.keep(ticket, hit, call.started);
        }
        looked
    }
}
