//! Writes an answer to stdout: as it is, in a line, or in a JSON object.

use std::borrow::Cow;
use std::io::{self, Write};

use base64::prelude::{BASE64_STANDARD, Engine as _};
use serde::Serialize;

use crate::procedure::CalledAnswer;

/// Writes an answer as it is, and a line break after text that has none. On a terminal, control characters are
/// escaped.
pub(crate) fn write(
    out: &mut impl Write,
    answer: &CalledAnswer,
    to_terminal: bool,
) -> io::Result<()> {
    match answer.as_text() {
        Some(text) if to_terminal => {
            let lines = text.strip_suffix('\n').unwrap_or(text).split('\n');
            for line in lines {
                writeln!(out, "{}", escaped(line))?;
            }
        }
        Some(text) if text.ends_with('\n') => out.write_all(text.as_bytes())?,
        Some(text) => writeln!(out, "{text}")?,
        None if to_terminal => writeln!(out, "{}", in_a_line(answer))?,
        None => out.write_all(answer.as_bytes())?,
    }
    Ok(())
}

/// Formats an answer for one line: control characters, such as line breaks, are escaped, and bytes that are not UTF-8
/// are replaced.
pub(crate) fn in_a_line(answer: &CalledAnswer) -> Cow<'_, str> {
    match answer.as_text() {
        Some(text) => escaped(text),
        None => Cow::Owned(escaped(&String::from_utf8_lossy(answer.as_bytes())).into_owned()),
    }
}

/// Escapes control characters as Rust does.
pub(crate) fn escaped(text: &str) -> Cow<'_, str> {
    if !text.contains(char::is_control) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() {
            escaped.extend(c.escape_debug());
        } else {
            escaped.push(c);
        }
    }
    Cow::Owned(escaped)
}

/// The members of a JSON object that hold an answer: `answer` or, if it is not UTF-8, `answer_base64`.
#[derive(Debug, Serialize)]
pub(crate) struct AnswerJson<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    answer: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    answer_base64: Option<String>,
}

impl<'a> AnswerJson<'a> {
    pub(crate) fn of(answer: &'a CalledAnswer) -> Self {
        let text = answer.as_text();
        Self {
            answer: text,
            answer_base64: match text {
                Some(_) => None,
                None => Some(BASE64_STANDARD.encode(answer.as_bytes())),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use rpcache::Answer as _;

    use super::*;

    fn answer(bytes: &[u8]) -> CalledAnswer {
        CalledAnswer::from_bytes(bytes).expect("any bytes are")
    }

    fn written(bytes: &[u8], to_terminal: bool) -> Vec<u8> {
        let mut out = Vec::new();
        write(&mut out, &answer(bytes), to_terminal).expect("a Vec takes all");
        out
    }

    #[test]
    fn a_pipe_gets_the_unchanged_bytes() {
        for bytes in [&b"\x89PNG\xff\n"[..], b"two\nlines\n", b"\x1b[2J\n"] {
            assert_eq!(written(bytes, false), bytes);
        }
        assert_eq!(written(b"832040", false), b"832040\n");
    }

    #[test]
    fn a_terminal_gets_no_control_characters() {
        assert_eq!(
            written(b"two\nlines\x1b[2J", true),
            b"two\nlines\\u{1b}[2J\n"
        );
        assert_eq!(written(b"832040", true), b"832040\n");
        assert_eq!(written(b"\xff\x07", true), "\u{fffd}\\u{7}\n".as_bytes());
    }

    #[test]
    fn a_line_has_no_line_breaks() {
        let line = |bytes: &[u8]| in_a_line(&answer(bytes)).into_owned();
        assert_eq!(line("größe \"x\"".as_bytes()), "größe \"x\"");
        assert_eq!(line(b"a\nb\x1b[2J\t"), "a\\nb\\u{1b}[2J\\t");
        assert_eq!(line(b"\xff\n"), "\u{fffd}\\n");
    }

    #[test]
    fn json_has_text_or_base64() {
        let json = |bytes: &[u8]| {
            let answer = answer(bytes);
            serde_json::to_string(&AnswerJson::of(&answer)).expect("it is text")
        };
        assert_eq!(json(b"a\n"), r#"{"answer":"a\n"}"#);
        assert_eq!(json(b"\x89PNG"), r#"{"answer_base64":"iVBORw=="}"#);
    }
}
