//! What a client tells the driver: one JSON object a line, every 100 ms.

use std::fmt;
use std::time::{Duration, Instant, SystemTime};

use serde::{Deserialize, Serialize};

use crate::trap;

#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Batch {
    /// Calls that ended since the last batch.
    pub(crate) calls: Vec<Call>,
    /// Calls begun since the client started.
    pub(crate) begun: u64,
    /// The longest stall of this process since the last batch, in microseconds.
    pub(crate) stall: u64,
    /// Nothing comes after it: the client has ended by itself.
    pub(crate) last: bool,
}

/// One call as its caller saw it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Call {
    /// Microseconds of the clock that all processes of the machine share.
    pub(crate) start: u64,
    pub(crate) end: u64,
    pub(crate) timeout_ms: u64,
    pub(crate) asked: Asked,
    /// Neither looked in the cache; or looked, as calls do.
    pub(crate) cached: bool,
    /// By how much it ended after the bound, this process's own stall allowed for, in microseconds.
    pub(crate) late: u64,
    pub(crate) outcome: Outcome,
}

/// The procedure and the argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Asked {
    Fib(u64),
    Trap(u64),
}

impl fmt::Display for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fib(n) => write!(f, "fib {n}"),
            Self::Trap(n) => write!(f, "trap {n} ({:?})", trap::nature(*n)),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Outcome {
    /// The right answer, and where it came from.
    Answered(String),
    /// A wrong answer.
    Wrong,
    /// A typed error: its code, and its message.
    Failed(String, String),
    /// The call did not end at all.
    Lost,
}

/// A clock that all processes of the machine share, read once; monotonic from then on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    read: Duration,
    at: Instant,
}

impl Clock {
    pub(crate) fn new() -> Self {
        let read = SystemTime::UNIX_EPOCH.elapsed();
        Self {
            read: read.expect("it is after 1970"),
            at: Instant::now(),
        }
    }

    pub(crate) fn micros(&self, at: Instant) -> u64 {
        micros(self.read + at.duration_since(self.at))
    }

    pub(crate) fn now(&self) -> u64 {
        self.micros(Instant::now())
    }
}

pub(crate) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
