//! Times commands from fork to wait, and reads the memory of running processes.

use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use crate::support::lifetime;

/// A command without an environment.
pub(crate) fn command(program: impl AsRef<Path>, arguments: &[&str]) -> Command {
    let mut command = Command::new(program.as_ref());
    command
        .args(arguments)
        .process_group(lifetime::group())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command
}

pub(crate) fn rpcache(arguments: &[&str]) -> Command {
    command(env!("CARGO_BIN_EXE_rpcache"), arguments)
}

/// Programs to be timed, copied into one folder: whether a file came into the page cache from a linker or by a
/// copy changes the time by a sixth.
pub(crate) struct Copies(tempfile::TempDir);

impl Copies {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().expect("a folder"))
    }

    pub(crate) fn copy(&self, program: impl AsRef<Path>) -> PathBuf {
        let program = program.as_ref();
        let copy = self.0.path().join(program.file_name().expect("a file"));
        std::fs::copy(program, &copy).expect("it can be copied");
        copy
    }
}

/// The milliseconds from its start to its end; it must succeed.
pub(crate) fn milliseconds(command: &mut Command) -> f64 {
    let start = Instant::now();
    let status = command.status().expect("it can be started");
    let took = start.elapsed().as_secs_f64() * 1e3;
    assert!(status.success(), "{command:?}: {status}");
    took
}

/// Fails unless it prints this: a program that fails fast must not look fast.
pub(crate) fn prints(command: &mut Command, expected: &str) {
    let output = command
        .stdout(Stdio::piped())
        .output()
        .expect("it can be started");
    command.stdout(Stdio::null());
    let printed = String::from_utf8_lossy(&output.stdout);
    assert_eq!(printed.trim_end(), expected, "{command:?}");
}

/// A line of /proc/PID/status such as `VmRSS`, in MB; `None` when the process has ended.
pub(crate) fn memory(process: u32, line: &str) -> Option<f64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find(|found| found.starts_with(line))?;
    let kilobytes: f64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kilobytes / 1024.0)
}
