//! What no Redis sends: each violation of the protocol ends the connection.

use std::fmt;

use super::{MAX_DECLARED, MAX_DEPTH, MAX_ELEMENTS, MAX_LINE};

/// What no Redis sends to a client of this crate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cache) enum Violation {
    /// Not one byte of it is RESP.
    NotRedis,
    /// A type of RESP3, or none at all.
    Type(u8),
    Line,
    NoLength,
    String(u64),
    Elements(u64),
    Depth,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotRedis => f.write_str("what answers there is not Redis"),
            Self::Type(byte) => write!(
                f,
                "it sent a value of a type that was not asked for, '{}'",
                byte.escape_ascii()
            ),
            Self::Line => write!(f, "it sent a line of more than {MAX_LINE} bytes"),
            Self::NoLength => f.write_str("it sent a length that is no number"),
            Self::String(bytes) => write!(
                f,
                "it announced a string of {bytes} bytes; Redis sends {MAX_DECLARED} at most"
            ),
            Self::Elements(count) => write!(
                f,
                "it announced an array of {count} elements; {MAX_ELEMENTS} are read at most"
            ),
            Self::Depth => write!(f, "it nested arrays more than {MAX_DEPTH} deep"),
        }
    }
}
