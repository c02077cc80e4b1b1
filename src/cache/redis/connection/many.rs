//! Commands with several keys. A Redis Cluster refuses them if their keys are in several slots, even where one
//! node holds all of those: there the keys go one by one, in one round trip.

use std::sync::atomic::Ordering;
use std::time::Duration;

use redis::{Arg, Cmd, ErrorKind, Pipeline, RedisError, ServerErrorKind};
use tokio::time::Instant;

use super::Connection;
use crate::cache::redis::errors::{CommandError, refused};
use crate::cache::store::GetResult;

impl Connection {
    /// Gets what stands under the keys of an MGET, in their order. A value that is no string is an error where
    /// the keys go one by one; MGET calls it nothing.
    ///
    /// Cancel safe.
    pub(in crate::cache::redis) async fn get_many(
        &self,
        mget: &Cmd,
        limit: Duration,
    ) -> Result<Vec<GetResult>, CommandError> {
        let started = Instant::now();
        if !self.goes_one_by_one() {
            match self.run_twice::<Vec<Option<Vec<u8>>>>(mget, limit).await {
                Err(CommandError::Refused(error)) if is_cross_slot(&error) => self.go_one_by_one(),
                found => return found.map(|found| found.into_iter().map(Ok).collect()),
            }
        }
        let mut gets = one_by_one("GET", mget);
        gets.ignore_errors();
        let left = limit.saturating_sub(started.elapsed());
        let found: Vec<Result<_, RedisError>> = self.run_all_twice(&gets, left).await?;
        let found = found.into_iter().map(|found| found.map_err(refused));
        Ok(found.collect())
    }

    /// Removes the keys of an UNLINK: how many there were.
    pub(in crate::cache::redis) async fn unlink_many(
        &self,
        unlink: &Cmd,
        limit: Duration,
    ) -> Result<u64, CommandError> {
        let started = Instant::now();
        if !self.goes_one_by_one() {
            match self.run(unlink, limit).await {
                Err(CommandError::Refused(error)) if is_cross_slot(&error) => self.go_one_by_one(),
                removed => return removed,
            }
        }
        let left = limit.saturating_sub(started.elapsed());
        let removed: Vec<u64> = self.run_all(&one_by_one("UNLINK", unlink), left).await?;
        Ok(removed.into_iter().sum())
    }

    fn goes_one_by_one(&self) -> bool {
        let link = self.slot.link();
        link.is_some_and(|link| link.one_by_one.load(Ordering::Relaxed))
    }

    /// Remembers for this connection that keys go one by one.
    fn go_one_by_one(&self) {
        if let Some(link) = self.slot.link() {
            link.one_by_one.store(true, Ordering::Relaxed);
        }
    }
}

fn is_cross_slot(error: &RedisError) -> bool {
    error.kind() == ErrorKind::Server(ServerErrorKind::CrossSlot)
}

/// One command for each key of `many`, whose arguments are all keys.
fn one_by_one(name: &str, many: &Cmd) -> Pipeline {
    let mut commands = redis::pipe();
    for arg in many.args_iter().skip(1) {
        if let Arg::Simple(key) = arg {
            commands.cmd(name).arg(key);
        }
    }
    commands
}
