//! `batch`: `call 0..LAST`, all hits, against MGETs of equal sizes by redis-rs alone; also the rate of storing all
//! of it, and the memory of the client.

use std::io::{BufWriter, Write as _};
use std::process::Command;
use std::time::{Duration, Instant};

use futures_util::{StreamExt as _, stream};

use crate::processes::{command, memory, rpcache};
use crate::servers::Servers;
use crate::table::{Goal, Table};

const LAST: u32 = 99_999;
const ROUNDS: usize = 3;

/// The batches of our client: two commands at once, each of at most 256 keys and half a megabyte.
const AT_ONCE: usize = 2;
const MOST_KEYS: f64 = 256.0;
const CHUNK_BYTES: f64 = 512.0 * 1024.0;
const DIGITS_EACH: f64 = 0.209;

pub(crate) async fn run(table: &mut Table) {
    let servers = Servers::start();
    // Answers that were not stored in time would be misses below.
    let patient = ["--cache-budget", "10s"];
    let _worker = servers.workers(1, &patient).await;
    let range = format!("0..{LAST}");
    let (amqp, redis) = (servers.amqp_url(), servers.redis.url());
    let servers_named = [
        "--amqp-url",
        &amqp,
        "--redis-url",
        &redis,
        "--timeout",
        "60s",
    ];
    let answers = f64::from(LAST) + 1.0;

    let mut warm = rpcache(&[&["warm", &range], &servers_named[..], &patient].concat());
    let (took, _) = measured(&mut warm).await;
    table.info("warm, cold: answers stored", "1/s", &[answers / took]);

    let program = std::env::current_exe().expect("this program");
    let last = LAST.to_string();
    let (mut ours, mut limit, mut most) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let mut call = rpcache(&[&["call", &range], &servers_named[..]].concat());
        let (took, memory) = measured(&mut call).await;
        ours.push(answers / took);
        most.push(memory);
        let mut mget = command(&program, &["role", "mget", &last]);
        let (took, _) = measured(mget.env("REDIS_URL", &redis).env("AMQP_URL", &amqp)).await;
        limit.push(answers / took);
    }
    table.add(
        format!("call {range}, all hits, against MGET"),
        "1/s",
        (&ours, &limit),
        Goal::AtLeast(0.7),
    );
    table.info("its peak memory", "MB", &most);
}

/// The duration in seconds, and the peak memory in MB.
async fn measured(command: &mut Command) -> (f64, f64) {
    let start = Instant::now();
    let mut process = command.spawn().expect("it can be started");
    let mut most = 0.0;
    loop {
        most = memory(process.id(), "VmHWM").unwrap_or(most);
        if let Some(status) = process.try_wait().expect("it is ours") {
            assert!(status.success(), "{command:?}: {status}");
            return (start.elapsed().as_secs_f64(), most);
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// The role `mget`: prints the values of all keys.
pub(crate) async fn print_all(url: &str, last: u32) {
    let redis = redis::Client::open(url).expect("a URL");
    let connection = redis.get_multiplexed_async_connection().await;
    let connection = connection.expect("Redis answers");
    let mut first = 0;
    let chunks = std::iter::from_fn(|| {
        let keys = CHUNK_BYTES / (f64::from(first) * DIGITS_EACH + 1.0);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "from 1 to 256"
        )]
        let next = first + keys.clamp(1.0, MOST_KEYS) as u32;
        let chunk = first..next.min(last + 1);
        first = next;
        (!chunk.is_empty()).then_some(chunk)
    });
    let gets = chunks.map(|chunk| {
        let mut connection = connection.clone();
        async move {
            let mut mget = redis::cmd("MGET");
            for n in chunk {
                mget.arg(format!("fib:{n}"));
            }
            let found: Vec<String> = mget.query_async(&mut connection).await.expect("answers");
            found
        }
    });
    let mut out = BufWriter::new(std::io::stdout().lock());
    let mut found = std::pin::pin!(stream::iter(gets).buffered(AT_ONCE));
    while let Some(answers) = found.next().await {
        for answer in answers {
            writeln!(out, "{answer}").expect("stdout");
        }
    }
}
