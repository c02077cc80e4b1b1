//! The lease: the right to compute a missing answer, so that a key is computed once at a time.
//!
//! `{KEY}:lease` holds the token of the request whose worker computes. It is taken with
//! `SET NX PX`, renewed while computing, and released by its holder alone; a holder that dies stops
//! renewing, and the lease runs out. A lease only saves work: whoever cannot have one because Redis
//! does not answer, or refuses, computes without. See Redis' own pages on
//! [SET](https://redis.io/docs/latest/commands/set/) for the pattern; since nothing but effort
//! depends on it, the objections to locks of one Redis do not apply.

use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use redis::{Cmd, Pipeline};
use sha2::{Digest, Sha256};
use tokio::time::{sleep, timeout};

use super::connection::{Connection, Unanswered};
use super::key::Key;

/// A holder that is frozen for longer is overtaken.
const LEASE: Duration = Duration::from_secs(3);

/// How often it is renewed while computing.
const RENEW: Duration = Duration::from_secs(1);

/// Between two attempts to release one while Redis is away.
const RELEASE_PAUSE: Duration = Duration::from_millis(50);

/// What a lease is left as when there is nothing to wait for: the answer cannot be stored.
pub(super) const UNCACHED: &str = "uncached";

/// How long that is remembered.
const UNCACHED_FOR: Duration = Duration::from_secs(1);

/// Compare and extend.
const RENEWAL: &str = "if redis.call('GET', KEYS[1]) == ARGV[1] then \
    return redis.call('PEXPIRE', KEYS[1], ARGV[2]) end return 0";

/// Compare and remove.
const RELEASE: &str = "if redis.call('GET', KEYS[1]) == ARGV[1] then \
    return redis.call('UNLINK', KEYS[1]) end return 0";

/// Compare and leave as [`UNCACHED`].
const LEAVE: &str = "if redis.call('GET', KEYS[1]) == ARGV[1] then \
    redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3]) return 1 end return 0";

/// Remove what another worker holds for the same request: it has lost that request.
const TAKE_OVER: &str = "local held = redis.call('GET', KEYS[1]) \
    if held and held ~= ARGV[1] and string.sub(held, 1, #ARGV[2]) == ARGV[2] then \
    return redis.call('UNLINK', KEYS[1]) end return 0";

/// Who holds a lease: a request in the hands of a worker, `REQUEST@WORKER`.
///
/// REQUEST is a hash of the correlation id: it tells a redelivery of the request, and says nothing
/// to who might want to forge a reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Token {
    text: Arc<str>,
    /// Up to and with the `@`.
    request: usize,
}

impl Token {
    pub(crate) fn new(correlation_id: Option<&[u8]>, worker: &str) -> Self {
        let mut text = String::with_capacity(17 + worker.len());
        match correlation_id {
            Some(id) => {
                for byte in &Sha256::digest(id)[..8] {
                    push_hex(&mut text, *byte);
                }
            }
            None => {
                for byte in fastrand::u64(..).to_be_bytes() {
                    push_hex(&mut text, byte);
                }
            }
        }
        text.push('@');
        let request = text.len();
        text.push_str(worker);
        Self {
            text: text.into(),
            request,
        }
    }

    fn as_str(&self) -> &str {
        &self.text
    }
}

fn push_hex(text: &mut String, byte: u8) {
    for digit in [byte >> 4, byte & 15] {
        text.push(char::from_digit(digit.into(), 16).unwrap_or('0'));
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A lease that is held, or may be: it is released when dropped, unless it was ended before.
#[must_use]
#[derive(Debug)]
pub(crate) struct Lease {
    name: String,
    token: Token,
    connection: Arc<Connection>,
    /// For its release when it is dropped.
    budget: Duration,
    ended: bool,
}

/// What became of the attempt to take a lease.
pub(super) enum Claimed {
    Ours(Lease),
    /// Another request's, or the same one's in another worker's hands.
    Held,
    /// Nobody's, and not to be had: compute without.
    Free,
}

impl Lease {
    /// Made before it is asked for, so that an attempt that is dropped leaves nothing behind.
    pub(super) fn new(
        key: &Key,
        token: Token,
        connection: &Arc<Connection>,
        budget: Duration,
    ) -> Self {
        Self {
            name: key.lease(),
            token,
            connection: Arc::clone(connection),
            budget,
            ended: false,
        }
    }

    /// Tries to take it: what it held before, if anything.
    pub(super) fn take(&self) -> Cmd {
        let mut command = redis::cmd("SET");
        command
            .arg(&self.name)
            .arg(self.token.as_str())
            .arg("NX")
            .arg("GET")
            .arg("PX")
            .arg(millis(LEASE));
        command
    }

    /// Bounds a lease that is none of ours: any key in its place expires within the time of a lease, as one
    /// that no worker renews does. Ours never lasts longer, and is left as it is.
    pub(super) fn bound(&self) -> Cmd {
        let mut command = redis::cmd("PEXPIRE");
        command.arg(&self.name).arg(millis(LEASE)).arg("LT");
        command
    }

    /// Reads what [`take`](Self::take) found.
    pub(super) fn claimed(self, held: Option<&[u8]>) -> Claimed {
        match held {
            None => Claimed::Ours(self),
            Some(token) if token == self.token.as_str().as_bytes() => Claimed::Ours(self),
            Some(token) => {
                self.forget();
                if token == UNCACHED.as_bytes() {
                    Claimed::Free
                } else {
                    Claimed::Held
                }
            }
        }
    }

    /// It is another's, or nobody's: there is nothing to release.
    pub(super) fn forget(mut self) {
        self.ended = true;
    }

    /// Runs `work` to its end, renewing the lease all the while where there is one. A lease that is
    /// lost in spite of it costs another computation, no more.
    pub(crate) async fn kept_during<T>(lease: Option<&Self>, work: impl Future<Output = T>) -> T {
        let Some(lease) = lease else {
            return work.await;
        };
        tokio::select! {
            done = work => done,
            never = lease.renew_for_ever() => match never {},
        }
    }

    async fn renew_for_ever(&self) -> Infallible {
        loop {
            sleep(RENEW).await;
            let renewal = self.script(RENEWAL, &[&millis(LEASE)]);
            // Late or refused: tried again in a second.
            let _ = self.connection.run::<()>(&renewal, self.budget).await;
        }
    }

    /// Releases it in the same round trip as what `commands` does.
    pub(super) fn release_with(&self, commands: &mut Pipeline) {
        commands.add_command(self.script(RELEASE, &[]));
    }

    /// Releases it now.
    pub(super) async fn release(mut self, limit: Duration) {
        let release = self.script(RELEASE, &[]);
        let released = self.connection.run::<()>(&release, limit).await;
        // Otherwise it is tried on when this is dropped.
        self.ended = !matches!(released, Err(Unanswered::Unavailable));
    }

    /// Tells those who wait for it that no answer will be stored.
    pub(super) async fn leave_uncached(mut self, limit: Duration) {
        let leave = self.script(LEAVE, &[UNCACHED, &millis(UNCACHED_FOR)]);
        let left = self.connection.run::<()>(&leave, limit).await;
        self.ended = !matches!(left, Err(Unanswered::Unavailable));
    }

    /// Removes another worker's lease for the same request, which was lost there.
    pub(super) async fn take_over(&self, limit: Duration) {
        let request = &self.token.as_str()[..self.token.request];
        let take_over = self.script(TAKE_OVER, &[request]);
        // Failing that, its lease runs out.
        let _ = self.connection.run::<()>(&take_over, limit).await;
    }

    /// A script on this lease; its first argument is the token.
    fn script(&self, script: &str, arguments: &[&str]) -> Cmd {
        let mut command = redis::cmd("EVAL");
        command.arg(script).arg(1).arg(&self.name);
        command.arg(self.token.as_str()).arg(arguments);
        command
    }
}

impl Drop for Lease {
    /// Nobody waits for it to run out if its holder gives up, or cannot tell Redis that it has ended:
    /// that is tried for as long as the lease can last.
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            return;
        };
        let release = self.script(RELEASE, &[]);
        let (connection, budget) = (Arc::clone(&self.connection), self.budget);
        runtime.spawn(timeout(LEASE, async move {
            while let Err(Unanswered::Unavailable) = connection.run::<()>(&release, budget).await {
                sleep(RELEASE_PAUSE).await;
            }
        }));
    }
}

fn millis(duration: Duration) -> String {
    duration.as_millis().to_string()
}
