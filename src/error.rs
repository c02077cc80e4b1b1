//! Errors of calls, workers and cache management: one variant per decision that a caller can take.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

pub(crate) use crate::text::{human, millis, quote, quote_inner};
use crate::tls::TlsFault;

/// Why a call, a worker or a cache command failed: one variant per decision that a caller can take.
///
/// | variant | who can fix it | retry |
/// | --- | --- | --- |
/// | [`Failed`](Self::Failed) | the caller, see [`ErrorCode`] | no, mostly |
/// | [`WrongAnswer`](Self::WrongAnswer) | the worker's operator | no |
/// | [`Deadline`](Self::Deadline) | the caller | yes, with a longer timeout |
/// | [`NoWorkers`](Self::NoWorkers) | the workers' operator | when a worker runs |
/// | [`Overloaded`](Self::Overloaded) | the callers, by sending less | later |
/// | [`Unreachable`](Self::Unreachable) | the server's operator | later |
/// | [`Refused`](Self::Refused) | the author of the configuration | no |
/// | [`Tls`](Self::Tls) | the author of the certificates or the address | no |
///
/// `examples/axum_handler.rs` maps them to HTTP status codes. Messages are fragments in lower case, to follow
/// "failed to …: ". They name the server without its password, and quote text from peers escaped and
/// shortened. [`code`](Self::code) is for programs.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A worker replied with a failure, or the broker refused the request as too large. The same request fails
    /// again, except after [`ErrorCode::Expired`].
    #[error("{message}")]
    Failed {
        /// What kind of failure.
        code: ErrorCode,
        /// The worker's message, or the reason: peer text, escaped and shortened.
        message: String,
    },

    /// A worker's answer did not pass [`crate::Procedure::verify`], twice. The worker is wrong, or serves
    /// another procedure than the caller means.
    #[error("a worker answered \"{quoted}\", which is not the answer")]
    WrongAnswer {
        /// The answer: peer text, escaped and shortened.
        quoted: String,
    },

    /// No answer within the timeout. It may still be computed, and stored in the cache.
    #[error("no answer within {}", human(*.timeout))]
    Deadline {
        /// The call's timeout.
        timeout: Duration,
    },

    /// The request queue is missing or has no consumer: start a worker.
    #[error("no worker is serving {queue}")]
    NoWorkers {
        /// The request queue.
        queue: String,
    },

    /// The broker or the calling process accepts no more requests now. Retry later, with fewer at once.
    #[error("overloaded: {reason}")]
    Overloaded {
        /// Which of the two, and why.
        reason: String,
    },

    /// The server cannot be reached, or the connection was lost. Retry later, or correct the address.
    #[error("cannot reach {server}: {reason}")]
    Unreachable {
        /// Its address, without the password.
        server: String,
        /// What happened.
        reason: String,
    },

    /// TLS with the server failed: correct its certificate, the client certificate, or the address.
    #[error("no TLS with {server}: {fault}")]
    Tls {
        /// Its address, without the password.
        server: String,
        /// Why it failed.
        fault: TlsFault,
    },

    /// The server refused the login, the vhost or an operation: correct the configuration.
    #[error("{server} refuses: {reason}")]
    Refused {
        /// Its address, without the password.
        server: String,
        /// The server's message: peer text, escaped and shortened.
        reason: String,
    },
}

impl Error {
    /// All codes that [`code`](Self::code) returns.
    pub(crate) const CODES: [&str; 12] = [
        "bad-argument",
        "too-large",
        "failed",
        "expired",
        "poison",
        "overloaded",
        "wrong-answer",
        "deadline",
        "nobody-serving",
        "unreachable",
        "tls",
        "refused",
    ];

    /// A short stable name for programs: an [`ErrorCode`]'s, or `wrong-answer`, `deadline`,
    /// `nobody-serving`, `overloaded`, `unreachable`, `tls`, `refused`.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Failed { code, .. } => code.as_str(),
            Self::WrongAnswer { .. } => "wrong-answer",
            Self::Deadline { .. } => "deadline",
            Self::NoWorkers { .. } => "nobody-serving",
            Self::Overloaded { .. } => "overloaded",
            Self::Unreachable { .. } => "unreachable",
            Self::Tls { .. } => "tls",
            Self::Refused { .. } => "refused",
        }
    }
}

impl Error {
    /// Whether the error lasts until the configuration is corrected.
    pub(crate) fn is_lasting(&self) -> bool {
        matches!(self, Self::Refused { .. } | Self::Tls { .. })
    }

    /// Whether a longer timeout could have avoided the error.
    pub(crate) fn is_out_of_time(&self) -> bool {
        matches!(
            self,
            Self::Deadline { .. }
                | Self::Failed {
                    code: ErrorCode::Expired,
                    ..
                }
        )
    }
}

/// The kind of a failure that a worker replies, in the header `x-rpcache-error`.
///
/// ```
/// use rpcache::ErrorCode;
///
/// assert_eq!("too-large".parse(), Ok(ErrorCode::TooLarge));
/// assert_eq!(ErrorCode::TooLarge.to_string(), "too-large");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorCode {
    /// The request's body is not an argument of the procedure.
    BadArgument,
    /// The argument or its answer is above the worker's limit, or the broker's.
    TooLarge,
    /// The computation failed or panicked.
    Failed,
    /// The request expired before its computation began.
    Expired,
    /// The request crashed every worker that started it.
    Poison,
    /// The worker accepts no more requests now.
    Overloaded,
}

impl ErrorCode {
    pub(crate) const ALL: [Self; 6] = [
        Self::BadArgument,
        Self::TooLarge,
        Self::Failed,
        Self::Expired,
        Self::Poison,
        Self::Overloaded,
    ];

    /// The code on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::BadArgument => "bad-argument",
            Self::TooLarge => "too-large",
            Self::Failed => "failed",
            Self::Expired => "expired",
            Self::Poison => "poison",
            Self::Overloaded => "overloaded",
        }
    }
}

/// The failure that a worker replies in place of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) code: ErrorCode,
    pub(crate) message: String,
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for ErrorCode {
    type Err = ErrorCodeError;

    fn from_str(text: &str) -> Result<Self, ErrorCodeError> {
        Self::ALL
            .into_iter()
            .find(|code| code.as_str() == text)
            .ok_or(ErrorCodeError)
    }
}

/// Why a text is not an [`ErrorCode`]; a later version may define more codes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("this version knows no error code of this name")]
#[non_exhaustive]
pub struct ErrorCodeError;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_read_back_what_they_write() {
        for code in ErrorCode::ALL {
            assert_eq!(code.as_str().parse(), Ok(code));
        }
        assert_eq!("".parse::<ErrorCode>(), Err(ErrorCodeError));
    }
}
