//! Programs in any language as procedures: a process computes each answer.
//!
//! A [`Program`] is a command line. For each answer a process is started from it, never by a shell. In the order in
//! which a computation meets the files:
//!
//! 1. `command_line` checks the command line, and puts the argument into it.
//! 2. `executable` finds the program's file, and says why it cannot be started.
//! 3. `run` starts the process, writes its stdin, reads stdout and stderr, and ends it when its time is up.
//! 4. `outcome` turns exit code and output into an answer or an error.
//! 5. `processes` knows every process that programs have started, and leaves none behind; `proc` reads what
//!    the kernel says of them.
//!
//! A worker computes by a program after [`Worker::with_program`](crate::Worker::with_program).

mod command_line;
mod executable;
mod outcome;
mod proc;
mod processes;
mod run;

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use self::command_line::CommandLine;
pub use self::processes::{adopt_orphans, end_all};
pub(crate) use self::run::Limits;
use self::run::Stop;
use crate::FOR_EVER;
use crate::error::ErrorCode;
use crate::message::Failure;
use crate::procedure::ComputeError;

/// A program that computes answers, one process for each.
///
/// The process gets the argument and a newline on stdin, or in place of `{}` in the command line. What it writes to
/// stdout is the answer, less one final newline. Exit code 0 is an answer; 64 and 65 are
/// [`ComputeError::BadArgument`], anything else is [`ComputeError::Failed`], with the last line of stderr as message.
///
/// A process has a process group of its own, which is ended with it, and a clean environment: `PATH`, `HOME`, `LANG`,
/// `LC_*`, `TZ`, `TMPDIR`, `PYTHONUNBUFFERED=1`, and the variables that [`ProgramOptions::environment`] names. It runs
/// in the working directory of this process. Processes that leave the group, as daemons do, are ended only after
/// [`adopt_orphans`]. Works on Linux only.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use rpcache::program::{Program, ProgramOptions};
///
/// let program = Program::new(["tr", "a-z", "A-Z"], ProgramOptions::default())?;
/// assert_eq!(program.compute("hello", 1_000_000)?, b"HELLO");
/// # Ok(())
/// # }
/// ```
pub struct Program {
    command: CommandLine,
    environment: Vec<(OsString, OsString)>,
    timeout: Duration,
    stop: Stop,
}

/// Options of a [`Program`].
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ProgramOptions {
    /// How long one computation may take; 60 s by default. Then its processes are ended: SIGTERM, and SIGKILL 2 s
    /// later.
    pub timeout: Duration,
    /// Names of further variables of this process that the program gets. Those that are not set are left out.
    pub environment: Vec<String>,
}

impl Default for ProgramOptions {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(60),
            environment: Vec::new(),
        }
    }
}

/// Why a command line cannot be a [`Program`], and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ProgramError(String);

impl Program {
    /// Checks the command line, and that its program is there and can be started; does not start it.
    ///
    /// # Errors
    ///
    /// [`ProgramError`] says what is wrong and what to write instead.
    pub fn new<W: Into<OsString>>(
        command: impl IntoIterator<Item = W>,
        options: ProgramOptions,
    ) -> Result<Self, ProgramError> {
        let ProgramOptions {
            timeout,
            environment: further,
        } = options;
        let words = command.into_iter().map(Into::into).collect();
        let command = CommandLine::new(words).map_err(ProgramError)?;
        let stop =
            Stop::new().map_err(|error| ProgramError(format!("cannot create a pipe: {error}")))?;
        Ok(Self {
            command,
            environment: environment(std::env::vars_os(), &further),
            timeout: timeout.min(FOR_EVER),
            stop,
        })
    }

    /// Computes one answer of at most `max_size` bytes, and waits until all of its processes have ended. Blocks.
    ///
    /// # Errors
    ///
    /// [`ComputeError::TooLarge`] for a longer answer, the others as described at [`Program`].
    pub fn compute(&self, argument: &str, max_size: usize) -> Result<Vec<u8>, ComputeError> {
        let mut computed = Err(ComputeError::Cancelled);
        let limits = Limits {
            max_size,
            deadline: &|| Instant::now() + FOR_EVER,
        };
        self.run(argument, &limits, |outcome| {
            computed = outcome.map_err(|failure| match failure.code {
                ErrorCode::BadArgument => ComputeError::BadArgument(failure.message),
                ErrorCode::TooLarge => ComputeError::TooLarge(failure.message),
                _ => ComputeError::Failed(failure.message),
            });
        });
        computed
    }

    /// Computes one answer. Calls `reply` as soon as there is an outcome, at the latest when the time is up, and not at
    /// all once the program is [stopped](Self::stop). Returns when all of its processes have ended. Blocks.
    pub(crate) fn run(
        &self,
        argument: &str,
        limits: &Limits<'_>,
        reply: impl FnOnce(Result<Vec<u8>, Failure>),
    ) {
        let words = match self.command.with_argument(argument) {
            Ok(words) => words,
            Err(message) => {
                return reply(Err(Failure {
                    code: ErrorCode::BadArgument,
                    message,
                }));
            }
        };
        let mut command = Command::new(self.command.executable());
        command
            .args(words)
            .env_clear()
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let input = if self.command.reads_stdin() {
            command.stdin(Stdio::piped());
            [argument.as_bytes(), b"\n"].concat()
        } else {
            command.stdin(Stdio::null());
            Vec::new()
        };
        run::run(command, input, self.timeout, limits, &self.stop, reply);
    }

    /// Ends all computations, for good.
    pub(crate) fn stop(&self) {
        self.stop.now();
    }

    /// The file that is started.
    #[must_use]
    pub fn executable(&self) -> &std::path::Path {
        self.command.executable()
    }
}

/// Shows the program's file only: arguments and variables may hold secrets.
impl fmt::Debug for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Program")
            .field("executable", &self.executable())
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}

/// Selects the variables of a program's process: none that this process has for itself.
fn environment(
    variables: impl Iterator<Item = (OsString, OsString)>,
    further: &[String],
) -> Vec<(OsString, OsString)> {
    const BASIC: [&str; 5] = ["PATH", "HOME", "LANG", "TZ", "TMPDIR"];
    const UNBUFFERED: &str = "PYTHONUNBUFFERED";
    let is_named = |name: &OsStr| {
        BASIC.iter().any(|basic| name == *basic)
            || name.as_encoded_bytes().starts_with(b"LC_")
            || further.iter().any(|further| name == further.as_str())
    };
    let mut selected: Vec<_> = variables.filter(|(name, _)| is_named(name)).collect();
    if !selected.iter().any(|(name, _)| name == UNBUFFERED) {
        selected.push((UNBUFFERED.into(), "1".into()));
    }
    selected
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn environment_has_the_basic_variables_and_those_that_are_named() {
        let set = [
            ("PATH", "/bin"),
            ("LC_ALL", "C"),
            ("LCX", "no"),
            ("AMQP_URL", "amqp://u:s3cret@h"),
            ("MODEL", "small"),
            ("PATHS", "no"),
        ];
        let set = || set.iter().map(|(name, value)| (name.into(), value.into()));
        let names = |further: &[&str]| {
            let further: Vec<_> = further.iter().map(ToString::to_string).collect();
            let selected = environment(set(), &further);
            let names = selected
                .into_iter()
                .map(|(name, _)| name.into_string().unwrap());
            names.collect::<Vec<_>>()
        };
        assert_eq!(names(&[]), ["PATH", "LC_ALL", "PYTHONUNBUFFERED"]);
        assert_eq!(
            names(&["MODEL", "NOT_SET"]),
            ["PATH", "LC_ALL", "MODEL", "PYTHONUNBUFFERED"]
        );
    }

    #[test]
    fn program_shows_neither_its_arguments_nor_variables() {
        let program = Program::new(["sh", "-c", "s3cret"], ProgramOptions::default()).unwrap();
        let shown = format!("{program:?}");
        assert!(
            shown.contains("/sh\"") && !shown.contains("s3cret"),
            "{shown}"
        );
    }
}
