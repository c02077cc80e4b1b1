//! The source of an answer: cache, near cache, another caller's flight, or a computation.

use std::fmt;

/// Where an answer came from. Every answer has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Source {
    /// This process's own memory, see [`ClientOptions::local`](crate::ClientOptions::local). Never sent in a
    /// reply.
    Local,
    /// The store: the caller or the worker found it there.
    Cache,
    /// Another caller's flight, in the same process or in a worker that was computing the same answer.
    Shared,
    /// A worker computed it for this call.
    Computed,
}

impl Source {
    /// All, the nearest first.
    #[cfg(feature = "metrics")]
    pub(crate) const ALL: [Self; 4] = [Self::Local, Self::Cache, Self::Shared, Self::Computed];

    /// A short stable name: `local`, `cache`, `shared` or `computed`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Cache => "cache",
            Self::Shared => "shared",
            Self::Computed => "computed",
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}
