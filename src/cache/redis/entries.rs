//! Keys and entries as a person sees them: SCAN, PTTL, STRLEN, GETRANGE, UNLINK.

use std::time::Duration;

use redis::{Cmd, RedisError};
use tokio::time::Instant;

use super::RedisStore;
use super::batcher::{is_cross_slot, one_by_one};
use super::errors::{CommandError, is_wrong_type, refused};
use crate::cache::Key;
use crate::cache::store::{Entry, GetResult, LeaseFacts, StoreError, Unchanged};

/// Of a lease or a counter, in bytes: none of ours is longer.
const MAX_TOKEN: isize = 256;

/// Removes what has not changed since: `KEYS[1]` is no string if `ARGV[1]` is empty, else a string of
/// `ARGV[1]` bytes that begins with `ARGV[2]`. What is gone already counts as removed.
const REMOVE: &str = "local kind = redis.call('TYPE', KEYS[1]).ok \
    if kind == 'none' then return 1 end \
    if (kind == 'string') == (ARGV[1] == '') then return 0 end \
    if kind == 'string' and (redis.call('STRLEN', KEYS[1]) ~= tonumber(ARGV[1]) \
    or redis.call('GETRANGE', KEYS[1], 0, #ARGV[2] - 1) ~= ARGV[2]) then return 0 end \
    return redis.call('UNLINK', KEYS[1])";

type Text = Result<Vec<u8>, RedisError>;

impl RedisStore {
    pub(in crate::cache) async fn scan(
        &self,
        cursor: u64,
        page: u64,
        glob: Option<&str>,
        limit: Duration,
    ) -> Result<(u64, Vec<Vec<u8>>), StoreError> {
        let mut scan = redis::cmd("SCAN");
        scan.arg(cursor).arg("COUNT").arg(page);
        if let Some(glob) = glob {
            scan.arg("MATCH").arg(glob);
        }
        Ok(self.connection.run(&scan, limit).await?)
    }

    pub(in crate::cache) async fn entries(
        &self,
        keys: &[&[u8]],
        limit: Duration,
    ) -> Result<Vec<Option<Entry>>, StoreError> {
        let mut commands = redis::pipe();
        commands.ignore_errors();
        for &key in keys {
            commands.pttl(key).strlen(key);
        }
        let replies: Vec<Result<i64, RedisError>> = self.connection.run(&commands, limit).await?;
        let mut replies = replies.into_iter();
        let mut entries = Vec::with_capacity(keys.len());
        while let (Some(ttl), Some(size)) = (replies.next(), replies.next()) {
            entries.push(match ttl.map_err(refused)? {
                -2 => None,
                ttl => Some(Entry {
                    ttl: time_left(ttl),
                    size: size_of(size)?,
                }),
            });
        }
        Ok(entries)
    }

    pub(in crate::cache) async fn sizes(
        &self,
        keys: &[&[u8]],
        limit: Duration,
    ) -> Result<Vec<Option<u64>>, StoreError> {
        let mut commands = redis::pipe();
        commands.ignore_errors();
        for &key in keys {
            commands.strlen(key);
        }
        let sizes: Vec<Result<i64, RedisError>> = self.connection.run(&commands, limit).await?;
        sizes.into_iter().map(size_of).collect()
    }

    pub(in crate::cache) async fn read_range(
        &self,
        key: &[u8],
        from: usize,
        to: usize,
        limit: Duration,
    ) -> GetResult {
        let mut range = redis::cmd("GETRANGE");
        range.arg(key).arg(from).arg(to);
        match self.connection.run::<Vec<u8>>(&range, limit).await {
            Ok(piece) => Ok(Some(piece).filter(|piece| !piece.is_empty())),
            Err(CommandError::Refused(error)) if is_wrong_type(&error) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    pub(in crate::cache) async fn remove(
        &self,
        keys: &[&[u8]],
        limit: Duration,
    ) -> Result<u64, StoreError> {
        let started = Instant::now();
        let unlink = Cmd::unlink(keys);
        if !self.connection.goes_one_by_one() {
            match self.connection.run(&unlink, limit).await {
                Err(CommandError::Refused(error)) if is_cross_slot(&error) => {
                    self.connection.go_one_by_one();
                }
                removed => return Ok(removed?),
            }
        }
        let left = limit.saturating_sub(started.elapsed());
        let commands = one_by_one("UNLINK", &unlink);
        let removed: Vec<u64> = self.connection.run(&commands, left).await?;
        Ok(removed.into_iter().sum())
    }

    pub(in crate::cache) async fn remove_unchanged(
        &self,
        entries: &[Unchanged<'_>],
        limit: Duration,
    ) -> Result<Vec<bool>, StoreError> {
        let mut commands = redis::pipe();
        for entry in entries {
            let (key, size, start) = match *entry {
                Unchanged::Anything { key } => {
                    commands.unlink(key);
                    continue;
                }
                Unchanged::NoString { key } => (key, String::new(), &[][..]),
                Unchanged::Text { key, size, start } => (key, size.to_string(), start),
            };
            commands.cmd("EVAL").arg(REMOVE).arg(1).arg(key);
            commands.arg(size).arg(start);
        }
        let removed: Vec<u64> = self.connection.run(&commands, limit).await?;
        let is_gone = |(removed, entry): (u64, &Unchanged<'_>)| {
            removed == 1 || matches!(entry, Unchanged::Anything { .. })
        };
        Ok(removed.into_iter().zip(entries).map(is_gone).collect())
    }

    pub(in crate::cache) async fn lease_facts(
        &self,
        key: &Key,
        limit: Duration,
    ) -> Result<LeaseFacts, StoreError> {
        let (lease, counter) = (key.lease(), key.attempts());
        let mut commands = redis::pipe();
        commands.ignore_errors();
        commands.getrange(&lease, 0, MAX_TOKEN - 1);
        commands.pttl(&lease);
        commands.getrange(&counter, 0, MAX_TOKEN - 1);
        let (token, ttl, attempts): (Text, Result<i64, RedisError>, Text) =
            self.connection.run(&commands, limit).await?;
        let ttl = ttl.map_err(refused)?;
        let attempts = text(attempts)?;
        let attempts = std::str::from_utf8(&attempts).ok();
        let attempts = attempts.and_then(|text| text.parse().ok());
        let token = text(token)?;
        Ok(LeaseFacts {
            lease: (ttl != -2).then(|| (token, time_left(ttl))),
            attempts: attempts.unwrap_or(0),
        })
    }
}

/// What PTTL said of a key that there is: -1 means for ever.
fn time_left(ttl: i64) -> Option<Duration> {
    u64::try_from(ttl).ok().map(Duration::from_millis)
}

/// What STRLEN said; `None`: it is no string.
fn size_of(said: Result<i64, RedisError>) -> Result<Option<u64>, StoreError> {
    match said {
        Ok(size) => Ok(u64::try_from(size).ok()),
        Err(error) if is_wrong_type(&error) => Ok(None),
        Err(error) => Err(refused(error)),
    }
}

/// Reads a token or a counter. A value that is not a string counts as empty.
fn text(said: Text) -> Result<Vec<u8>, StoreError> {
    match said {
        Err(error) if is_wrong_type(&error) => Ok(Vec::new()),
        said => said.map_err(refused),
    }
}
