//! What the end of a process means: an answer, or a failure with its message. Pure.

use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitStatus;
use std::time::Duration;

use crate::error::ErrorCode;
use crate::message::Failure;
use crate::text::human;

/// The longest message, in bytes.
const MAX_MESSAGE: usize = 1024;

/// How much of the end of stderr is kept: the last line, and empty lines behind it.
const MAX_TAIL: usize = 4 * MAX_MESSAGE;

/// `EX_USAGE` and `EX_DATAERR` of sysexits.h.
const BAD_ARGUMENT: [i32; 2] = [64, 65];

/// The end of what a process wrote to stderr, of bounded size.
#[derive(Debug, Default)]
pub(super) struct Tail(Vec<u8>);

impl Tail {
    pub(super) fn push(&mut self, bytes: &[u8]) {
        let bytes = &bytes[bytes.len().saturating_sub(MAX_TAIL)..];
        self.0.extend_from_slice(bytes);
        if self.0.len() > MAX_TAIL {
            self.0.drain(..self.0.len() - MAX_TAIL);
        }
    }

    /// The last line that is not empty.
    fn last_line(&self) -> Option<String> {
        let lines = self.0.split(|&byte| byte == b'\n').rev();
        let line = lines
            .map(<[u8]>::trim_ascii)
            .find(|line| !line.is_empty())?;
        let line = &line[..line.len().min(MAX_MESSAGE)];
        Some(String::from_utf8_lossy(line).into_owned())
    }
}

/// The outcome of a process that has ended by itself.
pub(super) fn of(
    status: ExitStatus,
    mut stdout: Vec<u8>,
    stderr: &Tail,
) -> Result<Vec<u8>, Failure> {
    if status.success() {
        if stdout.last() == Some(&b'\n') {
            stdout.pop();
        }
        return Ok(stdout);
    }
    let (code, ended) = match status.code() {
        Some(exit) if BAD_ARGUMENT.contains(&exit) => {
            (ErrorCode::BadArgument, format!("exit code {exit}"))
        }
        Some(exit) => (ErrorCode::Failed, format!("exit code {exit}")),
        // Such as "signal: 11 (SIGSEGV)".
        None => (ErrorCode::Failed, status.to_string().replacen(':', "", 1)),
    };
    let message = match stderr.last_line() {
        // A program that is ended by a signal has not explained it.
        Some(line) if status.signal().is_some() => {
            format!("the program was ended by {ended}; its last line: {line}")
        }
        Some(line) => line,
        None if status.signal().is_some() => format!("the program was ended by {ended}"),
        None => format!("the program ended with {ended} and wrote nothing to stderr"),
    };
    Err(Failure { code, message })
}

pub(super) fn too_large(max_size: usize) -> Failure {
    Failure {
        code: ErrorCode::TooLarge,
        message: format!(
            "the program wrote more than the {max_size} bytes that this worker sends at most"
        ),
    }
}

pub(super) fn timed_out(timeout: Duration) -> Failure {
    failed(format!("the program did not end within {}", human(timeout)))
}

pub(super) fn expired() -> Failure {
    Failure {
        code: ErrorCode::Expired,
        message: "the request's time ran out while the program computed".to_owned(),
    }
}

pub(super) fn failed(message: String) -> Failure {
    Failure {
        code: ErrorCode::Failed,
        message,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(raw: i32, stdout: &str, stderr: &str) -> Result<String, (ErrorCode, String)> {
        let mut tail = Tail::default();
        for part in stderr.as_bytes().chunks(7) {
            tail.push(part);
        }
        let outcome = of(ExitStatus::from_raw(raw), stdout.into(), &tail);
        let outcome = outcome.map(|answer| String::from_utf8(answer).unwrap());
        outcome.map_err(|failure| (failure.code, failure.message))
    }

    #[test]
    fn answer_is_stdout_less_one_newline() {
        for (stdout, answer) in [
            ("", ""),
            ("\n", ""),
            ("a", "a"),
            ("a\n\n", "a\n"),
            ("a\r\n", "a\r"),
        ] {
            assert_eq!(outcome(0, stdout, "a warning\n").as_deref(), Ok(answer));
        }
    }

    #[test]
    fn exit_codes_64_and_65_are_the_arguments_fault() {
        for (exit, code) in [
            (1, ErrorCode::Failed),
            (63, ErrorCode::Failed),
            (64, ErrorCode::BadArgument),
            (65, ErrorCode::BadArgument),
            (66, ErrorCode::Failed),
            (255, ErrorCode::Failed),
        ] {
            let failed = outcome(exit << 8, "half an answer", "a trace\nno such image\n\n \n");
            assert_eq!(failed, Err((code, "no such image".to_owned())));
            let silent = outcome(exit << 8, "", "").unwrap_err().1;
            assert!(silent.contains(&format!("exit code {exit}")), "{silent}");
        }
    }

    #[test]
    fn a_signal_is_named() {
        let (code, message) = outcome(11, "", "").unwrap_err();
        assert_eq!(
            (code, &*message),
            (
                ErrorCode::Failed,
                "the program was ended by signal 11 (SIGSEGV)"
            )
        );
        let (_, message) = outcome(9, "", "loading\n").unwrap_err();
        assert_eq!(
            message,
            "the program was ended by signal 9 (SIGKILL); its last line: loading"
        );
    }

    #[test]
    fn of_endless_stderr_the_end_is_kept() {
        let stderr = "x".repeat(100_000) + "\n" + &"y".repeat(5000) + "\nlast";
        assert_eq!(outcome(256, "", &stderr).unwrap_err().1, "last");
        let stderr = "y".repeat(100_000);
        assert_eq!(outcome(256, "", &stderr).unwrap_err().1.len(), MAX_MESSAGE);
        let mut tail = Tail::default();
        tail.push(&vec![b'z'; 1 << 20]);
        assert_eq!(tail.0.len(), MAX_TAIL);
    }
}
