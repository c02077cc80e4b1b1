//! Forms of arguments (text, integer, JSON) and their canonical text, for procedures that are known by name only.

use std::fmt;
use std::str::FromStr;

use super::json;
use crate::error::quote_inner;

/// How typed text becomes the one canonical text of an argument. Arguments that mean the same should
/// have the same canonical text: it is the request's body and part of the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum ArgumentForm {
    /// Any UTF-8 text, as typed.
    #[default]
    Text,
    /// A whole number from 0 to 2⁶⁴ − 1 in decimal digits, without leading zeros.
    Integer,
    /// JSON: object keys sorted and strings escaped as in RFC 8785, insignificant white space removed.
    /// Numbers stay as typed, since a conversion to floating point could make two arguments one:
    /// `1.0` and `1` are two. Duplicate keys and values nested deeper than 128 are refused.
    Json,
}

impl ArgumentForm {
    /// The canonical text.
    pub fn canonical(self, text: &str) -> Result<String, ArgumentFormError> {
        match self {
            Self::Text => Ok(text.to_owned()),
            Self::Integer => match integer(text) {
                Some(number) => Ok(number.to_string()),
                None => Err(ArgumentFormError(format!(
                    "\"{}\" is not a whole number from 0 to {}",
                    quote_inner(text.as_bytes()),
                    u64::MAX
                ))),
            },
            Self::Json => json::canonical(text).map_err(|reason| {
                let quoted = quote_inner(text.as_bytes());
                ArgumentFormError(format!("\"{quoted}\" is not JSON: {reason}"))
            }),
        }
    }
}

/// Stricter than `u64::from_str`: no plus sign, and no more than 20 digits.
fn integer(text: &str) -> Option<u64> {
    const MAX_DIGITS: usize = 20;
    let is_digits = text.len() <= MAX_DIGITS && text.bytes().all(|byte| byte.is_ascii_digit());
    is_digits.then(|| text.parse().ok()).flatten()
}

impl fmt::Display for ArgumentForm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Text => "text",
            Self::Integer => "integer",
            Self::Json => "json",
        })
    }
}

impl FromStr for ArgumentForm {
    type Err = ArgumentFormError;

    fn from_str(text: &str) -> Result<Self, ArgumentFormError> {
        match text {
            "text" => Ok(Self::Text),
            "integer" => Ok(Self::Integer),
            "json" => Ok(Self::Json),
            _ => Err(ArgumentFormError(
                "expected text, integer or json".to_owned(),
            )),
        }
    }
}

/// Why a text has no canonical form, or names no [`ArgumentForm`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
#[non_exhaustive]
pub struct ArgumentFormError(String);

#[cfg(test)]
mod tests {
    use super::*;

    fn canonical(form: ArgumentForm, text: &str) -> Option<String> {
        form.canonical(text).ok()
    }

    #[test]
    fn text_stays_as_typed() {
        for text in ["", " 30\n", "größe", "0..9"] {
            assert_eq!(canonical(ArgumentForm::Text, text).as_deref(), Some(text));
        }
    }

    #[test]
    fn an_integer_has_one_text() {
        for (typed, written) in [
            ("0", "0"),
            ("0030", "30"),
            ("18446744073709551615", "18446744073709551615"),
        ] {
            assert_eq!(
                canonical(ArgumentForm::Integer, typed).as_deref(),
                Some(written)
            );
        }
        for wrong in ["", "+1", "-1", " 1", "1.0", "18446744073709551616", "٣"] {
            assert_eq!(canonical(ArgumentForm::Integer, wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn an_error_shows_what_was_typed_escaped_and_cut() {
        let message =
            |form: ArgumentForm, text: &str| form.canonical(text).unwrap_err().to_string();
        assert_eq!(
            message(ArgumentForm::Integer, "\u{1b}[2J"),
            r#""\u{1b}[2J" is not a whole number from 0 to 18446744073709551615"#
        );
        assert!(message(ArgumentForm::Json, &"x".repeat(100_000)).len() < 500);
    }

    #[test]
    fn forms_have_names() {
        for form in [
            ArgumentForm::Text,
            ArgumentForm::Integer,
            ArgumentForm::Json,
        ] {
            assert_eq!(form.to_string().parse(), Ok(form));
        }
        assert!("yaml".parse::<ArgumentForm>().is_err());
    }
}
