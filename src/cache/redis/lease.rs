//! The lease's commands: `{fib:30}:lease` holds the token of the request whose worker computes.
//!
//! Each script compares before it changes, so that only the holder's own lease is touched. See Redis' page
//! on [SET](https://redis.io/docs/latest/commands/set/) for the pattern; since nothing but effort depends
//! on it, the objections to locks of one Redis do not apply.

use std::time::Duration;

use redis::Cmd;

use super::RedisStore;
use crate::cache::Token;
use crate::cache::store::{LeaseChange, StoreError};

/// Compare and extend.
const RENEW: &str = "if redis.call('GET', KEYS[1]) == ARGV[1] then \
    return redis.call('PEXPIRE', KEYS[1], ARGV[2]) end return 0";

/// Compare and remove.
const RELEASE: &str = "if redis.call('GET', KEYS[1]) == ARGV[1] then \
    return redis.call('UNLINK', KEYS[1]) end return 0";

/// Compare and replace by a mark that expires.
const LEAVE: &str = "if redis.call('GET', KEYS[1]) == ARGV[1] then \
    redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3]) return 1 end return 0";

/// Remove what another worker holds for the same request: that worker has lost the request.
const TAKE_OVER: &str = "local held = redis.call('GET', KEYS[1]) \
    if held and held ~= ARGV[1] and string.sub(held, 1, #ARGV[2]) == ARGV[2] then \
    return redis.call('UNLINK', KEYS[1]) end return 0";

/// Takes a lease that is free; the reply is what it held before.
pub(super) fn take(lease: &str, token: &Token, ttl: Duration) -> Cmd {
    let mut command = redis::cmd("SET");
    command
        .arg(lease)
        .arg(token.as_str())
        .arg("NX")
        .arg("GET")
        .arg("PX")
        .arg(millis(ttl));
    command
}

/// Bounds what is no lease of ours: any key in its place expires within `ttl`, as a lease that no worker
/// renews does. Ours never lasts longer, and is left as it is.
pub(super) fn bound(lease: &str, ttl: Duration) -> Cmd {
    let mut command = redis::cmd("PEXPIRE");
    command.arg(lease).arg(millis(ttl)).arg("LT");
    command
}

pub(super) fn release(lease: &str, token: &Token) -> Cmd {
    script(RELEASE, lease, token, &[])
}

impl RedisStore {
    pub(in crate::cache) async fn change_lease(
        &self,
        lease: &str,
        token: &Token,
        change: LeaseChange<'_>,
        limit: Duration,
    ) -> Result<(), StoreError> {
        let command = match change {
            LeaseChange::Renew(ttl) => script(RENEW, lease, token, &[&millis(ttl)]),
            LeaseChange::Release => release(lease, token),
            LeaseChange::Leave { mark, ttl } => script(LEAVE, lease, token, &[mark, &millis(ttl)]),
            LeaseChange::TakeOver => script(TAKE_OVER, lease, token, &[token.request()]),
        };
        Ok(self.nodes.run(lease, &command, limit).await?)
    }
}

/// A script on one lease; its first argument is the token.
fn script(script: &str, lease: &str, token: &Token, arguments: &[&str]) -> Cmd {
    let mut command = redis::cmd("EVAL");
    command.arg(script).arg(1).arg(lease);
    command.arg(token.as_str()).arg(arguments);
    command
}

pub(super) fn millis(duration: Duration) -> String {
    duration.as_millis().to_string()
}
