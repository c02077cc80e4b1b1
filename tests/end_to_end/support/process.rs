//! The programs under test, as processes: with the environment that the test gives, killed when dropped, their
//! output in files.

use super::{lifetime, wait};
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};
use tokio::io::AsyncWriteExt as _;
use tokio::process::{Child, Command};

/// A command that is about to be started.
pub(crate) struct Program {
    command: Command,
    stdout: Option<std::io::PipeWriter>,
    stderr: Option<std::io::PipeWriter>,
}

impl Program {
    /// The command `rpcache`, with an empty environment.
    pub(crate) fn rpcache(arguments: &[&str]) -> Self {
        Self::new(env!("CARGO_BIN_EXE_rpcache"), arguments).cleared()
    }

    /// An example of this package, with an empty environment.
    pub(crate) fn example(name: &str, arguments: &[&str]) -> Self {
        let binaries = PathBuf::from(env!("CARGO_BIN_EXE_rpcache"));
        let example = binaries.with_file_name("examples").join(name);
        assert!(
            example.exists(),
            "example {name} is not built: cargo build --examples, or scripts/test, does that"
        );
        Self::new(&example.to_string_lossy(), arguments).cleared()
    }

    /// A line for the shell; `$RPCACHE` is the command `rpcache`.
    pub(crate) fn shell(line: &str) -> Self {
        Self::new("sh", &["-c", line])
            .cleared()
            .env("RPCACHE", env!("CARGO_BIN_EXE_rpcache"))
    }

    /// Any other program, with the environment of the tests.
    pub(crate) fn new(program: &str, arguments: &[&str]) -> Self {
        let mut command = Command::new(program);
        command
            .args(arguments)
            .process_group(lifetime::group())
            .stdin(Stdio::null())
            .kill_on_drop(true);
        Self {
            command,
            stdout: None,
            stderr: None,
        }
    }

    fn cleared(mut self) -> Self {
        self.command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default());
        self
    }

    pub(crate) fn env(mut self, name: &str, value: &str) -> Self {
        self.command.env(name, value);
        self
    }

    /// With a pipe of the test's as stdout.
    pub(crate) fn stdout_to(mut self, pipe: std::io::PipeWriter) -> Self {
        self.stdout = Some(pipe);
        self
    }

    /// With a pipe of the test's as stderr.
    pub(crate) fn stderr_to(mut self, pipe: std::io::PipeWriter) -> Self {
        self.stderr = Some(pipe);
        self
    }

    /// With an open stdin, for [`Process::feed`].
    pub(crate) fn fed(mut self) -> Self {
        self.command.stdin(Stdio::piped());
        self
    }

    pub(crate) fn start(mut self) -> Process {
        let folder = lifetime::folder("process");
        let file = |name: &str| {
            std::fs::File::create(folder.join(name)).expect("the run's folder is ours")
        };
        let stdout = match self.stdout.take() {
            Some(pipe) => Stdio::from(pipe),
            None => Stdio::from(file("stdout")),
        };
        let stderr = match self.stderr.take() {
            Some(pipe) => Stdio::from(pipe),
            None => Stdio::from(file("stderr")),
        };
        let child = self
            .command
            .stdout(stdout)
            .stderr(stderr)
            .spawn()
            .unwrap_or_else(|error| {
                panic!("{}: {error}", self.command.as_std().get_program().display())
            });
        Process {
            child,
            folder,
            started: Instant::now(),
        }
    }

    /// Starts it and waits for its end.
    pub(crate) async fn run(self) -> Finished {
        self.start().finish().await
    }
}

/// A running process, killed when dropped.
pub(crate) struct Process {
    child: Child,
    folder: PathBuf,
    started: Instant,
}

impl Process {
    pub(crate) fn stdout(&self) -> String {
        self.read("stdout")
    }

    pub(crate) fn stderr(&self) -> String {
        self.read("stderr")
    }

    fn read(&self, name: &str) -> String {
        let bytes = match std::fs::read(self.folder.join(name)) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(), // a pipe
            bytes => bytes.expect("the run's folder is ours"),
        };
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Writes to its stdin.
    pub(crate) async fn feed(&mut self, text: &str) {
        let stdin = self.child.stdin.as_mut().expect("its stdin is open");
        let fed = stdin.write_all(text.as_bytes()).await;
        fed.expect("it reads its stdin");
    }

    /// Closes its stdin.
    pub(crate) fn close_stdin(&mut self) {
        self.child.stdin = None;
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id().expect("it has not been waited for")
    }

    /// Its resident memory now, in MB.
    pub(crate) fn memory_mb(&self) -> f64 {
        let status =
            std::fs::read_to_string(format!("/proc/{}/status", self.id())).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kb = line.and_then(|line| line.split_whitespace().next());
        kb.and_then(|kb| kb.parse::<f64>().ok())
            .expect("a number of kB")
            / 1000.0
    }

    pub(crate) fn signal(&self, name: &str) {
        signal(name, self.id());
    }

    pub(crate) fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Waits until it has printed `text` on stderr.
    pub(crate) async fn says(&self, text: &str) {
        wait::wait_until(&format!("stderr contains {text:?}"), async || {
            self.stderr().contains(text)
        })
        .await;
    }

    /// Waits for its end.
    pub(crate) async fn finish(mut self) -> Finished {
        let Ok(status) = tokio::time::timeout(wait::PATIENCE, self.child.wait()).await else {
            panic!(
                "it does not end; it printed {:?} and {:?}",
                self.stdout(),
                self.stderr()
            );
        };
        Finished {
            code: status.expect("it can be waited for").code(),
            stdout: self.stdout(),
            stderr: self.stderr(),
            took: self.started.elapsed(),
        }
    }

    /// Sends SIGTERM, as a service manager does, and waits for its end.
    pub(crate) async fn terminate(self) -> Finished {
        self.signal("TERM");
        self.finish().await
    }
}

impl Drop for Process {
    /// Prints its output if the test is about to fail.
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!(
                "a process printed {:?} and on stderr:\n{}",
                self.stdout(),
                self.stderr()
            );
        }
    }
}

/// The result of a process that has ended.
#[derive(Debug)]
pub(crate) struct Finished {
    /// `None`: a signal ended it.
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) took: Duration,
}

impl Finished {
    /// Fails unless it succeeded and printed exactly `stdout`.
    #[track_caller]
    pub(crate) fn answers(&self, stdout: &str) {
        assert!(
            self.code == Some(0) && self.stdout == stdout,
            "not {stdout:?}: {self:#?}"
        );
    }

    /// Fails unless it ended with this exit code, an empty stdout, and one clear line on stderr that contains
    /// `reason`.
    #[track_caller]
    pub(crate) fn refuses(&self, code: i32, reason: &str) {
        assert_eq!(self.code, Some(code), "{self:#?}");
        assert_eq!(self.stdout, "", "{self:#?}");
        self.has_one_clear_line(reason);
    }

    /// Fails unless its stderr is one line in plain characters that contains `reason`, and not a panic.
    #[track_caller]
    pub(crate) fn has_one_clear_line(&self, reason: &str) {
        let line = self
            .stderr
            .strip_suffix('\n')
            .unwrap_or_else(|| panic!("no line: {self:#?}"));
        assert!(
            !line.is_empty() && !line.contains(char::is_control),
            "not one plain line: {self:#?}"
        );
        for trace in ["panicked", "RUST_BACKTRACE", "stack backtrace"] {
            assert!(!line.contains(trace), "{self:#?}");
        }
        assert!(
            line.contains(reason),
            "it does not say {reason:?}: {self:#?}"
        );
    }
}

/// Sends a signal with the shell's `kill`: the crate forbids unsafe code.
pub(crate) fn signal(name: &str, process: u32) {
    let sent = std::process::Command::new("sh")
        .args([
            "-c",
            r#"kill -s "$1" "$2""#,
            "kill",
            name,
            &process.to_string(),
        ])
        .status();
    assert!(
        sent.is_ok_and(|status| status.success()),
        "no process {process} to send SIG{name} to"
    );
}
