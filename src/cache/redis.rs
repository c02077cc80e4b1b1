//! The store in Redis: one server, plain strings, commands multiplexed over one connection.
//!
//! Here are the commands of a call: looking up an answer, claiming, filling. [`batcher`] combines lookups,
//! [`connection`] sends. The rest is what no hit passes.
//!
//! Nothing outside of this folder knows redis-rs or bb8. What comes out of it is described in the words of
//! [`super::store`].

mod announcements;
mod attempts;
mod batcher;
mod breaker;
mod connection;
mod dial;
mod entries;
mod errors;
mod guard;
mod info;
mod lease;
mod listener;
mod resp;
mod rights;
mod topology;

#[cfg(test)]
pub(crate) mod fake;

use std::sync::Arc;
use std::time::Duration;

use redis::{Cmd, RedisError, Value};

pub use self::rights::MissingRights;
pub(crate) use self::topology::ServerFault;

use self::batcher::{Batcher, get_many};
use self::connection::Connection;
use self::errors::refused;
use self::lease::{bound, release, take};
use self::resp::Limits;
use super::store::{Claimed, Filled, GetResult, StoreError};
use super::{CacheOptions, Key, Token};
use crate::counts::CacheCounts;
use crate::server_url::RedisUrl;

/// Largest value that is read, in bytes, unless larger answers may be stored.
const MAX_READ: u64 = 64 << 20;

/// One Redis server as a store. Dropping it closes the connection.
#[derive(Debug)]
pub(crate) struct RedisStore {
    url: RedisUrl,
    limits: Limits,
    connection: Arc<Connection>,
    batcher: Batcher,
}

impl RedisStore {
    pub(super) fn open(options: &CacheOptions, counts: Arc<CacheCounts>) -> Self {
        let connection = Connection::open(
            options.url.clone(),
            options.budget,
            limits(options),
            options.wait_for_connection,
            counts,
        );
        Self::over(options, connection)
    }

    fn over(options: &CacheOptions, connection: Connection) -> Self {
        let connection = Arc::new(connection);
        Self {
            url: options.url.clone(),
            limits: limits(options),
            batcher: Batcher::new(Arc::clone(&connection), options.budget),
            connection,
        }
    }

    pub(super) fn is_up(&self) -> bool {
        self.connection.is_up()
    }

    pub(super) async fn ready(&self) {
        self.connection.ready().await;
    }

    pub(super) async fn settled(&self) {
        self.connection.settled().await;
    }

    pub(super) async fn up(&self) {
        self.connection.up().await;
    }
}

impl RedisStore {
    pub(in crate::cache) fn get(
        &self,
        key: &str,
        limit: Duration,
    ) -> impl Future<Output = GetResult> + Send {
        self.batcher.get(key, limit)
    }

    pub(in crate::cache) async fn get_many(
        &self,
        keys: &[&[u8]],
        limit: Duration,
    ) -> Result<Vec<GetResult>, StoreError> {
        Ok(get_many(&self.connection, &Cmd::mget(keys), limit).await?)
    }

    pub(in crate::cache) async fn read(&self, key: &Key, limit: Duration) -> GetResult {
        Ok(self.connection.run(&Cmd::get(key.as_str()), limit).await?)
    }

    pub(in crate::cache) async fn claim(
        &self,
        lease: &str,
        token: &Token,
        ttl: Duration,
        key: Option<&Key>,
        limit: Duration,
    ) -> Result<Claimed, StoreError> {
        let mut commands = redis::pipe();
        commands
            .ignore_errors()
            .add_command(take(lease, token, ttl));
        if let Some(key) = key {
            commands.get(key.as_str());
        }
        commands.add_command(bound(lease, ttl)).ignore();
        let replies: Vec<Result<Option<Vec<u8>>, RedisError>> =
            self.connection.run_twice(&commands, limit).await?;
        let mut replies = replies.into_iter();
        let held = replies.next().ok_or(StoreError::Unavailable)?;
        Ok(Claimed {
            held: held.map_err(Into::into),
            found: replies.next().map(|found| found.map_err(refused)),
        })
    }

    pub(in crate::cache) async fn fill(
        &self,
        key: &Key,
        answer: &[u8],
        ttl: Option<Duration>,
        lease: Option<(&str, &Token)>,
        limit: Duration,
    ) -> Result<Filled, StoreError> {
        let mut commands = redis::pipe();
        commands
            .ignore_errors()
            .add_command(set(key.as_str(), answer, ttl));
        if let Some((lease, token)) = lease {
            commands.add_command(release(lease, token));
        }
        let replies: Vec<Result<Value, RedisError>> =
            self.connection.run_twice(&commands, limit).await?;
        match replies.into_iter().next() {
            Some(Ok(_)) => Ok(Filled::Stored),
            Some(Err(error)) => Ok(Filled::Refused(error.into())),
            None => Err(StoreError::Unavailable),
        }
    }
}

/// SET, for ever without a TTL.
fn set(key: &str, value: &[u8], ttl: Option<Duration>) -> Cmd {
    let mut command = redis::cmd("SET");
    command.arg(key).arg(value);
    if let Some(ttl) = ttl {
        // Redis refuses 0.
        let millis = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
        command.arg("PX").arg(millis.max(1));
    }
    command
}

/// What is read of one value, and of one reply with several.
fn limits(options: &CacheOptions) -> Limits {
    let size = options.max_answer_size.map_or(0, |size| size as u64);
    let string = size.max(MAX_READ);
    Limits {
        string,
        reply: string.saturating_mul(4),
    }
}
