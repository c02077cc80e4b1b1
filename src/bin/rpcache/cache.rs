//! `rpcache cache`: what Redis holds, without redis-cli.

use std::io::{self, Write as _};
use std::sync::Arc;

use rpcache::fibonacci::Fibonacci;
use rpcache::{Cache, Stored};

use crate::args::{self, CacheAction};
use crate::output::Failure;
use crate::values::Asked;

pub(crate) async fn run(cache: args::Cache) -> Result<(), Failure> {
    let act = async {
        match cache.action {
            CacheAction::Get(args) => get(&Cache::open(args.redis.options()), args.asked).await,
            CacheAction::Ls(args) => ls(&Cache::open(args.redis.options())).await,
            CacheAction::Rm(args) => rm(&Cache::open(args.redis.options()), args.asked).await,
        }
    };
    tokio::select! {
        ended = act => ended,
        Ok(()) = tokio::signal::ctrl_c() => Err(Failure::interrupted()),
    }
}

async fn get(cache: &Cache, asked: Vec<Asked>) -> Result<(), Failure> {
    let many = Asked::are_many(&asked);
    let procedure = Arc::new(Fibonacci::default());
    let mut ended = Ok(());
    for n in asked.into_iter().flat_map(Asked::numbers) {
        let problem = match cache.get(&procedure, &Arc::new(n)).await? {
            Stored::Answer(answer) if many => {
                writeln!(io::stdout(), "{n}\t{answer}")?;
                continue;
            }
            Stored::Answer(answer) => {
                writeln!(io::stdout(), "{answer}")?;
                continue;
            }
            Stored::Refused(found) => format!("{n}: what is stored is not the answer: {found}"),
            _ => format!("{n}: not in the cache"),
        };
        // One that is missing does not keep the others from being printed.
        ended = Err(Failure::new(1, problem).say());
    }
    ended
}

async fn ls(cache: &Cache) -> Result<(), Failure> {
    let mut printed = Ok(());
    let mut stdout = io::stdout().lock();
    cache
        .keys::<Fibonacci>(|key| {
            // Whoever else writes there may have put anything into a key.
            printed = writeln!(stdout, "{}", key.escape_debug());
            printed.is_ok()
        })
        .await?;
    Ok(printed?)
}

async fn rm(cache: &Cache, asked: Vec<Asked>) -> Result<(), Failure> {
    let mut removed: u64 = 0;
    for n in asked.into_iter().flat_map(Asked::numbers) {
        removed += u64::from(cache.remove::<Fibonacci>(&n).await?);
    }
    writeln!(io::stdout(), "removed {removed}")?;
    Ok(())
}
