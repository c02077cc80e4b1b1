//! Asks the broker whether a queue with a custom name is a callback queue.
//!
//! A queue that is exclusive to another connection belongs to that connection's program, as a callback queue does.
//! The broker answers a passive declaration of such a queue with `RESOURCE_LOCKED`. Later versions refuse it to a
//! login without rights on the queue; then only `--reply-to` allows the name.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lapin::Connection;
use lapin::types::ShortString;
use tokio::time::Instant;

use super::lifo_lock::LifoLock;
use crate::broker;

/// How long an answer is valid: a queue may be deleted, and another one may get its name.
const VALID_FOR: Duration = Duration::from_secs(5);

/// The longest name that the broker is asked about, in bytes.
const MAX_NAME: usize = 128;

/// The number of names remembered. When there are more, all are forgotten.
const MAX_NAMES: usize = 1024;

/// Which queues are callback queues, as far as the broker was asked.
#[derive(Debug)]
pub(super) struct CallbackQueues {
    connection: Arc<Connection>,
    known: Mutex<HashMap<ShortString, (bool, Instant)>>,
    /// One question at a time: each takes a channel, and clients can cause any number of them.
    asking: LifoLock<()>,
}

impl CallbackQueues {
    pub(super) fn new(connection: Arc<Connection>) -> Self {
        Self {
            connection,
            known: Mutex::default(),
            asking: LifoLock::default(),
        }
    }

    /// Whether this queue is exclusive to another connection. `false` as well if the broker does not say so, or
    /// too many other names wait for an answer. `on_wait` is called before the broker is asked.
    ///
    /// Cancel safe.
    pub(super) async fn has(&self, name: &ShortString, on_wait: impl Fn()) -> bool {
        if !is_plain(name.as_str()) {
            return false;
        }
        if let Some(known) = self.remembered(name) {
            return known;
        }
        on_wait();
        let Some(_guard) = self.asking.lock().await else {
            return false;
        };
        if let Some(known) = self.remembered(name) {
            return known;
        }
        let declare = broker::declare_passively(&self.connection, name);
        let declared = broker::bounded_lapin(declare).await;
        let exclusive = declared.is_err_and(|error| broker::is_locked(&error));
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
        (since.elapsed() < VALID_FOR).then_some(*exclusive)
    }

    fn known(&self) -> MutexGuard<'_, HashMap<ShortString, (bool, Instant)>> {
        // Nothing panics while it is held.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether the broker may be asked about this name: RPC libraries use such names. Other names may end the connection
/// and the session with it: a forged direct reply-to name does, and in RabbitMQ 4.0 a name that cannot be formatted
/// into its error message.
fn is_plain(name: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"._-:/@+~".contains(&byte);
    name.len() <= MAX_NAME && !name.starts_with("amq.") && name.bytes().all(fits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn broker_is_not_asked_about_names_that_may_end_the_connection() {
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
