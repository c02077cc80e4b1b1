//! `rpcache cache verify`: prints entries that calls would refuse, and removes them with `--repair`.

use std::io::{self, Write as _};
use std::sync::Arc;

use rpcache::Cache;
use rpcache::inspect::{KeyPattern, StoredKey, WrongEntry};
use serde::Serialize;

use super::{BATCH, Interrupts, json};
use crate::args::CacheVerify;
use crate::output::Failure;
use crate::procedure::Called;
use crate::progress::Progress;
use crate::stderr;
use crate::text;

#[derive(Default, Serialize)]
struct Summary {
    checked: u64,
    wrong: u64,
    removed: u64,
}

#[derive(Serialize)]
struct Line {
    key: String,
    wrong: &'static str,
    message: String,
    removed: bool,
}

struct Verifying {
    cache: Arc<Cache>,
    procedure: Arc<Called>,
    repair: bool,
    json: bool,
    progress: Progress,
    summary: Summary,
}

pub(super) async fn run(args: CacheVerify, mut interrupts: Interrupts) -> Result<(), Failure> {
    let mut verifying = Verifying {
        cache: Arc::new(Cache::open(args.redis.options())),
        procedure: Arc::new(args.target.called()?),
        repair: args.repair,
        json: args.json,
        progress: Progress::new(args.sample.map(|n| n as u64)),
        summary: Summary::default(),
    };
    let ended = interrupts.or(verifying.all(args.sample)).await;
    verifying.progress.end();
    if ended.is_ok() || verifying.summary.checked > 0 {
        verifying.summarise()?;
    }
    ended?;
    let Summary { wrong, removed, .. } = verifying.summary;
    if wrong > removed {
        return Err(Failure::new(1, ""));
    }
    Ok(())
}

impl Verifying {
    async fn all(&mut self, sample: Option<usize>) -> Result<(), Failure> {
        if let Some(n) = sample {
            let drawn = self.cache.sample(&*self.procedure, n).await?;
            for keys in drawn.chunks(BATCH) {
                self.these(keys).await?;
            }
            return Ok(());
        }
        let pattern = KeyPattern::default();
        // Cloned, because the scan borrows them while `self` counts.
        let (cache, procedure) = (Arc::clone(&self.cache), Arc::clone(&self.procedure));
        let mut scan = cache.scan(&*procedure, &pattern);
        while let Some(keys) = scan.next_page().await? {
            self.these(&keys).await?;
        }
        Ok(())
    }

    async fn these(&mut self, keys: &[StoredKey]) -> Result<(), Failure> {
        let verified = self.cache.verify(&self.procedure, keys, self.repair);
        let verified = verified.await?;
        let wrong = verified.wrong.len() as u64;
        self.summary.checked += verified.right + wrong;
        self.summary.wrong += wrong;
        for entry in &verified.wrong {
            self.summary.removed += u64::from(entry.removed);
            self.progress.suspend(|| self.print(entry))?;
        }
        self.progress
            .set_message(format!("{} wrong", self.summary.wrong));
        self.progress.add(keys.len());
        Ok(())
    }

    fn print(
        &self,
        WrongEntry {
            key,
            fault,
            removed,
            ..
        }: &WrongEntry,
    ) -> io::Result<()> {
        let mut out = io::stdout().lock();
        if self.json {
            let line = Line {
                key: key.to_string(),
                wrong: fault.code(),
                message: fault.to_string(),
                removed: *removed,
            };
            return json(&mut out, &line);
        }
        let changed = if self.repair && !removed {
            " (not removed: it has changed meanwhile)"
        } else {
            ""
        };
        writeln!(out, "{key}\t{fault}{changed}")
    }

    fn summarise(&self) -> io::Result<()> {
        let summary = &self.summary;
        if self.json {
            return json(&mut io::stdout().lock(), summary);
        }
        let checked = text::answers(summary.checked);
        let (wrong, removed) = (
            text::thousands(summary.wrong),
            text::thousands(summary.removed),
        );
        let found = match (summary.wrong, self.repair) {
            (0, _) => "none is wrong".to_owned(),
            (_, true) => format!("{wrong} wrong, {removed} removed"),
            (_, false) => format!("{wrong} wrong; --repair removes them"),
        };
        // If it cannot be written, the exit code still shows the result.
        let _ = writeln!(stderr::direct(), "checked {checked}: {found}");
        Ok(())
    }
}
