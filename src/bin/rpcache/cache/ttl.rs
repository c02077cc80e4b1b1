//! `rpcache cache ttl`: how long answers have to live.

use std::io::{self, IsTerminal as _, Write as _};

use rpcache::Cache;
use rpcache::fibonacci::Fibonacci;
use serde::Serialize;

use super::{Problem, at_once, json};
use crate::args::CacheTtl;
use crate::output::Failure;
use crate::text;
use crate::values::Asked;

#[derive(Serialize)]
struct Line {
    argument: String,
    ttl_ms: Option<u64>,
}

pub(super) async fn run(args: CacheTtl) -> Result<(), Failure> {
    let cache = Cache::open(args.redis.options());
    let many = Asked::are_many(&args.asked);
    let mut out = io::stdout().lock();
    let on_terminal = io::stdout().is_terminal();
    let mut ended = Ok(());
    for part in at_once(args.asked) {
        let keys: Vec<_> = part.iter().map(|n| cache.key_of::<Fibonacci>(n)).collect();
        for (n, entry) in part.iter().zip(cache.entries(&keys).await?) {
            let argument = n.to_string();
            let Some(entry) = entry else {
                let error = "not in the cache".to_owned();
                let failure = Failure::new(1, format!("{argument}: {error}"));
                ended = Err(if args.json {
                    json(&mut out, &Problem { argument, error })?;
                    failure.told()
                } else {
                    failure.say()
                });
                continue;
            };
            if args.json {
                let ttl_ms = entry.ttl.map(text::millis);
                json(&mut out, &Line { argument, ttl_ms })?;
                continue;
            }
            let life = if on_terminal {
                text::life(entry.ttl)
            } else {
                text::seconds(entry.ttl)
            };
            if many {
                write!(out, "{argument}\t")?;
            }
            writeln!(out, "{life}")?;
        }
    }
    ended
}
