//! What a call, a worker or a look into the cache can end in, by what the caller does about it.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

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

/// Text from a peer as it may stand in a log line or message: control characters escaped, at most
/// `LIMIT` characters of it. Escaped text stays as it is: a failure's message is escaped by the worker that
/// sends it and by the client that reads it.
pub(crate) fn quote(text: &[u8]) -> String {
    // These break no line; escaped they would only be harder to read.
    escape(text, &['"', '\'', '\\'])
}

/// The same for text that is shown between double quotes: it cannot end them.
pub(crate) fn quote_inner(text: &[u8]) -> String {
    escape(text, &['\''])
}

/// Escapes all that Rust's `{:?}` escapes but `plain`, and shortens it.
fn escape(text: &[u8], plain: &[char]) -> String {
    const LIMIT: usize = 200;
    // Four bytes at most make a character: what lies behind is not even decoded.
    let head = String::from_utf8_lossy(&text[..text.len().min(LIMIT * 4)]);
    let mut escaped = String::with_capacity(LIMIT);
    for c in head.chars().take(LIMIT) {
        if plain.contains(&c) {
            escaped.push(c);
        } else {
            escaped.extend(c.escape_debug());
        }
    }
    if head.chars().nth(LIMIT).is_some() || text.len() > LIMIT * 4 {
        escaped.push_str("...");
    }
    escaped
}

/// Milliseconds in a log line; microseconds are as fine as anybody can measure this.
pub(crate) fn millis(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}

/// `10 s`, `500 ms`, `1.5 s`: a duration in a message.
pub(crate) fn human(duration: Duration) -> String {
    if duration < Duration::from_secs(1) {
        format!("{} ms", duration.as_millis())
    } else {
        format!("{} s", duration.as_secs_f64())
    }
}

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

    #[test]
    fn peer_text_is_quoted_escaped_and_bounded() {
        assert_eq!(quote(b"8320\n40\x1b[2J\0"), "8320\\n40\\u{1b}[2J\\0");
        assert_eq!(quote(b"\xff"), "\u{fffd}");
        assert_eq!(quote(&[b'7'; 200]), "7".repeat(200));
        assert_eq!(quote(&[b'7'; 201]), "7".repeat(200) + "...");
        assert!(quote(&vec![0; 1 << 20]).len() < 600);
    }

    #[test]
    fn escaping_escaped_text_changes_nothing() {
        for text in ["8320\n40", "\u{1b}[2J", "\u{202e}", "a \"b\" 'c' d\\e", "é"] {
            let once = quote(text.as_bytes());
            assert_eq!(quote(once.as_bytes()), once, "{text:?}");
        }
    }

    #[test]
    fn text_between_quotes_cannot_end_them() {
        assert_eq!(quote_inner(b"8\", or \\\"it's\n"), r#"8\", or \\\"it's\n"#);
    }

    #[test]
    fn durations_read_as_a_person_writes_them() {
        assert_eq!(human(Duration::from_millis(500)), "500 ms");
        assert_eq!(human(Duration::from_millis(1500)), "1.5 s");
        assert_eq!(human(Duration::from_secs(10)), "10 s");
    }
}
