//! `rpcache cache rm`: removes answers, asks first for a pattern or all, and prints how many it removed, also after an
//! interrupt.

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};

use rpcache::Cache;
use rpcache::inspect::{KeyPattern, StoredKey};
use serde::Serialize;

use super::{Interrupts, batches, json};
use crate::args::CacheRm;
use crate::output::Failure;
use crate::procedure::{Arguments, Called};
use crate::progress::Progress;
use crate::stderr;
use crate::text;

#[derive(Serialize)]
struct Key {
    key: String,
}

#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
enum Summary {
    Removed(u64),
    WouldRemove(u64),
}

struct Removal {
    cache: Cache,
    called: Called,
    interrupts: Interrupts,
    dry_run: bool,
    json: bool,
    progress: Progress,
    /// With `--dry-run`: would be removed.
    removed: u64,
}

pub(super) async fn run(args: CacheRm, interrupts: Interrupts) -> Result<(), Failure> {
    let (called, arguments) = args.target.read(&args.arguments)?;
    let asks = arguments.is_empty() && !args.yes && !args.dry_run;
    if asks && !(io::stdin().is_terminal() && io::stderr().is_terminal()) {
        let remedy = "--yes removes without asking, --dry-run prints the keys";
        return Err(Failure::new(
            2,
            format!("there is no terminal to ask on; {remedy}"),
        ));
    }
    let name = args.redis.qualified(&args.target.procedure);
    let pattern = args.redis.glob(&args.target.procedure, args.pattern)?;
    let mut removal = Removal {
        cache: Cache::open(args.redis.options()),
        called,
        interrupts,
        dry_run: args.dry_run,
        json: args.json,
        progress: Progress::new(None),
        removed: 0,
    };
    if asks {
        let count = removal.count(&pattern).await?;
        let question = format!("remove {} of {name}?", text::answers(count));
        if count > 0 && !removal.confirms(&question).await? {
            return Err(Failure::new(1, "nothing was removed"));
        }
        removal.progress = Progress::new(Some(count));
    }
    let ended = if arguments.is_empty() {
        removal.matching(&pattern).await
    } else {
        removal.these(arguments).await
    };
    removal.progress.end();
    if ended.is_ok() || removal.removed > 0 {
        removal.print()?;
    }
    ended
}

impl Removal {
    /// Counts the keys that match. SCAN may return some twice.
    async fn count(&mut self, pattern: &KeyPattern) -> Result<u64, Failure> {
        let mut count = 0;
        let mut scan = self.cache.scan(&self.called, pattern);
        while let Some(page) = self.interrupts.or(scan.next_page()).await? {
            count += page.len() as u64;
            self.progress.add(page.len());
        }
        self.progress.end();
        Ok(count)
    }

    async fn confirms(&mut self, question: &str) -> Result<bool, Failure> {
        // If the question cannot be written, the answer is read nevertheless, and is no.
        let _ = write!(stderr::direct(), "{question} [y/N] ");
        let answer = async {
            let read = tokio::task::spawn_blocking(|| {
                let mut line = String::new();
                io::stdin().lock().read_line(&mut line).map(|_| line)
            });
            // No answer if the runtime shuts down or stdin is closed.
            Ok::<_, Failure>(read.await.ok().and_then(Result::ok).unwrap_or_default())
        };
        let answer = self.interrupts.or(answer).await?;
        Ok(["y", "yes"].contains(&answer.trim().to_lowercase().as_str()))
    }

    async fn matching(&mut self, pattern: &KeyPattern) -> Result<(), Failure> {
        let ended = self.pages(pattern).await;
        if !self.dry_run && (ended.is_ok() || self.removed > 0) {
            // Clients may have copies of answers that Redis has evicted, so that SCAN did not find them.
            self.cache.purge_copies(&self.called).await;
        }
        ended
    }

    async fn pages(&mut self, pattern: &KeyPattern) -> Result<(), Failure> {
        let cache = &self.cache;
        let mut scan = cache.scan(&self.called, pattern);
        while let Some(page) = self.interrupts.or(scan.next_page()).await? {
            self.removed += remove(cache, &page, self.dry_run, self.json).await?;
            self.progress.add(page.len());
        }
        Ok(())
    }

    async fn these(&mut self, arguments: Vec<Arguments>) -> Result<(), Failure> {
        for batch in batches(arguments) {
            let keys = batch
                .iter()
                .map(|argument| self.cache.key_of(&self.called, argument));
            let keys: Vec<_> = keys.collect();
            self.removed += remove(&self.cache, &keys, self.dry_run, self.json).await?;
            // Only between two batches: a batch that was sent is awaited, so that the count is right.
            self.interrupts.or(async { Ok::<_, Failure>(()) }).await?;
        }
        Ok(())
    }

    fn print(&self) -> io::Result<()> {
        let mut out = io::stdout().lock();
        match (self.json, self.dry_run) {
            (true, true) => json(&mut out, &Summary::WouldRemove(self.removed)),
            (true, false) => json(&mut out, &Summary::Removed(self.removed)),
            // On stderr: stdout has the keys.
            (false, true) => writeln!(stderr::direct(), "would remove {}", self.removed),
            (false, false) => writeln!(out, "removed {}", self.removed),
        }
    }
}

/// Removes these keys, or prints them with `dry_run`. Returns how many there were.
async fn remove(
    cache: &Cache,
    keys: &[StoredKey],
    dry_run: bool,
    as_json: bool,
) -> Result<u64, Failure> {
    if !dry_run {
        return Ok(cache.remove_keys(keys).await?);
    }
    let mut there = 0;
    let mut out = io::stdout().lock();
    for (key, entry) in keys.iter().zip(cache.entries(keys).await?) {
        if entry.is_none() {
            continue;
        }
        there += 1;
        if as_json {
            let key = key.to_string();
            json(&mut out, &Key { key })?;
        } else {
            writeln!(out, "{key}")?;
        }
    }
    Ok(there)
}
