//! `rpcache cache get`: answers, from Redis alone.

use std::io::{self, Write as _};
use std::sync::Arc;

use rpcache::fibonacci::Fibonacci;
use rpcache::{Cache, Stored};
use serde::Serialize;

use super::{Problem, json};
use crate::args::CacheGet;
use crate::output::Failure;
use crate::values::Asked;

#[derive(Serialize)]
struct Answer<'a> {
    argument: String,
    answer: &'a str,
}

pub(super) async fn run(args: CacheGet) -> Result<(), Failure> {
    let cache = Cache::open(args.redis.options());
    let many = Asked::are_many(&args.asked);
    let procedure = Arc::new(Fibonacci::default());
    let mut out = io::stdout().lock();
    let mut ended = Ok(());
    for n in args.asked.into_iter().flat_map(Asked::numbers) {
        let (argument, error) = match cache.get(&procedure, &Arc::new(n)).await? {
            Stored::Answer(answer) => {
                match (args.json, many) {
                    (true, _) => {
                        let (argument, answer) = (n.to_string(), answer.as_str());
                        json(&mut out, &Answer { argument, answer })?;
                    }
                    (false, true) => writeln!(out, "{n}\t{answer}")?,
                    (false, false) => writeln!(out, "{answer}")?,
                }
                continue;
            }
            Stored::Refused(found) => {
                let error = format!("what is stored is not the answer: {found}");
                (n.to_string(), error)
            }
            _ => (n.to_string(), "not in the cache".to_owned()),
        };
        // One that is missing does not keep the others from being printed.
        let failure = Failure::new(1, format!("{argument}: {error}"));
        ended = Err(if args.json {
            json(&mut out, &Problem { argument, error })?;
            failure.told()
        } else {
            failure.say()
        });
    }
    ended
}
