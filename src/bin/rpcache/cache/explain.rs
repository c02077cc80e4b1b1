//! `rpcache cache explain`: prints what Redis holds for one argument: entry, lease and attempts.

use std::io::{self, IsTerminal as _};
use std::sync::Arc;

use rpcache::fleet::WorkerStatus;
use rpcache::inspect::{Explained, LeaseHeld, LeaseHolder};
use rpcache::{Cache, Error};
use serde::Serialize;

use super::json;
use crate::args::CacheExplain;
use crate::output::{Failure, misuse};
use crate::procedure::Arguments;
use crate::text;

#[derive(Serialize)]
struct Explanation {
    key: String,
    stored: bool,
    ttl_ms: Option<u64>,
    size: Option<u64>,
    /// `null` if nothing is stored.
    verifies: Option<bool>,
    wrong: Option<&'static str>,
    message: Option<String>,
    lease: Option<Lease>,
    begun: u64,
}

#[derive(Serialize)]
struct Lease {
    /// `held`, `uncached` or `unknown`.
    state: &'static str,
    worker: Option<String>,
    host: Option<String>,
    pid: Option<u32>,
    ttl_ms: Option<u64>,
}

pub(super) async fn run(args: CacheExplain) -> Result<(), Failure> {
    let cache = Cache::open(args.redis.options());
    let typed = [args.argument];
    let (called, arguments) = args.target.read(&typed)?;
    let [Arguments::One(argument)] = &arguments[..] else {
        return Err(misuse(&format!(
            "{:?}: explain takes one argument",
            typed[0]
        )));
    };
    let explained = cache.explain(&Arc::new(called), argument).await?;
    let workers = match cache.workers().await {
        // Without the right to read the workers, the rest is still printed.
        Err(Error::Refused { .. }) => Vec::new(),
        workers => workers?,
    };
    let holder = holder(explained.lease.as_ref(), &workers);
    let mut out = io::stdout().lock();
    if args.json {
        json(&mut out, &explanation(&explained, holder))?;
    } else {
        let on_terminal = io::stdout().is_terminal();
        let rows = rows(&explained, holder, on_terminal);
        text::print(&mut out, &rows, on_terminal)?;
    }
    Ok(())
}

fn holder<'a>(lease: Option<&LeaseHeld>, workers: &'a [WorkerStatus]) -> Option<&'a WorkerStatus> {
    let LeaseHolder::Worker(id) = &lease?.holder else {
        return None;
    };
    workers.iter().find(|worker| worker.id == *id)
}

fn explanation(explained: &Explained, holder: Option<&WorkerStatus>) -> Explanation {
    let entry = explained.entry;
    let lease = explained.lease.as_ref().map(|lease| {
        let (state, worker) = match &lease.holder {
            LeaseHolder::Worker(id) => ("held", Some(id.clone())),
            LeaseHolder::Uncached => ("uncached", None),
            _ => ("unknown", None),
        };
        Lease {
            state,
            worker,
            host: holder.map(|worker| worker.host.clone()),
            pid: holder.map(|worker| worker.pid),
            ttl_ms: lease.ttl.map(text::millis),
        }
    });
    Explanation {
        key: explained.key.to_string(),
        stored: entry.is_some(),
        ttl_ms: entry.and_then(|entry| entry.ttl).map(text::millis),
        size: entry.and_then(|entry| entry.size),
        verifies: entry.map(|_| explained.fault.is_none()),
        wrong: explained
            .fault
            .as_ref()
            .map(rpcache::inspect::EntryFault::code),
        message: explained.fault.as_ref().map(ToString::to_string),
        lease,
        begun: explained.attempts,
    }
}

fn rows(
    explained: &Explained,
    holder: Option<&WorkerStatus>,
    for_people: bool,
) -> Vec<Vec<String>> {
    let (life, bytes): (fn(_) -> _, fn(_) -> _) = if for_people {
        (text::ttl, text::bytes)
    } else {
        (text::seconds, |n| n.to_string())
    };
    let mut rows = vec![vec!["key".to_owned(), explained.key.to_string()]];
    let mut row = |name: &str, value: String| rows.push(vec![name.to_owned(), value]);
    match explained.entry {
        None => row("stored", "no".to_owned()),
        Some(entry) => {
            let size = entry.size.map_or_else(|| "-".to_owned(), bytes);
            row("stored", "yes".to_owned());
            row("ttl", life(entry.ttl));
            row("size", size);
            let verifies = explained.fault.as_ref();
            let verifies = verifies.map_or("yes".to_owned(), |wrong| format!("no: {wrong}"));
            row("verifies", verifies);
        }
    }
    row("lease", lease(explained.lease.as_ref(), holder));
    if explained.attempts > 0 {
        let begun = text::thousands(explained.attempts);
        row(
            "begun",
            format!("{begun} times by workers that did not finish"),
        );
    }
    rows
}

fn lease(lease: Option<&LeaseHeld>, holder: Option<&WorkerStatus>) -> String {
    let Some(lease) = lease else {
        return "none: no worker computes it, or it is cheap".to_owned();
    };
    let holder = match (&lease.holder, holder) {
        (LeaseHolder::Worker(id), Some(WorkerStatus { host, pid, .. })) => {
            format!("held by worker {id} on {host}, process {pid}")
        }
        (LeaseHolder::Worker(id), None) => {
            format!("held by worker {id}, which has not announced itself")
        }
        (LeaseHolder::Uncached, _) => "the answer was computed and could not be stored".to_owned(),
        (LeaseHolder::Unknown(found), _) => format!("not a lease of rpcache: \"{found}\""),
        _ => "held".to_owned(),
    };
    match lease.ttl {
        Some(ttl) => format!("{holder}; {} left", text::ttl(Some(ttl))),
        None => format!("{holder}; for ever"),
    }
}
