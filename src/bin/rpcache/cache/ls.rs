//! `rpcache cache ls`: lists the keys, page by page as Redis finds them.

use std::io::{self, BufWriter, IsTerminal as _, Write};

use rpcache::Cache;
use rpcache::inspect::{Entry, StoredKey};
use serde::Serialize;

use super::json;
use crate::args::CacheLs;
use crate::output::Failure;
use crate::text;

#[derive(Serialize)]
struct Line {
    key: String,
    #[serde(flatten)]
    entry: Option<Long>,
}

#[derive(Serialize)]
struct Long {
    ttl_ms: Option<u64>,
    size: Option<u64>,
}

pub(super) async fn run(args: CacheLs) -> Result<(), Failure> {
    let called = args.target.called()?;
    let pattern = args.redis.glob(&args.target.procedure, args.pattern)?;
    let cache = Cache::open(args.redis.options());
    let mut scan = cache.scan(&called, &pattern);
    let mut out = BufWriter::new(io::stdout().lock());
    let on_terminal = io::stdout().is_terminal();
    let mut head = args.long && on_terminal && !args.json;
    while let Some(page) = scan.next_page().await? {
        if std::mem::take(&mut head) {
            writeln!(out, "{:>10}  {:>12}  KEY", "TTL", "BYTES")?;
        }
        if args.long {
            let entries = cache.entries(&page).await?;
            for (key, entry) in page.iter().zip(entries) {
                // It may have expired since the scan.
                let Some(entry) = entry else { continue };
                long(&mut out, key, entry, args.json, on_terminal)?;
            }
        } else {
            for key in page {
                if args.json {
                    let (key, entry) = (key.to_string(), None);
                    json(&mut out, &Line { key, entry })?;
                } else {
                    writeln!(out, "{key}")?;
                }
            }
        }
        out.flush()?;
    }
    Ok(())
}

fn long(
    out: &mut impl Write,
    key: &StoredKey,
    entry: Entry,
    as_json: bool,
    on_terminal: bool,
) -> io::Result<()> {
    let Entry { ttl, size, .. } = entry;
    if as_json {
        let (key, ttl_ms) = (key.to_string(), ttl.map(text::millis));
        let entry = Some(Long { ttl_ms, size });
        return json(out, &Line { key, entry });
    }
    let bytes = |write: fn(u64) -> String| size.map_or_else(|| "-".to_owned(), write);
    if on_terminal {
        let (ttl, size) = (text::ttl(ttl), bytes(text::thousands));
        writeln!(out, "{ttl:>10}  {size:>12}  {key}")
    } else {
        let size = bytes(|size| size.to_string());
        writeln!(out, "{}\t{size}\t{key}", text::seconds(ttl))
    }
}
