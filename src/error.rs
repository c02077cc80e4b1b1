//! What a call, a worker or a look into the cache can end in, by what the caller does about it.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

pub(crate) use crate::text::{human, millis, quote, quote_inner};
use crate::tls::TlsFault;

/// Everything that can go wrong, one variant per decision that a caller can take.
///
/// | variant | who can help it | ask again |
/// | --- | --- | --- |
/// | [`Failed`](Self::Failed) | whoever asked, see [`ErrorCode`] | in vain, mostly |
/// | [`WrongAnswer`](Self::WrongAnswer) | whoever runs the worker | in vain |
/// | [`Deadline`](Self::Deadline) | nobody | yes, with more time |
/// | [`NobodyServing`](Self::NobodyServing) | whoever starts workers | when there is one |
/// | [`Overloaded`](Self::Overloaded) | whoever asks for so much | later |
/// | [`Unreachable`](Self::Unreachable) | whoever runs the server | later |
/// | [`Refused`](Self::Refused) | whoever wrote the configuration | in vain |
/// | [`Tls`](Self::Tls) | whoever made the certificates, or the address | in vain |
///
/// `examples/axum_handler.rs` makes HTTP status codes of them. Messages are fragments in lower case, fit
/// to follow "failed to …: "; they name the server without its password and quote what a peer sent
/// escaped and shortened. [`code`](Self::code) is for programs.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A worker answered that there is no answer, or the broker refuses the request itself as too large.
    /// Asking again for the same gives the same, except after [`ErrorCode::Expired`].
    #[error("{message}")]
    Failed {
        /// What kind of failure.
        code: ErrorCode,
        /// The worker's words, or the reason: peer text, escaped and shortened.
        message: String,
    },

    /// What came back as the answer did not pass [`crate::Procedure::verify`], twice. The worker
    /// that serves the queue is wrong, or is not the procedure that the caller means.
    #[error("a worker answered \"{quoted}\", which is not the answer")]
    WrongAnswer {
        /// What it answered: peer text, escaped and shortened.
        quoted: String,
    },

    /// No answer within the time-out. It may still be computed, and be in the cache later.
    #[error("no answer within {}", human(*.timeout))]
    Deadline {
        /// The call's time-out.
        timeout: Duration,
    },

    /// The request queue is missing or has no consumer: start a worker.
    #[error("nobody is serving {queue}")]
    NobodyServing {
        /// The request queue.
        queue: String,
    },

    /// The broker or the calling process cannot take more requests now. Try later, or less at once.
    #[error("overloaded: {reason}")]
    Overloaded {
        /// Who cannot, and why.
        reason: String,
    },

    /// The server cannot be reached or is gone. Try later, or correct the address.
    #[error("cannot reach {server}: {reason}")]
    Unreachable {
        /// Its address, without the password.
        server: String,
        /// What happened.
        reason: String,
    },

    /// There is no TLS with the server: correct its certificate, this side's, or the address.
    #[error("no TLS with {server}: {fault}")]
    Tls {
        /// Its address, without the password.
        server: String,
        /// What is wrong.
        fault: TlsFault,
    },

    /// The server answers, and refuses this login, vhost or right: correct the configuration.
    #[error("{server} refuses: {reason}")]
    Refused {
        /// Its address, without the password.
        server: String,
        /// What it said: peer text, escaped and shortened.
        reason: String,
    },
}

impl Error {
    /// All that [`code`](Self::code) can give.
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
            Self::NobodyServing { .. } => "nobody-serving",
            Self::Overloaded { .. } => "overloaded",
            Self::Unreachable { .. } => "unreachable",
            Self::Tls { .. } => "tls",
            Self::Refused { .. } => "refused",
        }
    }
}

impl Error {
    /// It will not pass by itself: somebody has to correct something.
    pub(crate) fn is_lasting(&self) -> bool {
        matches!(self, Self::Refused { .. } | Self::Tls { .. })
    }

    /// Nothing is wrong but that somebody had too little time.
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

/// What kind of failure a worker reports, in the reply's header `x-rpcache-error`.
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
    /// The request's body is no argument of the procedure.
    BadArgument,
    /// The argument or its answer is above the worker's limit, or the broker's.
    TooLarge,
    /// Computing was tried and failed, or panicked.
    Failed,
    /// The request's time ran out before computing began.
    Expired,
    /// The request has ended the workers that tried it.
    Poison,
    /// There is no room for the request.
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

/// Why there is no answer: the failure that a worker replies.
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

/// Why a text is no [`ErrorCode`]: a later version may know more of them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a failure's code that this version knows")]
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
