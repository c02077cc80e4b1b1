//! The health of one connection: whether and why it has ended, and whether its server cannot serve.

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::cache::redis::guard::CLOSED;
use crate::counts::CacheCounts;
use crate::error::quote;

/// Written by the stream under a connection and by the commands on it, read by its keeper.
#[derive(Debug, Default)]
pub(in crate::cache::redis) struct Health {
    /// Cancelled when the connection is of no more use; the reason is in `why`.
    pub(super) down: CancellationToken,
    why: OnceLock<Why>,
    /// Cancelled when the server has said that it cannot serve; the reason is in `unfit_for`.
    pub(super) unfit: CancellationToken,
    unfit_for: OnceLock<Unfit>,
    /// Of a node of a cluster: notified in place of `unfit`, since the map of the cluster may be outdated.
    outdated: Option<Arc<Notify>>,
}

/// Why a connection was given up.
#[derive(Debug)]
enum Why {
    /// It was lost: how.
    Lost(String),
    /// Its breaker tripped: no answer within this time.
    Late(Duration),
}

/// Why a server that answers cannot serve. Another one may, under the same name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::cache::redis) enum Unfit {
    /// It is a replica that takes no writes.
    Replica,
    /// It is a replica that has lost its primary, and may not serve what it has.
    NoPrimary,
    /// It was started and is reading its data.
    Loading,
    /// It is a node of a cluster, and another one holds the key: peer text.
    Elsewhere(String),
    /// It is a node of a cluster that cannot serve.
    ClusterDown,
}

impl Unfit {
    /// Reads an error of the server, without `-`.
    fn read(line: &[u8]) -> Option<Self> {
        let mut words = line.split(|&byte| byte == b' ');
        match words.next()? {
            b"READONLY" => Some(Self::Replica),
            b"MASTERDOWN" => Some(Self::NoPrimary),
            b"LOADING" => Some(Self::Loading),
            // `MOVED 3999 127.0.0.1:6381`
            b"MOVED" | b"ASK" => Some(Self::Elsewhere(quote(words.nth(1).unwrap_or_default()))),
            b"CLUSTERDOWN" => Some(Self::ClusterDown),
            _ => None,
        }
    }
}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Replica => f.write_str("is a read-only replica"),
            Self::NoPrimary => f.write_str("is a replica that has lost its primary"),
            Self::Loading => f.write_str("is still loading its data"),
            Self::Elsewhere(node) => write!(
                f,
                "is a node of a Redis Cluster of several shards, and redirects to {node}; the address of \
                 a cluster begins with redis+cluster://"
            ),
            Self::ClusterDown => f.write_str("is a node of a Redis Cluster that is down"),
        }
    }
}

impl Health {
    pub(in crate::cache::redis) fn new(outdated: Option<Arc<Notify>>) -> Self {
        Self {
            outdated,
            ..Self::default()
        }
    }

    /// Notes how the stream has ended, or will end. The first reason counts.
    pub(in crate::cache::redis) fn ends(&self, how: impl FnOnce() -> String) {
        self.why.get_or_init(|| Why::Lost(how()));
    }

    /// Notes that the connection was lost, and how unless that is known already.
    pub(in crate::cache::redis) fn lost(&self, how: impl FnOnce() -> String) {
        self.ends(how);
        self.down.cancel();
    }

    /// Notes that redis-rs has let go of the connection.
    pub(in crate::cache::redis) fn closed(&self) {
        self.lost(|| CLOSED.to_owned());
    }

    /// Notes that too many commands in a row had no answer within `limit`.
    pub(super) fn late(&self, limit: Duration) {
        self.why.get_or_init(|| Why::Late(limit));
        self.down.cancel();
    }

    /// Notes an error of the server.
    pub(in crate::cache::redis) fn refused(&self, line: &[u8]) {
        // The server sends it in place of its first reply, to a login for example, and closes the connection.
        if line.starts_with(b"ERR max number of clients") {
            self.ends(|| quote(line));
        }
        match (Unfit::read(line), &self.outdated) {
            (None, _) => {}
            // A key that is on its way to another node: the map is right.
            (Some(_), Some(_)) if line.starts_with(b"ASK") => {}
            (Some(_), Some(outdated)) => outdated.notify_one(),
            (Some(unfit), None) => {
                self.unfit_for.get_or_init(|| unfit);
                self.unfit.cancel();
            }
        }
    }

    /// How the connection was lost, if it was.
    pub(in crate::cache::redis) fn how_lost(&self) -> Option<&str> {
        match self.why.get()? {
            Why::Lost(how) => Some(how),
            Why::Late(_) => None,
        }
    }

    /// Why the server cannot serve, if that is known.
    pub(super) fn unfit(&self) -> Option<&Unfit> {
        self.unfit_for.get()
    }

    /// Counts that it has ended; the reason.
    pub(super) fn count_end(&self, counts: &CacheCounts) -> String {
        match self.why.get() {
            Some(Why::Late(limit)) => {
                counts.redis.late.count();
                format!("no answer within {} ms", limit.as_millis())
            }
            Some(Why::Lost(how)) => {
                counts.redis.lost.count();
                how.clone()
            }
            // Nothing cancels it without a reason.
            None => String::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_a_server_that_cannot_serve_are_known() {
        let read = |line: &str| Unfit::read(line.as_bytes());
        let readonly = "READONLY You can't write against a read only replica.";
        assert_eq!(read(readonly), Some(Unfit::Replica));
        let masterdown = "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set \
                          to 'no'.";
        assert_eq!(read(masterdown), Some(Unfit::NoPrimary));
        let loading = "LOADING Redis is loading the dataset in memory";
        assert_eq!(read(loading), Some(Unfit::Loading));
        for code in ["MOVED", "ASK"] {
            let there = Unfit::Elsewhere("127.0.0.1:6381".to_owned());
            assert_eq!(read(&format!("{code} 3999 127.0.0.1:6381")), Some(there));
            assert_eq!(read(code), Some(Unfit::Elsewhere(String::new())));
        }
        let down = "CLUSTERDOWN Hash slot not served";
        assert_eq!(read(down), Some(Unfit::ClusterDown));
        for fit in [
            "WRONGTYPE Operation against a key",
            "OOM command not allowed",
            "NOPERM this user has no permissions",
            "CROSSSLOT Keys in request don't hash to the same slot",
            "READONLYX",
            "",
        ] {
            assert_eq!(read(fit), None, "{fit}");
        }
    }

    #[test]
    fn the_first_reason_counts() {
        let health = Health::default();
        health.refused(b"ERR max number of clients reached");
        assert!(!health.down.is_cancelled());
        health.closed();
        assert!(health.down.is_cancelled());
        assert_eq!(health.how_lost(), Some("ERR max number of clients reached"));
    }
}
