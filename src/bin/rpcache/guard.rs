//! `rpcache worker -- COMMAND` is two processes, so that no process of a program outlives the worker, however it ends.
//!
//! The guard is the process that the user starts. It starts the worker, passes signals on, waits for its end, kills all
//! processes that are left, and ends with the exit code of the worker. It does nothing else, so nothing else can end
//! it. As a child subreaper it becomes the parent of what a killed worker leaves.
//!
//! A pipe connects both: stdin of the worker. The guard writes a byte for each signal that asks the worker to stop. Its
//! end says that the guard was killed; then the worker kills all processes of its programs, and ends.

use std::ffi::OsString;
use std::io::{self, Read as _, Write as _};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio, exit};
use std::{env, thread};

use rpcache::program;
use rustix::process::{Pid, Signal, WaitOptions, getpid, kill_process, wait};
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGTERM, SIGTSTP};
use signal_hook::iterator::Signals;

use crate::core_dump;
use crate::output::Failure;

/// Set in the worker that a guard has started.
const GUARDED: &str = "RPCACHE_GUARDED";

/// Whether this process must be the guard of a worker that runs a program.
///
/// Decided without parsing the command line, which reads files with passwords: the worker reads them, and a pipe can be
/// read only once.
pub(crate) fn is_wanted() -> bool {
    env::var_os(GUARDED).is_none() && runs_program(env::args_os().skip(1))
}

fn runs_program(mut arguments: impl Iterator<Item = OsString>) -> bool {
    // The only option before a subcommand that has a value.
    let mut is_value = false;
    let subcommand = arguments.find(|argument| {
        let is_option = is_value || argument.as_encoded_bytes().starts_with(b"-");
        is_value = argument == "--log-format";
        !is_option
    });
    let is_worker = subcommand.is_some_and(|subcommand| subcommand == "worker");
    is_worker && arguments.any(|argument| argument == "--") && arguments.next().is_some()
}

/// Guards a worker until its end.
pub(crate) fn run() -> ExitCode {
    core_dump::forbid();
    match guard() {
        Ok(status) => {
            program::end_all();
            let code = status
                .code()
                .unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
            ExitCode::from(u8::try_from(code).unwrap_or(1))
        }
        Err(error) => {
            program::end_all();
            Failure::new(1, format!("cannot run a worker for programs: {error}")).report()
        }
    }
}

fn guard() -> io::Result<ExitStatus> {
    program::adopt_orphans()?;
    let mut arguments = env::args_os();
    let name = arguments.next().unwrap_or_else(|| "rpcache".into());
    // The same file, even if another one has its name by now.
    let mut worker = Command::new("/proc/self/exe")
        .arg0(name)
        .args(arguments)
        .env(GUARDED, "1")
        .stdin(Stdio::piped())
        // A shell kills a job by its process group. If that killed both processes, the programs would go on.
        .process_group(0)
        .spawn()?;
    // After the start: the worker inherits which signals are ignored, as nohup wants it.
    let mut signals = Signals::new([SIGCHLD, SIGHUP, SIGINT, SIGTERM, SIGTSTP])?;
    let worker_pid = i32::try_from(worker.id()).ok().and_then(Pid::from_raw);
    // It may have ended before the first SIGCHLD was listened for.
    let mut ended = reaped(worker_pid);
    while ended.is_none() {
        for signal in signals.wait() {
            match signal {
                SIGTERM | SIGINT => ask_to_stop(&mut worker),
                SIGHUP => send(worker_pid, Signal::HUP),
                // Ctrl-Z stops both, until the shell continues this one.
                SIGTSTP => {
                    send(worker_pid, Signal::STOP);
                    send(Some(getpid()), Signal::STOP);
                    send(worker_pid, Signal::CONT);
                }
                _ => {}
            }
        }
        ended = reaped(worker_pid);
    }
    ended.ok_or_else(|| io::Error::other("the worker has no exit code"))
}

fn ask_to_stop(worker: &mut Child) {
    if let Some(stdin) = &mut worker.stdin {
        // One that has ended cannot be asked.
        let _ = stdin.write_all(b"s");
    }
}

fn send(process: Option<Pid>, signal: Signal) {
    if let Some(pid) = process {
        // It may have ended: SIGCHLD says so.
        let _ = kill_process(pid, signal);
    }
}

/// Reaps all children that have ended: adopted ones, and the worker, whose status is returned.
fn reaped(worker: Option<Pid>) -> Option<ExitStatus> {
    let mut ended = None;
    while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
        if Some(pid) == worker {
            ended = Some(ExitStatus::from_raw(status.as_raw()));
        }
    }
    ended
}

/// In the worker: prepares this process for programs, and listens to its guard. Calls `on_stop` for each signal that asks
/// the worker to stop, on a thread of its own.
pub(crate) fn watch(on_stop: impl Fn() + Send + 'static) -> Result<(), Failure> {
    let no_programs = |error: io::Error| Failure::new(1, format!("cannot run programs: {error}"));
    // Files with passwords were read from them, and programs must not inherit them.
    close_fds::set_fds_cloexec(3, &[]);
    program::adopt_orphans().map_err(no_programs)?;
    let listen = move || {
        let mut stdin = io::stdin().lock();
        let mut byte = [0];
        // An error is an end as well: without its guard, the worker must not go on.
        while stdin.read_exact(&mut byte).is_ok() {
            on_stop();
        }
        program::end_all();
        exit(1);
    };
    let thread = thread::Builder::new().name("guard".to_owned());
    thread.spawn(listen).map_err(no_programs)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_worker_with_a_program_is_guarded() {
        let runs = |line: &str| runs_program(line.split_whitespace().map(Into::into));
        for line in [
            "worker -- cat",
            "-vv worker --procedure sha -- cat {}",
            "--log-format json worker --try x -- cat -- {}",
            "--log-format=json worker -- --",
        ] {
            assert!(runs(line), "{line}");
        }
        for line in [
            "",
            "worker",
            "worker --",
            "call -- worker",
            "cache rm worker -- x",
            "--log-format worker -- x",
        ] {
            assert!(!runs(line), "{line}");
        }
    }
}
