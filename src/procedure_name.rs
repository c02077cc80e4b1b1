//! The name of a procedure.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

const MAX_LENGTH: usize = 64;

/// The name of a procedure: 1 to 64 of `a-z`, `0-9`, `_`, `-`, `.`. None of them is special in keys,
/// patterns of keys, or queue names.
///
/// A literal is checked when the program is compiled:
///
/// ```
/// use rpcache::ProcedureName;
///
/// static THUMB: ProcedureName = ProcedureName::new("thumb");
/// let typed: ProcedureName = "thumb".parse()?;
/// assert_eq!(typed, THUMB);
/// assert!("Thumb:1".parse::<ProcedureName>().is_err());
/// # Ok::<(), rpcache::errors::ProcedureNameError>(())
/// ```
///
/// ```compile_fail
/// # use rpcache::ProcedureName;
/// static SHOUT: ProcedureName = ProcedureName::new("SHOUT");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ProcedureName(Cow<'static, str>);

impl ProcedureName {
    /// A name that is known when the program is written. Use it in a `static` or a `const` block, where a
    /// bad name does not compile; for text that comes at run time, use [`FromStr`].
    ///
    /// # Panics
    ///
    /// When called at run time with a bad name.
    #[must_use]
    pub const fn new(name: &'static str) -> Self {
        assert!(
            is_name(name),
            "a procedure's name is 1 to 64 of a-z, 0-9, '_', '-', '.'"
        );
        Self(Cow::Borrowed(name))
    }

    /// The name's text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ProcedureName {
    type Err = ProcedureNameError;

    fn from_str(text: &str) -> Result<Self, ProcedureNameError> {
        if is_name(text) {
            Ok(Self(Cow::Owned(text.to_owned())))
        } else {
            Err(ProcedureNameError)
        }
    }
}

impl fmt::Display for ProcedureName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// Why a text is no [`ProcedureName`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a procedure's name is 1 to {MAX_LENGTH} of a-z, 0-9, '_', '-', '.'")]
#[non_exhaustive]
pub struct ProcedureNameError;

const fn is_name(name: &str) -> bool {
    let mut bytes = name.as_bytes();
    let length = bytes.len();
    while let [b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' | b'.', rest @ ..] = bytes {
        bytes = rest;
    }
    bytes.is_empty() && 1 <= length && length <= MAX_LENGTH
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_short_and_plain() {
        for name in ["fib", "a", "when-let", "sum_2.0", &"x".repeat(64)] {
            assert_eq!(name.parse::<ProcedureName>().unwrap().as_str(), name);
        }
        for name in ["", "Fib", "a b", "a:b", "fib*", "größe", &"x".repeat(65)] {
            assert_eq!(name.parse::<ProcedureName>(), Err(ProcedureNameError));
        }
    }
}
