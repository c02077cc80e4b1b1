//! Invalidation: keys that were removed from the store are published to clients that keep copies of their
//! own, on the channel `rpcache:removed`, in a namespace `prod:rpcache:removed`.
//!
//! A message is keys, one a line, or `fib:*` for all of a procedure's; a person can publish it with
//! redis-cli, too. Messages can be lost, so copies also expire soon by themselves. Anybody with the right to
//! publish can make clients drop copies, which costs them lookups, and nothing else.

use std::borrow::Borrow;

use tokio_util::task::AbortOnDropHandle;
use tracing::warn;

use super::inspect::{INSPECT_DEADLINE, StoredKey};
use super::store::Event;
use super::{Cache, Namespace};
use crate::procedure::Procedure;
use crate::procedure_name::ProcedureName;

/// Longest message, in bytes.
const MAX_MESSAGE: usize = 32 * 1024;

/// No key of ours is longer.
const MAX_KEY: usize = 1024;

/// Copies that are to be dropped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Purge<'a> {
    /// Those of these keys.
    Keys(Vec<&'a str>),
    /// All.
    Everything,
}

impl<'a> Purge<'a> {
    /// Reads a message for a client that keeps copies of keys with this prefix, and skips other keys. A
    /// message that cannot be understood purges everything: a later version may have meant something by it,
    /// and a copy too few is only slower.
    fn read(message: &'a [u8], prefix: &str) -> Self {
        if message.len() > MAX_MESSAGE {
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

/// Packs keys into as few messages as they fit into.
fn messages<'a>(keys: impl Iterator<Item = &'a [u8]>) -> Vec<Vec<u8>> {
    let mut messages: Vec<Vec<u8>> = Vec::new();
    for key in keys {
        // No call looks for such a key, so no client has a copy of it.
        if key.len() > MAX_KEY || key.contains(&b'\n') || std::str::from_utf8(key).is_err() {
            continue;
        }
        match messages.last_mut() {
            Some(message) if message.len() + 1 + key.len() <= MAX_MESSAGE => {
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
    /// Makes clients that keep copies of their own (see
    /// [`ClientOptions::local`](crate::ClientOptions::local)) drop those of all of the procedure's answers
    /// in this namespace.
    ///
    /// Connected clients drop them within a moment. Where Redis is away, or refuses (it takes the rights
    /// `+publish` and `&rpcache:*`), that is logged, and copies last as long as they would have. Cancel
    /// safe.
    pub async fn purge_copies<P: Procedure>(&self, procedure: &P) {
        self.publish(vec![
            format!("{}*", self.prefix(procedure.name())).into_bytes(),
        ])
        .await;
    }

    /// Makes clients drop their copies of these keys.
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
        self.store.settled().await;
        let published = self.store.publish(&channel, &messages, INSPECT_DEADLINE);
        if let Err(error) = published.await
            && let Some(left_out) = self.logs.failed_invalidations.happened()
        {
            let error = self.error(error);
            warn!(
                left_out,
                "clients keep copies of what was removed for up to a minute: {error}"
            );
        }
    }

    /// Listens for invalidated keys until the handle is dropped: calls `purge` with them, and with
    /// everything whenever a message may have been missed. Must be called within a Tokio runtime.
    pub(crate) fn listen(
        &self,
        procedure: &ProcedureName,
        purge: impl Fn(Purge<'_>) + Send + Sync + 'static,
    ) -> AbortOnDropHandle<()> {
        let prefix = self.prefix(procedure);
        let on_event = move |event: Event<'_>| {
            purge(match event {
                // Earlier messages may have been missed.
                Event::Subscribed => Purge::Everything,
                Event::Message(message) => Purge::read(message, &prefix),
            });
        };
        let channel = channel(self.options.namespace.as_ref());
        AbortOnDropHandle::new(tokio::spawn(self.store.listen(channel, on_event)))
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
        assert_eq!(read(&"x".repeat(MAX_MESSAGE + 1)), Purge::Everything);
    }

    #[test]
    fn messages_are_bounded_and_hold_all_keys() {
        let keys: Vec<_> = (0..20_000).map(|n| format!("fib:{n}")).collect();
        let messages = messages(keys.iter().map(String::as_bytes));
        assert!(messages.len() > 1);
        let mut published = Vec::new();
        for message in &messages {
            match Purge::read(message, "fib:") {
                Purge::Keys(keys) => published.extend(keys.into_iter().map(str::to_owned)),
                Purge::Everything => panic!("{} bytes", message.len()),
            }
        }
        assert_eq!(published, keys);
    }

    #[test]
    fn keys_that_no_call_looks_for_are_not_published() {
        let long = "x".repeat(MAX_KEY + 1);
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
