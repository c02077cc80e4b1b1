//! Where workers tell of themselves: `rpcache:worker:0`, `:1` and so on, plain strings that expire.
//!
//! Numbered places, and not the workers' own ids, so that whoever looks at the fleet asks for a few
//! names at once instead of searching all keys for them. Anybody may have put anything there: it is read
//! up to the size of an announcement, and costs its own place alone.

use std::sync::atomic::Ordering;
use std::time::Duration;

use redis::{Cmd, RedisError};
use tracing::warn;

use super::connection::Unanswered;
use super::{Cache, Namespace, no_answer};
use crate::error::{Error, quote};
use crate::worker::WorkerStatus;

/// A worker that is not heard of for longer is gone.
const TTL: Duration = Duration::from_secs(10);

/// Places that are looked at together. Nobody sits behind a row that is empty.
const ROW: u32 = 64;

/// There is no place for more.
const MOST: u32 = 64 * ROW;

/// Not part of any call.
const DEADLINE: Duration = Duration::from_millis(500);

/// Of something foreign, in bytes.
const SHOWN: usize = 40;

/// What stands in a place.
enum Place {
    Free,
    Worker(Box<WorkerStatus>),
    /// Something that no worker wrote.
    Foreign(String),
}

impl Cache {
    /// Puts a worker's announcement into its place, or a free one. The place that it has then;
    /// `None` where Redis does not take it, which is no more than a pity.
    pub(crate) async fn announce(&self, status: &WorkerStatus, place: Option<u32>) -> Option<u32> {
        let text = serde_json::to_string(status).ok()?;
        self.connection.settled().await;
        if let Some(place) = place {
            match self.put(place, &text).await? {
                Place::Free => return Some(place),
                Place::Worker(before) if before.id == status.id => return Some(place),
                Place::Worker(_) | Place::Foreign(_) => {}
            }
        }
        for row in (0..MOST).step_by(ROW as usize) {
            for place in self.free_places(row).await {
                if self.take(place, &text).await? {
                    return Some(place);
                }
            }
        }
        None
    }

    /// Places of a row that may be free: all, where looking failed once. Something huge may stand there,
    /// which is not to be asked for again.
    async fn free_places(&self, row: u32) -> Vec<u32> {
        let all = row..row + ROW;
        if !self.places_unread.load(Ordering::Relaxed) {
            let mget = Cmd::mget(self.row(row));
            match self.connection.get_many(&mget, DEADLINE).await {
                Ok(found) => {
                    let free = all
                        .zip(found)
                        .filter(|(_, found)| matches!(found, Ok(None)));
                    return free.map(|(place, _)| place).collect();
                }
                Err(_) => self.places_unread.store(true, Ordering::Relaxed),
            }
        }
        all.collect()
    }

    /// The worker in this place ends.
    pub(crate) async fn retract(&self, place: u32) {
        let unlink = Cmd::unlink(self.place(place));
        // Failing that, it expires.
        let _ = self.connection.run::<()>(&unlink, DEADLINE).await;
    }

    /// Puts it into the place: what stood there before. `None`: Redis does not take it.
    async fn put(&self, place: u32, text: &str) -> Option<Place> {
        let mut set = self.announcement(place, text);
        set.arg("GET");
        let before = self.connection.run::<Option<Vec<u8>>>(&set, DEADLINE).await;
        match before {
            Ok(before) => Some(read(before)),
            Err(Unanswered::Refused(error)) => foreign(&error),
            Err(Unanswered::Unavailable) => None,
        }
    }

    /// Puts it into the place if that is free, without reading what stands there; `None`: Redis does not
    /// take it.
    async fn take(&self, place: u32, text: &str) -> Option<bool> {
        let mut set = self.announcement(place, text);
        set.arg("NX");
        let taken = self.connection.run::<Option<()>>(&set, DEADLINE).await;
        taken.ok().map(|taken| taken.is_some())
    }

    fn announcement(&self, place: u32, text: &str) -> Cmd {
        let mut set = redis::cmd("SET");
        set.arg(self.place(place)).arg(text).arg("PX");
        set.arg(u64::try_from(TTL.as_millis()).unwrap_or(u64::MAX));
        set
    }

    /// What stands in a row of places. Reads no more of any value than an announcement may have.
    async fn places(&self, first: u32) -> Result<Vec<Place>, Unanswered> {
        let names = self.row(first);
        let mut commands = redis::pipe();
        commands.ignore_errors();
        for name in &names {
            commands.getrange(name, 0, WorkerStatus::MAX_BYTES.cast_signed());
        }
        let found: Vec<Result<Vec<u8>, RedisError>> =
            self.connection.run_all(&commands, DEADLINE).await?;
        let may_not = |said: &Result<_, RedisError>| {
            said.as_ref()
                .is_err_and(|error| error.code() == Some("NOPERM"))
        };
        if found.iter().any(may_not) {
            // As worker's and client's rights are documented.
            let found = self
                .connection
                .get_many(&Cmd::mget(names), DEADLINE)
                .await?;
            return found.into_iter().map(|found| found.map(read)).collect();
        }
        let place = |said: Result<Vec<u8>, _>| match said {
            // What is not there is empty to GETRANGE.
            Ok(found) => Ok(read(Some(found).filter(|found| !found.is_empty()))),
            Err(error) => foreign(&error).ok_or(Unanswered::Refused(error)),
        };
        found.into_iter().map(place).collect()
    }

    fn row(&self, first: u32) -> Vec<String> {
        (first..first + ROW)
            .map(|place| self.place(place))
            .collect()
    }

    fn place(&self, place: u32) -> String {
        let namespace = self.options.namespace.as_ref();
        let prefix = namespace.map_or(String::new(), |Namespace(name)| format!("{name}:"));
        format!("{prefix}rpcache:worker:{place}")
    }

    /// The workers of this namespace that have told of themselves in the last ten seconds, of all
    /// procedures. Their texts are peers': escape them before a terminal shows them. What no worker wrote
    /// is left out, and logged.
    pub async fn workers(&self) -> Result<Vec<WorkerStatus>, Error> {
        self.connection.settled().await;
        let mut workers = Vec::new();
        for row in (0..MOST).step_by(ROW as usize) {
            let found = self
                .places(row)
                .await
                .map_err(|unanswered| self.error(unanswered))?;
            if found.iter().all(|place| matches!(place, Place::Free)) {
                break;
            }
            for (place, found) in (row..).zip(found) {
                match found {
                    Place::Free => {}
                    Place::Worker(status) => workers.push(*status),
                    Place::Foreign(found) => self.is_foreign(place, &found),
                }
            }
        }
        Ok(workers)
    }

    fn is_foreign(&self, place: u32, found: &str) {
        if let Some(left_out) = self.foreign_places.happened() {
            let key = self.place(place);
            warn!(
                key,
                found, left_out, "no worker's announcement stands where one may: left out"
            );
        }
    }
}

fn read(found: Option<Vec<u8>>) -> Place {
    let Some(found) = found else {
        return Place::Free;
    };
    if found.len() > WorkerStatus::MAX_BYTES {
        let limit = WorkerStatus::MAX_BYTES;
        return Place::Foreign(format!("more than {limit} bytes"));
    }
    let shown = quote(&found[..found.len().min(SHOWN)]);
    let Ok(text) = std::str::from_utf8(&found) else {
        return Place::Foreign(format!("not UTF-8: \"{shown}\""));
    };
    match WorkerStatus::read(text) {
        Some(status) => Place::Worker(Box::new(status)),
        None => Place::Foreign(format!("\"{shown}\"")),
    }
}

/// What an error says of a place; `None`: nothing, it is Redis' own.
fn foreign(error: &RedisError) -> Option<Place> {
    no_answer(error).map(|found| Place::Foreign(found.to_owned()))
}
