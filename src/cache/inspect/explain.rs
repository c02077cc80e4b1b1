//! All that the store knows about one argument: the answer, who computes it, what is wrong with it.

use std::sync::Arc;
use std::time::Duration;

use super::{Cache, INSPECT_DEADLINE, StoredKey, Wrong};
use crate::cache::Entry;
use crate::cache::lease::UNCACHED;
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
    /// Why calls do not believe what stands there.
    pub wrong: Option<Wrong>,
    /// Whether somebody computes it.
    pub lease: Option<LeaseHeld>,
    /// How often it was begun, of late, by workers that may have ended over it.
    pub begun: u64,
}

/// A lease that is held.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct LeaseHeld {
    /// By whom.
    pub holder: Holder,
    /// When it runs out if it is not renewed; `None`: never, so it is none of ours.
    pub ttl: Option<Duration>,
}

/// Who holds a lease.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Holder {
    /// The worker of this id, see [`crate::WorkerStatus`]: peer text, escaped and shortened.
    Worker(String),
    /// Nobody: the answer was computed and could not be stored, so that others need not wait.
    Uncached,
    /// It is no token: peer text, escaped and shortened.
    Unknown(String),
}

impl Cache {
    /// Looks at everything that Redis knows about this argument. Computes and changes nothing.
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
            wrong: verified.wrong.pop().map(|entry| entry.wrong),
            lease: facts.lease.map(|(token, ttl)| LeaseHeld {
                holder: holder(&token),
                ttl,
            }),
            begun: facts.attempts,
        })
    }
}

fn holder(token: &[u8]) -> Holder {
    if token == UNCACHED.as_bytes() {
        return Holder::Uncached;
    }
    let at = token.iter().position(|&byte| byte == b'@');
    match at.map(|at| &token[at + 1..]) {
        Some(worker) if !worker.is_empty() => Holder::Worker(quote(worker)),
        _ => Holder::Unknown(quote(token)),
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
            Holder::Worker("0a1b2c3d".to_owned())
        );
        assert_eq!(holder(b"uncached"), Holder::Uncached);
        for none in [&b""[..], b"garbage", b"request@"] {
            assert!(matches!(holder(none), Holder::Unknown(_)));
        }
        assert_eq!(holder(b"r@\x1b"), Holder::Worker("\\u{1b}".to_owned()));
    }
}
