//! What was removed from Redis, told to clients that keep copies of their own: one message on a
//! channel that they listen to, `rpcache:removed`, in a namespace `prod:rpcache:removed`.
//!
//! A message is keys, one a line, or `fib:*` for all of a procedure's: what a person can send with
//! redis-cli, too. Messages can be lost, so copies also have a short life of their own. Anybody with
//! the right to publish can make clients drop copies, which costs them lookups, and nothing else.

mod listener;

use std::borrow::Borrow;

use redis::Cmd;
use tokio_util::task::AbortOnDropHandle;
use tracing::warn;

use self::listener::Listener;
use super::manage::StoredKey;
use super::{Cache, Namespace};
use crate::procedure::Procedure;
use crate::procedure_name::ProcedureName;

/// Messages of ours are no longer, in bytes.
const LONGEST: usize = 32 * 1024;

/// No key of ours is longer.
const LONGEST_KEY: usize = 1024;

/// Copies that are to be dropped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Purge<'a> {
    /// Those of these keys.
    Keys(Vec<&'a str>),
    /// All.
    Everything,
}

impl<'a> Purge<'a> {
    /// What a message says to whoever keeps copies of keys with this prefix. Keys of others are none
    /// of its business. What cannot be understood purges everything: a later version may have meant
    /// something by it, and a copy too few is only slower.
    fn read(message: &'a [u8], prefix: &str) -> Self {
        if message.len() > LONGEST {
            return Self::Everything;
        }
        let Ok(text) = std::str::from_utf8(message) else {
            return Self::Everything;
        };
        let mut keys = Vec::new();
        for line in text.lines() {
            match line.split_once('*') {
                // No key has one: it is a pattern, and may mean some of ours.
                Some((stem, _)) if stem.starts_with(prefix) || prefix.starts_with(stem) => {
                    return Self::Everything;
                }
                None if line.starts_with(prefix) => keys.push(line),
                _ => {}
            }
        }
        Self::Keys(keys)
    }
}

/// Keys in as few messages as they fit into.
fn messages<'a>(keys: impl Iterator<Item = &'a [u8]>) -> Vec<Vec<u8>> {
    let mut messages: Vec<Vec<u8>> = Vec::new();
    for key in keys {
        // What no call looks for, nobody has a copy of.
        if key.len() > LONGEST_KEY || key.contains(&b'\n') || std::str::from_utf8(key).is_err() {
            continue;
        }
        match messages.last_mut() {
            Some(message) if message.len() + 1 + key.len() <= LONGEST => {
                message.push(b'\n');
                message.extend_from_slice(key);
            }
            _ => messages.push(key.to_vec()),
        }
    }
    messages
}

fn channel(namespace: Option<&Namespace>) -> String {
    let prefix = namespace.map_or(String::new(), |Namespace(name)| format!("{name}:"));
    format!("{prefix}rpcache:removed")
}

impl Cache {
    /// Tells clients that keep copies of their own (see
    /// [`ClientOptions::local`](crate::ClientOptions::local)) to drop those of all of the procedure's
    /// answers in this namespace.
    ///
    /// Whoever is connected has done so within a moment. Where Redis cannot be told, or refuses
    /// (`+publish` and `&rpcache:*` are the rights it takes), that is logged, and copies live as long
    /// as they would have. Cancel safe.
    pub async fn purge_copies<P: Procedure>(&self, procedure: &P) {
        self.publish(vec![
            format!("{}*", self.prefix(procedure.name())).into_bytes(),
        ])
        .await;
    }

    /// The same for the copies of these keys.
    pub(super) async fn purge_copies_of(
        &self,
        keys: impl IntoIterator<Item: Borrow<StoredKey>> + Send,
    ) {
        let keys: Vec<_> = keys.into_iter().collect();
        let keys = keys.iter().map(|key| key.borrow().as_bytes());
        self.publish(messages(keys)).await;
    }

    async fn publish(&self, messages: Vec<Vec<u8>>) {
        if messages.is_empty() {
            return;
        }
        let channel = channel(self.options.namespace.as_ref());
        let mut commands = redis::pipe();
        for message in messages {
            commands.add_command(Cmd::publish(&channel, message));
        }
        let told: Result<Vec<u64>, _> = self.ask_all(&commands).await;
        if let Err(error) = told
            && let Some(left_out) = self.untold_removals.happened()
        {
            warn!(
                left_out,
                "clients keep copies of what was removed for up to a minute: {error}"
            );
        }
    }

    /// Listens to what is removed, until the handle is dropped: `purge` is called with what it is, and
    /// with everything whenever something may have been missed. Must be called within a Tokio runtime.
    pub(crate) fn listen(
        &self,
        procedure: &ProcedureName,
        purge: impl Fn(Purge<'_>) + Send + Sync + 'static,
    ) -> AbortOnDropHandle<()> {
        let listener = Listener {
            url: self.options.url.clone(),
            limits: self.options.limits(),
            channel: channel(self.options.namespace.as_ref()),
            prefix: self.prefix(procedure),
            purge,
        };
        AbortOnDropHandle::new(tokio::spawn(listener.listen()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(message: &str) -> Purge<'_> {
        Purge::read(message.as_bytes(), "fib:")
    }

    #[test]
    fn keys_are_read_and_those_of_others_left_out() {
        assert_eq!(read("fib:30"), Purge::Keys(vec!["fib:30"]));
        let mixed = "fib:30\nfactors:360\nprod:fib:30\nfib:31\n";
        assert_eq!(read(mixed), Purge::Keys(vec!["fib:30", "fib:31"]));
        for nothing in ["", "\n\n", "factors:*", "fibs:*", "prod:fib:*", "\0", "fib"] {
            assert_eq!(read(nothing), Purge::Keys(vec![]), "{nothing:?}");
        }
    }

    #[test]
    fn what_may_mean_some_of_ours_and_what_is_not_understood_purge_everything() {
        for everything in ["fib:*", "*", "f*", "fib:1*", "fib:30\nfib:*", "fib:*x"] {
            assert_eq!(read(everything), Purge::Everything, "{everything:?}");
        }
        assert_eq!(Purge::read(b"fib:\xff", "fib:"), Purge::Everything);
        assert_eq!(read(&"x".repeat(LONGEST + 1)), Purge::Everything);
    }

    #[test]
    fn messages_are_bounded_and_hold_all_keys() {
        let keys: Vec<_> = (0..20_000).map(|n| format!("fib:{n}")).collect();
        let messages = messages(keys.iter().map(String::as_bytes));
        assert!(messages.len() > 1);
        let mut told = Vec::new();
        for message in &messages {
            match Purge::read(message, "fib:") {
                Purge::Keys(keys) => told.extend(keys.into_iter().map(str::to_owned)),
                Purge::Everything => panic!("{} bytes", message.len()),
            }
        }
        assert_eq!(told, keys);
    }

    #[test]
    fn what_no_call_looks_for_is_not_told() {
        let long = "x".repeat(LONGEST_KEY + 1);
        let none = [&b"fib:1\nfib:*"[..], b"fib:\xff", long.as_bytes()];
        assert!(messages(none.into_iter()).is_empty());
    }

    #[test]
    fn the_channel_is_the_namespace_s() {
        assert_eq!(channel(None), "rpcache:removed");
        let prod = "prod".parse().unwrap();
        assert_eq!(channel(Some(&prod)), "prod:rpcache:removed");
    }
}
