//! Names of request queues and their dead-letter queues.

use std::fmt;
use std::str::FromStr;

use lapin::types::ShortString;

use crate::procedure_name::ProcedureName;

/// The suffix of a dead-letter queue's name.
const DEAD: &str = ".dead";

/// The name of a request queue: 1 to 250 bytes, which leaves room for its dead-letter queue (`NAME.dead`).
///
/// ```
/// use rpcache::{ProcedureName, QueueName};
///
/// assert_eq!(QueueName::of(&ProcedureName::new("fib")).to_string(), "rpc_queue");
/// assert_eq!(QueueName::of(&ProcedureName::new("thumb")).to_string(), "rpc_queue.thumb");
/// assert!("".parse::<QueueName>().is_err());
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct QueueName(String);

impl QueueName {
    /// The default queue of a procedure: `rpc_queue` for `fib`, as in RabbitMQ's tutorial, and
    /// `rpc_queue.NAME` for any other.
    #[must_use]
    pub fn of(procedure: &ProcedureName) -> Self {
        match procedure.as_str() {
            "fib" => Self("rpc_queue".to_owned()),
            name => Self(format!("rpc_queue.{name}")),
        }
    }

    pub(crate) fn as_short(&self) -> ShortString {
        // At most 250 bytes: `from_str` checks, and a procedure's name is shorter.
        ShortString::try_new(self.0.as_str()).unwrap_or_default()
    }

    /// The dead-letter queue: where a policy may send messages that the broker drops.
    pub(crate) fn dead_letters(&self) -> ShortString {
        ShortString::try_new(format!("{}{DEAD}", self.0)).unwrap_or_default()
    }

    /// Whether `name` is this queue or its dead-letter queue.
    pub(crate) fn covers(&self, name: &str) -> bool {
        name == self.0 || name.strip_suffix(DEAD) == Some(&self.0)
    }
}

impl FromStr for QueueName {
    type Err = QueueNameError;

    fn from_str(text: &str) -> Result<Self, QueueNameError> {
        if (1..=255 - DEAD.len()).contains(&text.len()) {
            Ok(Self(text.to_owned()))
        } else {
            Err(QueueNameError)
        }
    }
}

/// Why a text is not a [`QueueName`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a queue's name must have 1 to 250 bytes")]
#[non_exhaustive]
pub struct QueueNameError;

impl fmt::Display for QueueName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
