//! Measures calls through rpcache against the libraries below it: `scripts/bench NAME`.
//!
//! The servers are private, the workers are processes. Our side and the limit take turns, so that other load of
//! the machine affects both alike; the result is their ratio within one run. This program is also the worker
//! and the raw client of its runs: see [`role`].

#![expect(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "a run that cannot go on ends by panicking"
)]

mod batch;
mod capacity;
mod cpu;
mod echo;
mod fleet;
mod hit;
mod hit_command;
mod large;
mod local;
mod miss;
mod miss_command;
mod open_loop;
mod options;
mod prepared;
mod processes;
mod queued;
mod raw;
mod role;
mod scaling;
mod servers;
mod slow;
mod stampede;
mod support;
mod table;
mod tasks;
mod worker;

use options::Options;
use servers::Servers;
use table::Table;
use tokio::runtime::Builder;

fn main() {
    if role::played() {
        return;
    }
    let runtime = Builder::new_multi_thread().enable_all().build();
    runtime.expect("a runtime").block_on(async {
        let options = Options::parse(std::env::args().skip(1));
        let mut table = Table::default();
        match options.name.as_str() {
            "hit" => hit::run(&mut table).await,
            "local" => local::run(&mut table).await,
            "miss" => miss::run(&mut table).await,
            "large" => large::run(&mut table).await,
            "scaling" => scaling::run(&mut table).await,
            "queued" => queued::run(&mut table).await,
            "open-loop" => open_loop::run(&mut table).await,
            "stampede" => stampede::run(&mut table).await,
            "hit-command" => hit_command::run(&options, &mut table).await,
            "miss-command" => miss_command::run(&options, &mut table).await,
            "batch" => batch::run(&mut table).await,
            "worker" => worker::run(&mut table).await,
            "capacity" => capacity::run(&Servers::start(), &mut table).await,
            "capacity-cluster" => {
                capacity::run(&Servers::with_clusters().await, &mut table).await;
            }
            "fleet" => fleet::run(&mut table).await,
            name => panic!("no such measurement: {name}"),
        }
        table.print();
        options.write(&table);
    });
}
