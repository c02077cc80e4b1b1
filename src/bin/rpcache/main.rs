//! The command `rpcache`: parses what was typed, runs one subcommand, ends with its exit code.
//!
//! It uses the library's public API only. stdout carries answers and nothing else; all the rest goes
//! to stderr.

mod args;
mod cache;
mod call;
mod output;
mod worker;

use std::process::ExitCode;

use clap::Parser;

use crate::args::{Args, Command};
use crate::output::Failure;

fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => return output::usage(&error),
    };
    output::log_to_stderr(&args.command, args.verbose);
    let ended = match args.command {
        Command::Worker(worker) => on_threads(|| worker::run(worker)),
        Command::Call(call) => on_one_thread(call::run(call)),
        Command::Cache(cache) => on_one_thread(cache::run(cache)),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

/// A worker computes beside serving.
fn on_threads<F: Future<Output = Result<(), Failure>>>(
    run: impl FnOnce() -> F,
) -> Result<(), Failure> {
    let runtime = tokio::runtime::Runtime::new().map_err(|error| Failure::no_runtime(&error))?;
    let ended = runtime.block_on(run());
    // A computation that was cancelled a moment ago may still look away from its flag.
    runtime.shutdown_background();
    ended
}

/// A caller mostly waits; one thread starts faster.
fn on_one_thread(run: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::no_runtime(&error))?;
    let ended = runtime.block_on(run);
    runtime.shutdown_background();
    ended
}
