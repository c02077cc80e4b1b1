//! The messages between the driver and its client processes, each one line of JSON: batches of calls that
//! ended, every 100 ms, and instructions.

use std::fmt;
use std::time::{Duration, Instant, SystemTime};

use serde::{Deserialize, Serialize};

use crate::crasher;

#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Batch {
    /// Calls that ended since the last batch.
    pub(crate) calls: Vec<Call>,
    /// Calls begun since the client started.
    pub(crate) begun: u64,
    /// The longest stall of this process since the last batch, in microseconds.
    pub(crate) stall: u64,
    /// Whether this is the last batch: all calls have ended.
    pub(crate) last: bool,
}

/// What the driver makes a client do.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Instruction {
    /// How long all callers pause first.
    pub(crate) pause_ms: u64,
    /// Arguments of the calls that follow, all at the same time.
    pub(crate) arguments: Vec<u64>,
    /// Whether the answers are stored by then, so that the calls must be hits; otherwise they bypass the cache.
    pub(crate) stored: bool,
}

/// One call as its caller saw it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Call {
    /// Microseconds of the clock that all processes of the machine share.
    pub(crate) start: u64,
    pub(crate) end: u64,
    pub(crate) timeout_ms: u64,
    pub(crate) argument: Argument,
    /// Whether the call used the cache, rather than bypass or refresh it.
    pub(crate) cached: bool,
    /// Set if the answer was stored just before and Redis works: for how long this process was not scheduled
    /// within the cache budget, in microseconds.
    pub(crate) stored: Option<u64>,
    /// By how much it ended after the bound, this process's own stalls subtracted, in microseconds.
    pub(crate) late: u64,
    pub(crate) outcome: Outcome,
}

/// The procedure and the argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Argument {
    Fib(u64),
    Crasher(u64),
}

impl fmt::Display for Argument {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fib(n) => write!(f, "fib {n}"),
            Self::Crasher(n) => write!(f, "crasher {n} ({:?})", crasher::behaviour(*n)),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Outcome {
    /// The right answer, and its source.
    Answered(String),
    /// A wrong answer.
    Wrong,
    /// A typed error: its code and its message.
    Failed(String, String),
    /// The call did not end.
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

    /// The instant of a time that is not before this clock was created.
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
