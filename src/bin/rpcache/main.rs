//! The command `rpcache`: parses what was typed, runs one subcommand, ends with its exit code.
//!
//! It uses the library's public API only. stdout carries answers and nothing else; all the rest goes
//! to stderr.

mod answer;
mod args;
mod bench;
mod cache;
mod call;
mod completions;
mod core_dump;
mod doctor;
mod endpoint;
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
    let args = match Args::parse_typed() {
        Ok(args) => args,
        Err(error) => return output::usage(&error),
    };
    let telemetry = Telemetry::of(&args);
    let log = Log::start(&args, telemetry.layers());
    telemetry.say_what_is_wrong();
    let ended = match args.command {
        Command::Worker(worker) => {
            on_threads(&mut Builder::new_current_thread(), || worker::run(worker))
        }
        Command::Warm(warm) => on_threads(Builder::new_multi_thread().worker_threads(2), || {
            warm::run(warm)
        }),
        Command::Call(call) => match call.target.inputs(&call.arguments) {
            Err(misuse) => Err(misuse),
            // A reader of stdout may pause: that must not stop what keeps the connections alive.
            Ok(inputs) if inputs.are_many() => {
                on_threads(Builder::new_multi_thread().worker_threads(2), || {
                    call::run(call, inputs, None)
                })
            }
            // It mostly waits, and one thread starts faster.
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
    telemetry.end();
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => log.last_word(failure),
    }
}

/// Not inlined, and it is what makes the future: the frame of `main` would have room for those of all
/// commands, which a call would touch page by page.
#[inline(never)]
fn on_threads<F>(threads: &mut Builder, run: impl FnOnce() -> F) -> Result<(), Failure>
where
    F: Future<Output = Result<(), Failure>>,
{
    // All that connect to anything come by here.
    core_dump::forbid();
    names::warn_of_modules();
    let runtime = threads.enable_all().build();
    let runtime = runtime.map_err(|error| Failure::no_runtime(&error))?;
    let ended = runtime.block_on(run());
    // It ends with the process. A computation that was cancelled a moment ago may still look away
    // from its flag, and a connection that lapin was making would panic over the end of its task.
    std::mem::forget(runtime);
    ended
}
