//! Text of log lines and messages: what a peer sent, escaped and cut; durations.

use std::time::Duration;

/// Peer text for a log line or message: control characters escaped, at most `LIMIT` characters. Escaped text
/// stays as it is: a failure's message is escaped by the worker that sends it and by the client that reads
/// it.
pub(crate) fn quote(text: &[u8]) -> String {
    // These break no line, and would be harder to read escaped.
    escape(text, &['"', '\'', '\\'])
}

/// Peer text that is shown between double quotes, which it cannot end.
pub(crate) fn quote_inner(text: &[u8]) -> String {
    escape(text, &['\''])
}

/// Escapes all that Rust's `{:?}` escapes but `plain`, and shortens it.
fn escape(text: &[u8], plain: &[char]) -> String {
    const LIMIT: usize = 200;
    // A character has four bytes at most: what follows them is not decoded.
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

/// Milliseconds for a log line, to the microsecond.
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
