//! What a client tells the driver, one JSON object a line, every 100 ms; and what it is told.

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

/// What the driver tells a client: one JSON object a line.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Order {
    /// How long no call is made.
    pub(crate) pause_ms: u64,
    /// What is asked for then, all at once.
    pub(crate) ask: Vec<u64>,
    /// Whether the answers are stored then; else the cache is left alone.
    pub(crate) stored: bool,
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
    /// Its answer was stored a moment before, and Redis is well. For how long this process did not get to
    /// run within the cache's budget, in microseconds.
    pub(crate) stored: Option<u64>,
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

    /// Of a time that is not before this clock was read.
    pub(crate) fn instant(&self, micros: u64) -> Instant {
        let since = Duration::from_micros(micros).saturating_sub(self.read);
        self.at + since
    }

    pub(crate) fn now(&self) -> u64 {
        self.micros(Instant::now())
    }
}

pub(crate) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
