//! `rpcache cache stats`: prints the numbers of Redis, of the stored answers and of the workers.

use std::io::{self, IsTerminal as _, Write as _};

use rpcache::fleet::WorkerStatus;
use rpcache::inspect::{Estimate, Precision, ServerStats, Survey, TtlBuckets};
use rpcache::{Cache, Error};
use serde::Serialize;

use super::json;
use crate::args::CacheStats;
use crate::output::Failure;
use crate::stderr;
use crate::text;

/// All numbers; `null` where this login lacks the right.
#[derive(Serialize)]
struct Stats {
    server: Option<ServerStats>,
    survey: Option<Survey>,
    workers: Option<Vec<WorkerStatus>>,
}

pub(super) async fn run(args: CacheStats) -> Result<(), Failure> {
    let name = args.redis.qualified(&args.target.procedure);
    let cache = Cache::open(args.redis.options());
    let stats = Stats {
        server: cache.server_stats().await?,
        survey: permitted(cache.survey(&args.target.called()?).await)?,
        workers: permitted(cache.workers().await)?,
    };
    stats.warn_of_missing_rights();
    let mut out = io::stdout().lock();
    if args.json {
        json(&mut out, &stats)?;
        return Ok(());
    }
    let on_terminal = io::stdout().is_terminal();
    let figures = if on_terminal {
        stats.for_people(&name)
    } else {
        stats.for_programs()
    };
    text::print(&mut out, &figures, on_terminal)?;
    if let Some(workers) = stats.workers.filter(|workers| !workers.is_empty()) {
        if on_terminal {
            writeln!(out)?;
        }
        text::print(&mut out, &table(&workers, on_terminal), on_terminal)?;
    }
    Ok(())
}

/// `None` if a right is missing: the other numbers are still printed.
fn permitted<T>(result: Result<T, Error>) -> Result<Option<T>, Error> {
    match result {
        Err(Error::Refused { .. }) => Ok(None),
        result => result.map(Some),
    }
}

impl Stats {
    fn warn_of_missing_rights(&self) {
        let missing = [
            (self.server.is_none(), "the server (INFO)"),
            (self.survey.is_none(), "the keys (SCAN, PTTL, STRLEN)"),
            (self.workers.is_none(), "the workers (MGET)"),
        ];
        for (_, what) in missing.iter().filter(|(is_missing, _)| *is_missing) {
            // If it cannot be written, the output still shows what is missing.
            let _ = writeln!(
                stderr::direct(),
                "rpcache: this Redis user has no right to read {what}"
            );
        }
    }

    fn for_people(&self, name: &str) -> Vec<Vec<String>> {
        let mut rows = Vec::new();
        let mut row = |name: &str, value: String| rows.push(vec![name.to_owned(), value]);
        if let Some(server) = &self.server {
            let limit = match server.memory_limit {
                Some(limit) => format!("of {}, {}", text::bytes(limit), server.eviction_policy),
                None => "without a limit".to_owned(),
            };
            let asked = server.hits.saturating_add(server.misses);
            let hits = text::share(server.hits, asked);
            row("Redis", server.version.clone());
            row("memory", format!("{} {limit}", text::bytes(server.memory)));
            row(
                "hit share",
                format!("{hits} of {} lookups by all users", text::thousands(asked)),
            );
            row("evicted", text::thousands(server.evicted));
            row("expired", text::thousands(server.expired));
        }
        if let Some(survey) = &self.survey {
            let Survey {
                keys,
                answers,
                bytes,
                leases,
                ttl,
                ..
            } = survey;
            if let Some(keys) = keys {
                row("keys", text::thousands(*keys));
            }
            let size = counted(*bytes, text::bytes);
            row(
                name,
                format!("{} answers, {size}", counted(*answers, text::thousands)),
            );
            row("leases", counted(*leases, text::thousands));
            let buckets = ttl_buckets(ttl);
            let all = buckets.iter().map(|&(_, _, count)| count).sum();
            for (_, name, count) in buckets.into_iter().filter(|&(_, _, count)| count > 0) {
                row(name, text::share(count, all));
            }
        }
        if let Some(workers) = &self.workers {
            row("workers", text::thousands(workers.len() as u64));
        }
        rows
    }

    fn for_programs(&self) -> Vec<Vec<String>> {
        let mut rows = Vec::new();
        let mut row = |name: &str, value: &dyn ToString| {
            rows.push(vec![name.to_owned(), value.to_string()]);
        };
        if let Some(server) = &self.server {
            row("redis_version", &server.version);
            row("memory", &server.memory);
            row("memory_limit", &server.memory_limit.unwrap_or(0));
            row("eviction_policy", &server.eviction_policy);
            row("hits", &server.hits);
            row("misses", &server.misses);
            row("evicted", &server.evicted);
            row("expired", &server.expired);
        }
        if let Some(survey) = &self.survey {
            if let Some(keys) = survey.keys {
                row("keys", &keys);
            }
            for (
                name,
                Estimate {
                    count, precision, ..
                },
            ) in [
                ("answers", survey.answers),
                ("bytes", survey.bytes),
                ("leases", survey.leases),
            ] {
                row(name, &count);
                row(&format!("{name}_precision"), &precision);
            }
            for (name, _, count) in ttl_buckets(&survey.ttl) {
                row(name, &count);
            }
        }
        rows
    }
}

fn ttl_buckets(ttl: &TtlBuckets) -> [(&'static str, &'static str, u64); 6] {
    [
        ("ttl_minute", "ttl up to 1m", ttl.minute),
        ("ttl_hour", "ttl up to 1h", ttl.hour),
        ("ttl_day", "ttl up to 1d", ttl.day),
        ("ttl_week", "ttl up to 7d", ttl.week),
        ("ttl_longer", "ttl longer", ttl.longer),
        ("ttl_forever", "ttl for ever", ttl.forever),
    ]
}

fn counted(
    Estimate {
        count, precision, ..
    }: Estimate,
    write: impl Fn(u64) -> String,
) -> String {
    match precision {
        Precision::Exact => write(count),
        precision => format!(
            "{} {}",
            precision.to_string().replace('-', " "),
            write(count)
        ),
    }
}

fn table(workers: &[WorkerStatus], for_people: bool) -> Vec<Vec<String>> {
    let head = [
        "worker",
        "host",
        "pid",
        "computing",
        "answered",
        "computed",
        "cache",
        "shared",
        "failed",
    ];
    let head = head.map(|name| {
        if for_people {
            name.to_uppercase()
        } else {
            name.to_owned()
        }
    });
    let mut rows = vec![head.to_vec()];
    rows.extend(workers.iter().map(|worker| {
        let counts = &worker.counts;
        let mut row = vec![
            worker.id.clone(),
            worker.host.clone(),
            worker.pid.to_string(),
        ];
        let numbers = [
            worker.computing.len() as u64,
            counts.answered,
            counts.computed,
            counts.cache,
            counts.shared,
            counts.failed,
        ];
        let write = |n: u64| {
            if for_people {
                text::thousands(n)
            } else {
                n.to_string()
            }
        };
        row.extend(numbers.map(write));
        row
    }));
    rows
}
