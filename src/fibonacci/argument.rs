//! The argument of `fib`: a whole number, parsed from decimal digits that any peer may have sent.
//!
//! Parsing is strict, so that one number has one key: no sign, no space, no digits of other scripts. Leading
//! zeros are accepted, and not written.

use std::fmt;
use std::str::FromStr;

/// The argument n of F(n).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct N(pub u64);

/// A text that is no argument, or no answer, of `fib`. The text is quoted, escaped and cut.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParseError {
    /// No [`N`].
    #[error("{0} is not a whole number from 0 to {max}", max = u64::MAX)]
    Argument(String),
    /// No [`Decimal`](super::Decimal).
    #[error("{0} is not a whole number in decimal digits without leading zeros")]
    Answer(String),
}

/// The digits of `u64::MAX`.
const MAX_LEN: usize = 20;

impl FromStr for N {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let wrong = || ParseError::Argument(quoted(text));
        // `u64::from_str` alone would also take a plus sign and any number of leading zeros.
        if text.len() > MAX_LEN || !text.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(wrong());
        }
        text.parse().map(N).map_err(|_| wrong())
    }
}

impl fmt::Display for N {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl From<u64> for N {
    fn from(n: u64) -> Self {
        Self(n)
    }
}

/// The beginning of an untrusted text, fit for a log line, a header or a terminal.
pub(super) fn quoted(text: &str) -> String {
    const MAX_CHARS: usize = 40;
    match text.char_indices().nth(MAX_CHARS) {
        None => format!("{text:?}"),
        Some((end, _)) => format!("{:?}…", &text[..end]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_is_a_number_and_nothing_else() {
        for (text, n) in [
            ("0", 0),
            ("30", 30),
            ("030", 30),
            ("00000000000000000030", 30),
            ("18446744073709551615", u64::MAX),
        ] {
            assert_eq!(text.parse(), Ok(N(n)));
        }
        for text in [
            "",
            " ",
            "+1",
            "-1",
            "-0",
            " 1",
            "1 ",
            "1\n",
            "1_000",
            "1e3",
            "0x10",
            "1.0",
            "٣٠",
            "３０",
            "²",
            "abc",
            "18446744073709551616",
            "99999999999999999999",
            "000000000000000000030",
        ] {
            assert!(text.parse::<N>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn writes_canonically() {
        assert_eq!("007".parse::<N>().unwrap().to_string(), "7");
        assert_eq!(N::from(u64::MAX).to_string(), "18446744073709551615");
    }

    #[test]
    fn says_what_is_wrong_briefly_and_escaped() {
        let message = |text: &str| text.parse::<N>().unwrap_err().to_string();
        assert_eq!(
            message("abc"),
            r#""abc" is not a whole number from 0 to 18446744073709551615"#
        );
        assert_eq!(
            message("\u{1b}[2J\r\n\u{202e}"),
            r#""\u{1b}[2J\r\n\u{202e}" is not a whole number from 0 to 18446744073709551615"#
        );
        let long = message(&"é".repeat(1_000_000));
        assert!(
            long.starts_with(&format!("\"{}\"… is", "é".repeat(40))),
            "{long}"
        );
        assert!(message(&"\u{1}".repeat(1_000_000)).len() < 500);
    }
}
