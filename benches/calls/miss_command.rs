//! `miss-command`: one miss by one process, against one RPC by lapin alone to the same worker.

use crate::options::Options;
use crate::processes::{Copies, command, milliseconds, prints};
use crate::servers::Servers;
use crate::table::{Goal, Table};

/// Each uses four new arguments up to 1000, which are all cheap.
const ROUNDS: usize = 250;

pub(crate) async fn run(options: &Options, table: &mut Table) {
    let servers = Servers::start();
    let _worker = servers.workers(1, &[]).await;
    let (amqp, redis) = (servers.amqp_url(), servers.redis.url());
    let small = format!("{amqp}?frame_max=8192");
    let copies = Copies::new();
    let program = copies.copy(env!("CARGO_BIN_EXE_rpcache"));
    let minimal = copies.copy(&options.raw_rpc);
    prints(&mut command(&minimal, &[&amqp, "30"]), "832040");
    prints(&mut command(&minimal, &[&small, "30"]), "832040");
    servers.redis.run::<()>(&["UNLINK", "fib:30"]).await;

    let [mut ours, mut ours_small, mut default, mut small_frames] = [(); 4].map(|()| Vec::new());
    for round in 0..ROUNDS {
        let [a, b, c, d] = [1, 2, 3, 4].map(|i| (4 * round + i).to_string());
        let call = ["call", &a, "--amqp-url", &amqp, "--redis-url", &redis];
        ours.push(milliseconds(&mut command(&program, &call)));
        let call = ["call", &d, "--amqp-url", &small, "--redis-url", &redis];
        ours_small.push(milliseconds(&mut command(&program, &call)));
        default.push(milliseconds(&mut command(&minimal, &[&amqp, &b])));
        small_frames.push(milliseconds(&mut command(&minimal, &[&small, &c])));
    }
    for (flavour, limit) in [("", &default), (", frame_max 8192", &small_frames)] {
        table.add(
            format!("rpcache call N, against lapin{flavour}"),
            "ms",
            (&ours, limit),
            Goal::AtMost(1.2),
        );
    }
    table.add(
        "the same, frame_max 8192 in both URLs",
        "ms",
        (&ours_small, &small_frames),
        Goal::AtMost(1.2),
    );
}
