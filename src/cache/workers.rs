//! Where workers tell of themselves: `rpcache:worker:0`, `:1` and so on, plain strings that expire.
//!
//! Numbered places, and not the workers' own ids, so that whoever looks at the fleet asks for a few
//! names at once instead of searching all keys for them.

use std::time::Duration;

use redis::Cmd;

use super::{Cache, Namespace};
use crate::error::Error;
use crate::worker::WorkerStatus;

/// A worker that is not heard of for longer is gone.
const TTL: Duration = Duration::from_secs(10);

/// Places that are looked at together. Nobody sits behind a row that is empty.
const ROW: u32 = 64;

/// There is no place for more.
const MOST: u32 = 64 * ROW;

/// Not part of any call.
const DEADLINE: Duration = Duration::from_millis(500);

impl Cache {
    /// Puts a worker's announcement into its place, or a free one. The place that it has then;
    /// `None` where Redis does not take it, which is no more than a pity.
    pub(crate) async fn announce(&self, status: &WorkerStatus, place: Option<u32>) -> Option<u32> {
        let text = serde_json::to_string(status).ok()?;
        self.connection.settled().await;
        if let Some(place) = place {
            let before = self.put(place, &text, None).await.ok()?;
            let ours = before.is_none_or(|before| {
                WorkerStatus::read(&before).is_some_and(|s| s.id == status.id)
            });
            if ours {
                return Some(place);
            }
        }
        for row in (0..MOST).step_by(ROW as usize) {
            let taken = self.row(row).await.ok()?;
            let free = (row..).zip(&taken).filter(|(_, status)| status.is_none());
            for (place, _) in free {
                if self.put(place, &text, Some("NX")).await.ok()?.is_none() {
                    return Some(place);
                }
            }
        }
        None
    }

    /// The worker in this place ends.
    pub(crate) async fn retract(&self, place: u32) {
        let unlink = Cmd::unlink(self.place(place));
        // Failing that, it expires.
        let _ = self.connection.run::<()>(&unlink, DEADLINE).await;
    }

    /// What stood there before.
    async fn put(&self, place: u32, text: &str, only: Option<&str>) -> Result<Option<String>, ()> {
        let mut set = redis::cmd("SET");
        set.arg(self.place(place)).arg(text);
        set.arg(only).arg("GET").arg("PX");
        set.arg(u64::try_from(TTL.as_millis()).unwrap_or(u64::MAX));
        self.connection.run(&set, DEADLINE).await.map_err(|_| ())
    }

    async fn row(&self, first: u32) -> Result<Vec<Option<String>>, super::Unanswered> {
        let names: Vec<_> = (first..first + ROW)
            .map(|place| self.place(place))
            .collect();
        self.connection.run(&Cmd::mget(names), DEADLINE).await
    }

    fn place(&self, place: u32) -> String {
        let namespace = self.options.namespace.as_ref();
        let prefix = namespace.map_or(String::new(), |Namespace(name)| format!("{name}:"));
        format!("{prefix}rpcache:worker:{place}")
    }

    /// The workers of this namespace that have told of themselves in the last ten seconds, of all
    /// procedures. Their texts are peers': escape them before a terminal shows them.
    pub async fn workers(&self) -> Result<Vec<WorkerStatus>, Error> {
        self.connection.settled().await;
        let mut workers = Vec::new();
        for row in (0..MOST).step_by(ROW as usize) {
            let found = self
                .row(row)
                .await
                .map_err(|unanswered| self.error(unanswered))?;
            if found.iter().all(Option::is_none) {
                break;
            }
            workers.extend(
                found
                    .iter()
                    .flatten()
                    .filter_map(|text| WorkerStatus::read(text)),
            );
        }
        Ok(workers)
    }
}
