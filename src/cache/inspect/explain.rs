//! Explains one key: the stored answer and whether it verifies, the lease and its holder, the attempts.

use std::sync::Arc;
use std::time::Duration;

use super::{Cache, EntryFault, INSPECT_DEADLINE, StoredKey};
use crate::cache::Entry;
use crate::cache::claim::UNCACHED;
use crate::error::{Error, quote};
use crate::procedure::Procedure;

/// What the store has about one argument.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Explained {
    /// Where the answer stands, or would stand.
    pub key: StoredKey,
    /// `None`: nothing stands there.
    pub entry: Option<Entry>,
    /// Why calls refuse what stands there.
    pub fault: Option<EntryFault>,
    /// The lease, if a worker holds it.
    pub lease: Option<LeaseHeld>,
    /// Attempts at it after a redelivery, in the last hour; at 3 it is answered `poison`.
    pub attempts: u64,
}

/// A lease that is held.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct LeaseHeld {
    /// The holder of the lease.
    pub holder: LeaseHolder,
    /// Time until it expires unless it is renewed; `None`: it never expires, so that it is not a lease of rpcache.
    pub ttl: Option<Duration>,
}

/// The holder of a lease.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum LeaseHolder {
    /// The worker of this id, see [`crate::fleet::WorkerStatus`]: peer text, escaped and shortened.
    Worker(String),
    /// No worker: the answer was computed and could not be stored, so that workers do not wait for it.
    Uncached,
    /// Unknown, since the value is not a lease token: peer text, escaped and shortened.
    Unknown(String),
}

impl Cache {
    /// Reads everything that the store knows about this argument. Computes and changes nothing.
    pub async fn explain<P: Procedure>(
        &self,
        procedure: &Arc<P>,
        argument: &P::Argument,
    ) -> Result<Explained, Error> {
        let key = self.key_of(&**procedure, argument);
        let keys = [key.clone()];
        let entry = self.entries(&keys).await?.into_iter().next().flatten();
        let mut verified = self.verify(procedure, &keys, false).await?;
        let key_of_call = self.key(procedure.name(), argument);
        let facts = self.store.lease_facts(&key_of_call, INSPECT_DEADLINE);
        let facts = self.ask(facts).await?;
        Ok(Explained {
            key,
            entry,
            fault: verified.wrong.pop().map(|entry| entry.fault),
            lease: facts.lease.map(|(token, ttl)| LeaseHeld {
                holder: holder(&token),
                ttl,
            }),
            attempts: facts.attempts,
        })
    }
}

fn holder(token: &[u8]) -> LeaseHolder {
    if token == UNCACHED.as_bytes() {
        return LeaseHolder::Uncached;
    }
    let at = token.iter().position(|&byte| byte == b'@');
    match at.map(|at| &token[at + 1..]) {
        Some(worker) if !worker.is_empty() => LeaseHolder::Worker(quote(worker)),
        _ => LeaseHolder::Unknown(quote(token)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::Token;

    #[test]
    fn holder_is_read_from_the_token() {
        let token = Token::new(Some(b"id"), "0a1b2c3d").to_string();
        assert_eq!(
            holder(token.as_bytes()),
            LeaseHolder::Worker("0a1b2c3d".to_owned())
        );
        assert_eq!(holder(b"uncached"), LeaseHolder::Uncached);
        for none in [&b""[..], b"garbage", b"request@"] {
            assert!(matches!(holder(none), LeaseHolder::Unknown(_)));
        }
        assert_eq!(holder(b"r@\x1b"), LeaseHolder::Worker("\\u{1b}".to_owned()));
    }
}
