//! Callback queues with names of their callers' own making, told from other queues by the broker.
//!
//! A queue that is exclusive to another connection belongs to that connection's program and is read by nobody
//! else, as a callback queue is. The broker says so when somebody else looks at it (`RESOURCE_LOCKED`). Later
//! versions let nobody look who has no right on the queue: then only `--reply-to` allows it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lapin::Connection;
use lapin::types::ShortString;
use tokio::time::Instant;

use super::turns::Turns;
use crate::broker;

/// How long an answer holds: a queue may be deleted, and another one may get its name.
const REMEMBERED: Duration = Duration::from_secs(5);

/// Bytes of a name that is looked for.
const MAX_NAME: usize = 128;

/// Names that are remembered. When there are more, all are forgotten.
const MAX_NAMES: usize = 1024;

/// What is known of queues by name.
#[derive(Debug)]
pub(super) struct CallbackQueues {
    connection: Arc<Connection>,
    known: Mutex<HashMap<ShortString, (bool, Instant)>>,
    /// One look at a time: each takes a channel, and whoever sends requests can ask for any number of them.
    looking: Turns<()>,
}

impl CallbackQueues {
    pub(super) fn new(connection: Arc<Connection>) -> Self {
        Self {
            connection,
            known: Mutex::default(),
            looking: Turns::default(),
        }
    }

    /// Whether this queue is exclusive to another connection. `false` as well where the broker does not say
    /// so, or too many others are looked for. `waits` is called before it is looked for.
    ///
    /// Cancel safe.
    pub(super) async fn has(&self, name: &ShortString, waits: impl Fn()) -> bool {
        if !is_plain(name.as_str()) {
            return false;
        }
        if let Some(known) = self.remembered(name) {
            return known;
        }
        waits();
        let Some(_turn) = self.looking.enter().await else {
            return false;
        };
        if let Some(known) = self.remembered(name) {
            return known;
        }
        let look = broker::declare_passively(&self.connection, name);
        let found = broker::bounded_lapin(look).await;
        let exclusive = found.is_err_and(|error| broker::is_locked(&error));
        let mut known = self.known();
        if known.len() >= MAX_NAMES {
            known.clear();
        }
        known.insert(name.clone(), (exclusive, Instant::now()));
        exclusive
    }

    fn remembered(&self, name: &ShortString) -> Option<bool> {
        let known = self.known();
        let (exclusive, since) = known.get(name)?;
        (since.elapsed() < REMEMBERED).then_some(*exclusive)
    }

    fn known(&self) -> MutexGuard<'_, HashMap<ShortString, (bool, Instant)>> {
        // Nothing panics while it is held.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether the broker can be asked for a queue of this name, as RPC libraries name theirs. Others may end the
/// connection, and the session with it: a forged direct reply-to does, and to RabbitMQ 4.0 a name that does not
/// fit the words of its refusal.
fn is_plain(name: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"._-:/@+~".contains(&byte);
    name.len() <= MAX_NAME && !name.starts_with("amq.") && name.bytes().all(fits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_may_end_the_connection_are_not_looked_for() {
        for plain in ["billing.rpc.0f3a", "replies_of-host:42", "a"] {
            assert!(is_plain(plain), "{plain}");
        }
        let long = "x".repeat(MAX_NAME + 1);
        for other in [
            "amq.rabbitmq.reply-to.g2dk.x==",
            "ä",
            "a b",
            "\u{1b}",
            &long,
        ] {
            assert!(!is_plain(other), "{other}");
        }
    }
}
