//! The answer of `fib`: a number of up to a million digits or more, kept as the text that is replied and stored,
//! since the number itself is not needed again.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use num_bigint::BigUint;

use super::argument::{ParseError, quoted};
use crate::procedure::{Cancel, ComputeError};

/// A whole number as text: ASCII digits, no leading zero but in `0`. Clones share the text.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Decimal(Arc<str>);

impl Decimal {
    /// The digits.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The digits of `number`. Checks `cancel` first; the conversion itself is not interrupted.
    pub(super) fn of(number: &BigUint, cancel: &Cancel) -> Result<Self, ComputeError> {
        cancel.check()?;
        Ok(Self::of_digits(number.to_string()))
    }

    /// Takes digits that are canonical.
    pub(super) fn of_digits(digits: String) -> Self {
        Self(digits.into())
    }
}

impl FromStr for Decimal {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        // To the end in any case: stopping early would take several times as long for right ones.
        let digits_only = text
            .bytes()
            .fold(true, |digits, byte| digits & byte.is_ascii_digit());
        let canonical = !text.is_empty() && digits_only && (text == "0" || !text.starts_with('0'));
        if canonical {
            Ok(Self(text.into()))
        } else {
            Err(ParseError::Answer(quoted(text)))
        }
    }
}

impl fmt::Display for Decimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_canonical_text_only() {
        for text in ["0", "1", "832040", &"9".repeat(10_000)] {
            assert_eq!(text.parse::<Decimal>().unwrap().as_str(), text);
        }
        for text in [
            "", "00", "01", "-1", "+1", " 1", "1 ", "1\n", "1e3", "1.0", "٣", "1\0", "nan",
        ] {
            assert!(text.parse::<Decimal>().is_err(), "{text:?}");
        }
        assert_eq!(
            "832040\n".parse::<Decimal>().unwrap_err().to_string(),
            r#""832040\n" is not a whole number in decimal digits without leading zeros"#
        );
    }
}
