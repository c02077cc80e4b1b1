//! An answer on its way to the caller: verified, with its source.

use std::time::{Duration, Instant};

#[cfg(doc)]
use crate::procedure::Procedure;
use crate::source::Source;

/// An answer, and where it came from.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Answered<A> {
    /// The answer; it has passed [`Procedure::verify`].
    pub answer: A,
    /// Where it came from.
    pub source: Source,
    /// Whether the store has it. Of a [local](Source::Local) answer: whether the store had it when this
    /// process got it.
    pub stored: bool,
    /// How long the call took.
    pub elapsed: Duration,
}

/// A verified answer, where it came from, and whether the store has it.
#[derive(Debug, Clone)]
pub(super) struct Resolved<A> {
    pub(super) answer: A,
    pub(super) source: Source,
    pub(super) stored: bool,
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
