//! `rpcache cache get`: prints stored answers. It asks Redis only, and no worker.

use std::io::{self, IsTerminal as _, Write as _};
use std::sync::Arc;

use rpcache::Cache;
use rpcache::inspect::Stored;
use serde::Serialize;

use super::{Problem, are_many, json};
use crate::answer::{self, AnswerJson, escaped};
use crate::args::CacheGet;
use crate::output::Failure;

#[derive(Serialize)]
struct Answer<'a> {
    argument: &'a str,
    #[serde(flatten)]
    answer: AnswerJson<'a>,
}

pub(super) async fn run(args: CacheGet) -> Result<(), Failure> {
    let (called, arguments) = args.arguments.read()?;
    let cache = Cache::open(args.redis.options());
    let many = are_many(&arguments);
    let procedure = Arc::new(called);
    let mut out = io::stdout().lock();
    let on_terminal = io::stdout().is_terminal();
    let mut ended = Ok(());
    for argument in arguments.into_iter().flatten().map(Arc::new) {
        let error = match cache.get(&procedure, &argument).await? {
            Stored::Answer(answer) => {
                let label = escaped(&argument);
                match (args.json, many) {
                    (true, _) => {
                        let (argument, answer) = (&argument, AnswerJson::of(&answer));
                        json(&mut out, &Answer { argument, answer })?;
                    }
                    (false, true) => writeln!(out, "{label}\t{}", answer::in_a_line(&answer))?,
                    (false, false) => answer::write(&mut out, &answer, on_terminal)?,
                }
                continue;
            }
            Stored::Refused(found) => format!("what is stored is not the answer: {found}"),
            _ => "not in the cache".to_owned(),
        };
        // The others are printed, too.
        let failure = Failure::new(1, format!("{}: {error}", escaped(&argument)));
        let argument = argument.to_string();
        ended = Err(if args.json {
            json(&mut out, &Problem { argument, error })?;
            failure.without_message()
        } else {
            failure.print()
        });
    }
    ended
}
