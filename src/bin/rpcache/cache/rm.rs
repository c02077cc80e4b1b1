//! `rpcache cache rm`: removes, after a question where it is many, and says how many it were, also
//! when it is interrupted.

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};

use rpcache::Cache;
use rpcache::inspect::{KeyPattern, StoredKey};
use serde::Serialize;

use super::{Interrupts, at_once, json};
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
    /// Or would be removed.
    removed: u64,
}

pub(super) async fn run(args: CacheRm, interrupts: Interrupts) -> Result<(), Failure> {
    let (called, arguments) = args.target.read(&args.arguments)?;
    let asks = arguments.is_empty() && !args.yes && !args.dry_run;
    if asks && !(io::stdin().is_terminal() && io::stderr().is_terminal()) {
        let remedy = "--yes removes without a question, --dry-run shows what";
        return Err(Failure::new(2, format!("no terminal to ask on; {remedy}")));
    }
    let name = args.redis.named(&args.target.procedure);
    let mut removal = Removal {
        cache: Cache::open(args.redis.options()),
        called,
        interrupts,
        dry_run: args.dry_run,
        json: args.json,
        progress: Progress::new(None),
        removed: 0,
    };
    let pattern = args.pattern.unwrap_or_default();
    if asks {
        let count = removal.count(&pattern).await?;
        let question = format!("remove {} of {name}?", text::answers(count));
        if count > 0 && !removal.is_answered_yes(&question).await? {
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
        removal.say()?;
    }
    ended
}

impl Removal {
    /// Some may be counted twice.
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

    async fn is_answered_yes(&mut self, question: &str) -> Result<bool, Failure> {
        // Nobody sees it: nobody answers.
        let _ = write!(stderr::direct(), "{question} [y/N] ");
        let answer = async {
            let read = tokio::task::spawn_blocking(|| {
                let mut line = String::new();
                io::stdin().lock().read_line(&mut line).map(|_| line)
            });
            // The runtime is being shut down, or stdin is closed.
            Ok::<_, Failure>(read.await.ok().and_then(Result::ok).unwrap_or_default())
        };
        let answer = self.interrupts.or(answer).await?;
        Ok(["y", "yes"].contains(&answer.trim().to_lowercase().as_str()))
    }

    async fn matching(&mut self, pattern: &KeyPattern) -> Result<(), Failure> {
        let ended = self.pages(pattern).await;
        if !self.dry_run && (ended.is_ok() || self.removed > 0) {
            // Clients may have copies of what Redis had no more, and no SCAN has found.
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
        for part in at_once(arguments) {
            let keys = part
                .iter()
                .map(|argument| self.cache.key_of(&self.called, argument));
            let keys: Vec<_> = keys.collect();
            self.removed += remove(&self.cache, &keys, self.dry_run, self.json).await?;
            // What was sent is waited for, so that the count is right.
            self.interrupts.or(async { Ok::<_, Failure>(()) }).await?;
        }
        Ok(())
    }

    fn say(&self) -> io::Result<()> {
        let mut out = io::stdout().lock();
        match (self.json, self.dry_run) {
            (true, true) => json(&mut out, &Summary::WouldRemove(self.removed)),
            (true, false) => json(&mut out, &Summary::Removed(self.removed)),
            // stdout has the keys.
            (false, true) => writeln!(stderr::direct(), "would remove {}", self.removed),
            (false, false) => writeln!(out, "removed {}", self.removed),
        }
    }
}

/// How many of these are removed, or would be.
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
