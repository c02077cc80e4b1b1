//! The store in Redis: one server, plain strings, commands multiplexed over one connection.
//!
//! Nothing outside of this folder knows redis-rs or bb8. What comes out of it is described in the words of
//! [`super::store`].

mod announcements;
mod answers;
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

pub use self::rights::MissingRights;
pub(crate) use self::topology::ServerFault;

use self::batcher::Batcher;
use self::connection::Connection;
use self::resp::Limits;
use super::CacheOptions;
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

/// What is read of one value, and of one reply with several.
fn limits(options: &CacheOptions) -> Limits {
    let size = options.max_answer_size.map_or(0, |size| size as u64);
    let string = size.max(MAX_READ);
    Limits {
        string,
        reply: string.saturating_mul(4),
    }
}
