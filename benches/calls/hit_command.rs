//! `hit-command`: one hit by one process, against the minimal process for it.

use std::fs;

use crate::options::Options;
use crate::processes::{Copies, command, milliseconds, prints};
use crate::support::redis::Redis;
use crate::table::{Goal, Table};

const ROUNDS: usize = 300;

pub(crate) async fn run(options: &Options, table: &mut Table) {
    let redis = Redis::start();
    redis.set("fib:30", "832040").await;
    let url = redis.url();
    let port = url
        .trim_end_matches('/')
        .rsplit(':')
        .next()
        .expect("a port");
    let copies = Copies::new();
    let program = copies.copy(env!("CARGO_BIN_EXE_rpcache"));
    let minimal = copies.copy(&options.raw_get);
    let mut ours = command(&program, &["call", "30", "--redis-url", &url]);
    let mut raw = command(&minimal, &[&url, "fib:30"]);
    let mut redis_cli = command("redis-cli", &["-p", port, "GET", "fib:30"]);
    let mut help = command(&program, &["--help"]);
    for command in [&mut ours, &mut raw, &mut redis_cli] {
        prints(command, "832040");
    }
    let mut times = [(); 4].map(|()| Vec::new());
    for _ in 0..ROUNDS {
        for (times, command) in
            times
                .iter_mut()
                .zip([&mut ours, &mut raw, &mut redis_cli, &mut help])
        {
            times.push(milliseconds(command));
        }
    }
    let [ours, raw, redis_cli, help] = times;
    let what = "rpcache call 30";
    table.add(
        format!("{what}, against connect and GET"),
        "ms",
        (&ours, &raw),
        Goal::AtMost(1.3),
    );
    table.add(
        format!("{what}, against redis-cli GET"),
        "ms",
        (&ours, &redis_cli),
        Goal::AtMost(0.5),
    );
    table.at_most("rpcache --help", "ms", &help, 3.0);
    let size = fs::metadata(&program).expect("the command").len();
    let megabytes = f64::from(u32::try_from(size / 1024).expect("less than 4 TB")) / 1024.0;
    table.at_most("size of the command", "MB", &[megabytes], 8.0);
}
