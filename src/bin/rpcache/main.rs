//! The command `rpcache`: parses the command line, runs one subcommand, ends with its exit code.
//!
//! It uses the library's public API only. stdout carries answers and reports; messages and the log go to stderr.

mod answer;
mod args;
mod bench;
mod cache;
mod call;
mod completions;
mod core_dump;
mod doctor;
mod endpoint;
mod guard;
mod health;
mod input;
mod interrupt;
mod log;
mod man;
mod names;
mod output;
mod procedure;
mod progress;
mod stderr;
mod telemetry;
mod text;
mod timeline;
mod top;
mod values;
mod warm;
mod worker;

use std::process::ExitCode;

use tokio::runtime::Builder;

use crate::args::{Args, Command};
use crate::log::Log;
use crate::output::Failure;
use crate::telemetry::Telemetry;

fn main() -> ExitCode {
    if guard::is_wanted() {
        return guard::run();
    }
    let args = match Args::parse_typed() {
        Ok(args) => args,
        Err(error) => return output::usage(&error),
    };
    let telemetry = Telemetry::of(&args);
    let log = Log::start(&args, telemetry.layers());
    #[cfg(feature = "otel")]
    telemetry.warn_of_invalid_variables();
    let ended = match args.command {
        Command::Worker(worker) => {
            on_threads(&mut Builder::new_current_thread(), || worker::run(worker))
        }
        Command::Warm(warm) => on_threads(Builder::new_multi_thread().worker_threads(2), || {
            warm::run(warm)
        }),
        Command::Call(call) => match call.arguments.inputs() {
            Err(misuse) => Err(misuse),
            // A second thread keeps the connections alive while a slow reader of stdout blocks the first.
            Ok(inputs) if inputs.are_many() => {
                on_threads(Builder::new_multi_thread().worker_threads(2), || {
                    call::run(call, inputs, None)
                })
            }
            // One thread starts faster, and a single call mostly waits.
            Ok(inputs) => on_threads(&mut Builder::new_current_thread(), || {
                call::run(call, inputs, telemetry.timeline.clone())
            }),
        },
        Command::Bench(bench) => on_threads(&mut Builder::new_multi_thread(), || bench::run(bench)),
        Command::Cache(cache) => {
            on_threads(&mut Builder::new_current_thread(), || cache::run(cache))
        }
        Command::Doctor(doctor) => {
            on_threads(&mut Builder::new_current_thread(), || doctor::run(doctor))
        }
        Command::Top(top) => on_threads(&mut Builder::new_current_thread(), || top::run(top)),
        Command::Health(health) => {
            on_threads(&mut Builder::new_current_thread(), || health::run(health))
        }
        Command::Completions(completions) => completions::run(&completions),
        Command::Man(man) => man::run(&man),
    };
    #[cfg(feature = "otel")]
    telemetry.shut_down();
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => log.report(failure),
    }
}

/// Runs a command's future on a Tokio runtime.
///
/// Not inlined, and the future is made here: otherwise the stack frame of `main` has room for the futures of all
/// commands, and a call touches every page of it.
#[inline(never)]
fn on_threads<F>(threads: &mut Builder, run: impl FnOnce() -> F) -> Result<(), Failure>
where
    F: Future<Output = Result<(), Failure>>,
{
    // Every command that connects to a server passes here.
    core_dump::forbid();
    names::warn_of_modules();
    let runtime = threads.enable_all().build();
    let runtime = runtime.map_err(|error| Failure::no_runtime(&error))?;
    let ended = runtime.block_on(run());
    // Leaked: dropping it would wait for a cancelled computation that has not checked its flag yet, and would
    // make lapin panic if it is opening a connection.
    std::mem::forget(runtime);
    ended
}
