//! `rpcache cache ttl`: how long answers have to live.

use std::io::{self, IsTerminal as _, Write as _};

use rpcache::Cache;
use serde::Serialize;

use super::{Problem, are_many, at_once, json};
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
    let (called, arguments) = args.target.read(&args.arguments)?;
    let many = are_many(&arguments);
    let mut out = io::stdout().lock();
    let on_terminal = io::stdout().is_terminal();
    let mut ended = Ok(());
    for part in at_once(arguments) {
        let key = |argument| cache.key_of(&called, argument);
        let keys: Vec<_> = part.iter().map(key).collect();
        for (argument, entry) in part.into_iter().zip(cache.entries(&keys).await?) {
            let Some(entry) = entry else {
                let error = "not in the cache".to_owned();
                let failure = Failure::new(1, format!("{}: {error}", escaped(&argument)));
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
                write!(out, "{}\t", escaped(&argument))?;
            }
            writeln!(out, "{life}")?;
        }
    }
    ended
}
