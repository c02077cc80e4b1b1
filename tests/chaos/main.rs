//! The fault campaign: `scripts/chaos --help`.
//!
//! Real worker and client processes between a private RabbitMQ and a private Redis, or several of each, faults drawn
//! from a seed, and an oracle that judges every call: it must end in the right answer or a typed error by
//! its deadline. The path of a run: `args` → `plan` (which fault when) → `campaign` (the run) →
//! `fleet` (processes and links) → `inject` (faults and repairs) beside `clients` (processes that call,
//! `client`) → `ledger` (judges calls by `oracle` and `timeline`) → `shutdown` (finds leaks) → `report`.

#![expect(
    clippy::expect_used,
    reason = "a run that cannot go on ends by panicking"
)]

mod args;
mod broker;
mod call;
mod campaign;
mod client;
mod client_process;
mod clients;
mod cluster;
mod computed;
mod crasher;
mod crasher_process;
mod excuse;
mod fault;
mod fleet;
mod haproxy;
mod hostile;
mod inject;
mod ledger;
mod links;
mod oracle;
mod pauses;
mod plan;
mod progress;
mod proxy;
mod redis_server;
mod redis_set;
mod report;
mod role;
mod self_test;
mod servers;
mod shutdown;
mod stall;
mod support;
mod table;
mod tap;
mod timeline;
mod usage;
mod worker;

use std::process::ExitCode;

use args::{Args, Role};
use fault::Selection;
use report::Report;

fn main() -> ExitCode {
    let args = Args::parse_with_help();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        // Several blocking calls to servers at once.
        .worker_threads(4)
        .enable_all()
        .build()
        .expect("a runtime");
    match args.role {
        Some(Role::Client(client)) => {
            runtime.block_on(client::run(client));
            return ExitCode::SUCCESS;
        }
        Some(Role::Crasher(crasher)) => {
            role::log_to_stderr();
            return if runtime.block_on(crasher::serve(crasher)) {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            };
        }
        None => {}
    }
    let seed = args.seed.unwrap_or_else(|| fastrand::u64(0..1 << 32));
    if let Some(fault) = args.cluster {
        return match runtime.block_on(cluster::run(&args, fault, seed)) {
            Ok(row) => {
                println!("{row}");
                ExitCode::SUCCESS
            }
            Err(problem) => {
                eprintln!("not measured: {problem}");
                ExitCode::from(2)
            }
        };
    }
    if args.plan {
        print!("{}", plan::print(&args.plan(seed)));
        return ExitCode::SUCCESS;
    }
    eprintln!(
        "seed {seed}: {} s, faults: {}",
        args.length().as_secs_f64(),
        Selection(args.selected())
    );
    match runtime.block_on(async { campaign::run(&args, seed).await }) {
        Ok(report) => judge(&args, &report),
        Err(problem) => {
            eprintln!("the campaign failed: {problem}");
            ExitCode::from(2)
        }
    }
}

fn judge(args: &Args, report: &Report) -> ExitCode {
    print!("{}", table::of(report));
    if let Some(path) = &args.json {
        let text = format!("{:#}\n", report.json(args));
        std::fs::write(path, text).unwrap_or_else(|error| eprintln!("{}: {error}", path.display()));
    }
    let failures = report.failures();
    if failures.is_empty() {
        println!("Nothing was wrong, lost, late, broken or leaked.");
        return ExitCode::SUCCESS;
    }
    for failure in &failures {
        println!("{failure}");
    }
    println!("Again: {}", args.again(report.seed));
    ExitCode::FAILURE
}
