//! Keys and entries as a person sees them: SCAN, PTTL, STRLEN, GETRANGE, UNLINK.

use std::time::Duration;

use redis::{Cmd, Pipeline, RedisError};
use tokio::time::Instant;

use super::RedisStore;
use super::batcher::{is_cross_slot, one_by_one};
use super::connection::{Connection, readable};
use super::errors::{CommandError, is_wrong_type, refused};
use super::nodes::Nodes;
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
        let page = |cursor| {
            let mut scan = redis::cmd("SCAN");
            scan.arg(cursor).arg("COUNT").arg(page);
            if let Some(glob) = glob {
                scan.arg("MATCH").arg(glob);
            }
            scan
        };
        let nodes = self.nodes.all();
        let (at, within) = match &nodes[..] {
            [_] => (0, cursor),
            nodes => place(cursor, nodes.len()),
        };
        let node = nodes.get(at).ok_or(StoreError::Unavailable)?;
        let (next, keys): (u64, _) = node.connection.run(&page(within), limit).await?;
        let next = match &nodes[..] {
            [_] => next,
            nodes => cursor_of(at, next, nodes.len())?,
        };
        Ok((next, keys))
    }

    pub(in crate::cache) async fn entries(
        &self,
        keys: &[&[u8]],
        limit: Duration,
    ) -> Result<Vec<Option<Entry>>, StoreError> {
        let ask = |commands: &mut Pipeline, at: usize| {
            commands.pttl(keys[at]).strlen(keys[at]);
        };
        let replies = self.numbers(keys, ask, limit).await?;
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
        let ask = |commands: &mut Pipeline, at: usize| {
            commands.strlen(keys[at]);
        };
        let sizes = self.numbers(keys, ask, limit).await?;
        sizes.into_iter().map(size_of).collect()
    }

    /// Replies that are numbers: of all keys, or the error that no key's own is.
    async fn numbers(
        &self,
        keys: &[&[u8]],
        add: impl Fn(&mut Pipeline, usize),
        limit: Duration,
    ) -> Result<Vec<Result<i64, RedisError>>, StoreError> {
        let replies = self.nodes.run_each(keys, add, limit).await;
        let number = |reply| match readable::<i64>(reply) {
            Ok(number) => Ok(Ok(number)),
            Err(CommandError::Refused(error)) => Ok(Err(error)),
            Err(error) => Err(StoreError::from(error)),
        };
        replies.into_iter().map(number).collect()
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
        match self.nodes.run::<Vec<u8>>(key, &range, limit).await {
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
        if let Nodes::One(node) = &self.nodes {
            return Ok(unlink(&node.connection, &Cmd::unlink(keys), limit).await?);
        }
        let remove = |commands: &mut Pipeline, at: usize| {
            commands.unlink(keys[at]);
        };
        let removed = self.nodes.run_each(keys, remove, limit).await;
        let removed = removed.into_iter().map(readable::<u64>);
        removed.map(|count| count.map_err(StoreError::from)).sum()
    }

    pub(in crate::cache) async fn remove_unchanged<'a>(
        &self,
        entries: &[Unchanged<'a>],
        limit: Duration,
    ) -> Result<Vec<bool>, StoreError> {
        let key_of = |entry: &Unchanged<'a>| match *entry {
            Unchanged::Anything { key }
            | Unchanged::NoString { key }
            | Unchanged::Text { key, .. } => key,
        };
        let keys: Vec<_> = entries.iter().map(key_of).collect();
        let remove = |commands: &mut Pipeline, at: usize| {
            let (size, start) = match entries[at] {
                Unchanged::Anything { key } => {
                    commands.unlink(key);
                    return;
                }
                Unchanged::NoString { .. } => (String::new(), &[][..]),
                Unchanged::Text { size, start, .. } => (size.to_string(), start),
            };
            commands.cmd("EVAL").arg(REMOVE).arg(1).arg(keys[at]);
            commands.arg(size).arg(start);
        };
        let removed = self.nodes.run_each(&keys, remove, limit).await;
        let removed: Vec<u64> = removed
            .into_iter()
            .map(readable)
            .collect::<Result<_, _>>()?;
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
            self.nodes.run(&lease, &commands, limit).await?;
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

/// Removes the keys of an UNLINK.
async fn unlink(
    connection: &Connection,
    unlink: &Cmd,
    limit: Duration,
) -> Result<u64, CommandError> {
    let started = Instant::now();
    if !connection.goes_one_by_one() {
        match connection.run(unlink, limit).await {
            Err(CommandError::Refused(error)) if is_cross_slot(&error) => {
                connection.go_one_by_one();
            }
            removed => return removed,
        }
    }
    let left = limit.saturating_sub(started.elapsed());
    let removed: Vec<u64> = connection.run(&one_by_one("UNLINK", unlink), left).await?;
    Ok(removed.into_iter().sum())
}

/// Bits of a cursor that are the server's own; those above say which of several servers is scanned. Redis'
/// cursors are no longer than its table has bits, and a slot's number.
const CURSOR_BITS: u32 = 48;

/// The server that a cursor stands for, and its own cursor. Any number is a place to begin at.
fn place(cursor: u64, servers: usize) -> (usize, u64) {
    let server = usize::try_from(cursor >> CURSOR_BITS).unwrap_or(0) % servers.max(1);
    (server, cursor & ((1 << CURSOR_BITS) - 1))
}

/// The cursor for the next step: on the same server, or at the beginning of the next one; 0 after the last.
fn cursor_of(server: usize, next: u64, servers: usize) -> Result<u64, StoreError> {
    if next >> CURSOR_BITS != 0 {
        return Err(StoreError::Unavailable);
    }
    let server = if next == 0 { server + 1 } else { server };
    Ok(if server < servers {
        (server as u64) << CURSOR_BITS | next
    } else {
        0
    })
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Scans so many servers of so many pages each, from a cursor on: the pages in their order.
    fn scan(mut cursor: u64, pages: &[u64]) -> Vec<(usize, u64)> {
        let mut visited = Vec::new();
        loop {
            let (server, within) = place(cursor, pages.len());
            visited.push((server, within));
            let next = if within + 1 < pages[server] {
                within + 1
            } else {
                0
            };
            cursor = cursor_of(server, next, pages.len()).unwrap();
            if cursor == 0 {
                return visited;
            }
        }
    }

    #[test]
    fn the_scan_of_several_servers_visits_every_page_once_and_ends() {
        let expected = [(0, 0), (0, 1), (1, 0), (2, 0), (2, 1), (2, 2)];
        assert_eq!(scan(0, &[2, 1, 3]), expected);
        // From the middle on, it ends at the last page.
        assert_eq!(scan(1 << CURSOR_BITS, &[2, 1, 3]), expected[2..]);
    }

    #[test]
    fn any_cursor_is_a_place_and_a_server_s_own_stays_within_its_bits() {
        for seed in 0..10_000 {
            let mut rng = fastrand::Rng::with_seed(seed);
            let (cursor, servers) = (rng.u64(..), rng.usize(1..100));
            let (server, within) = place(cursor, servers);
            assert!(server < servers && within >> CURSOR_BITS == 0);
            let next = rng.u64(1..1 << CURSOR_BITS);
            let cursor = cursor_of(server, next, servers).unwrap();
            assert_eq!(place(cursor, servers), (server, next));
        }
        assert!(cursor_of(0, 1 << CURSOR_BITS, 3).is_err());
    }
}
