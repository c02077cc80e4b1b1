//! `rpcache cache ttl`: prints the TTL of stored answers.

use std::io::{self, IsTerminal as _, Write as _};

use rpcache::Cache;
use serde::Serialize;

use super::{Problem, are_many, batches, json};
use crate::answer::escaped;
use crate::args::CacheTtl;
use crate::output::Failure;
use crate::text;

#[derive(Serialize)]
struct Line {
    argument: String,
    ttl_ms: Option<u64>,
}

pub(super) async fn run(args: CacheTtl) -> Result<(), Failure> {
    let cache = Cache::open(args.redis.options());
    let (called, arguments) = args.arguments.read()?;
    let many = are_many(&arguments);
    let mut out = io::stdout().lock();
    let on_terminal = io::stdout().is_terminal();
    let mut ended = Ok(());
    for batch in batches(arguments) {
        let key = |argument| cache.key_of(&called, argument);
        let keys: Vec<_> = batch.iter().map(key).collect();
        for (argument, entry) in batch.into_iter().zip(cache.entries(&keys).await?) {
            let Some(entry) = entry else {
                let error = "not in the cache".to_owned();
                let failure = Failure::new(1, format!("{}: {error}", escaped(&argument)));
                ended = Err(if args.json {
                    json(&mut out, &Problem { argument, error })?;
                    failure.without_message()
                } else {
                    failure.print()
                });
                continue;
            };
            if args.json {
                let ttl_ms = entry.ttl.map(text::millis);
                json(&mut out, &Line { argument, ttl_ms })?;
                continue;
            }
            let ttl = if on_terminal {
                text::ttl(entry.ttl)
            } else {
                text::seconds(entry.ttl)
            };
            if many {
                write!(out, "{}\t", escaped(&argument))?;
            }
            writeln!(out, "{ttl}")?;
        }
    }
    ended
}
