//! Entries from outside: how long they live, how large they are, and their removal. Many in one
//! round trip, none of them read.

use std::time::Duration;

use redis::{Cmd, RedisError};

use super::{Cache, MANAGEMENT_DEADLINE, StoredKey};
use crate::error::Error;

/// What a key has, without what it holds: see [`Cache::entries`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Entry {
    /// What is left of its life; `None`: it has no end.
    pub ttl: Option<Duration>,
    /// Bytes of the answer; `None`: it is no string, and no answer.
    pub size: Option<u64>,
}

impl Cache {
    /// What these keys have, in their order; `None` where there is no such key. One round trip.
    pub async fn entries(&self, keys: &[StoredKey]) -> Result<Vec<Option<Entry>>, Error> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let mut commands = redis::pipe();
        commands.ignore_errors();
        for StoredKey(key) in keys {
            commands.pttl(key).strlen(key);
        }
        let replies: Vec<Result<i64, RedisError>> = self.ask_all(&commands).await?;
        let pairs = replies.chunks_exact(2);
        pairs
            .map(|pair| match pair {
                [Ok(-2), _] => Ok(None),
                [Ok(ttl), size] => Ok(Some(Entry {
                    // -1: for ever.
                    ttl: u64::try_from(*ttl).ok().map(Duration::from_millis),
                    size: self.size(size)?,
                })),
                [Err(error), ..] => Err(self.refusal(error)),
                _ => Ok(None),
            })
            .collect()
    }

    /// Removes these keys, whatever they hold; how many of them there were. Clients that keep copies
    /// of their own are told to drop them; see [`purge_copies`](Self::purge_copies) for what happens
    /// where that fails. All keys go in one command, which holds up others: give it some thousand at a
    /// time. (To a Redis Cluster they go one by one, in one round trip.)
    ///
    /// Dropped between the two, copies live as long as they would have: remove the keys again.
    pub async fn remove_keys(&self, keys: &[StoredKey]) -> Result<u64, Error> {
        if keys.is_empty() {
            return Ok(0);
        }
        let names: Vec<_> = keys.iter().map(|StoredKey(key)| key.as_slice()).collect();
        let unlink = Cmd::unlink(names);
        self.connection.settled().await;
        let removed = self.connection.unlink_many(&unlink, MANAGEMENT_DEADLINE);
        let removed = removed.await.map_err(|unanswered| self.error(unanswered))?;
        // Also of what was not there any more: copies may outlive what Redis had.
        self.purge_copies_of(keys).await;
        Ok(removed)
    }

    /// What STRLEN said; `None`: it is no string.
    pub(super) fn size(&self, said: &Result<i64, RedisError>) -> Result<Option<u64>, Error> {
        match said {
            Ok(size) => Ok(u64::try_from(*size).ok()),
            Err(error) if error.code() == Some("WRONGTYPE") => Ok(None),
            Err(error) => Err(self.refusal(error)),
        }
    }
}
