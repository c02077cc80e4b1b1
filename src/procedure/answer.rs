//! Answers as bytes: what is replied and stored.

use std::fmt::{self, Display, Write};
use std::str::FromStr;
use std::sync::Arc;

/// An answer, read from and written as bytes. Implemented for every type that has `FromStr`, `Display`
/// and `Clone`, as text; and for [`AnswerBytes`], as any bytes.
pub trait Answer: Clone + Send + Sync + 'static {
    /// Reads an answer from the store or from a reply: untrusted bytes. `None` if they are no answer.
    fn from_bytes(bytes: &[u8]) -> Option<Self>;

    /// The bytes that are replied and stored; [`from_bytes`](Self::from_bytes) reads them.
    fn to_bytes(&self) -> Vec<u8>;

    /// The length of [`to_bytes`](Self::to_bytes), without making them.
    fn byte_len(&self) -> usize;
}

impl<A: FromStr + Display + Clone + Send + Sync + 'static> Answer for A {
    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        std::str::from_utf8(bytes).ok()?.parse().ok()
    }

    fn to_bytes(&self) -> Vec<u8> {
        self.to_string().into_bytes()
    }

    fn byte_len(&self) -> usize {
        let mut length = Length(0);
        // Counting cannot fail.
        let _ = write!(length, "{self}");
        length.0
    }
}

/// Counts the bytes written to it.
struct Length(usize);

impl Write for Length {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0 += text.len();
        Ok(())
    }
}

/// An answer of any bytes, text or not. Clones share them.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct AnswerBytes(Arc<[u8]>);

impl AnswerBytes {
    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The answer as text, if it is UTF-8.
    #[must_use]
    pub fn as_text(&self) -> Option<&str> {
        std::str::from_utf8(&self.0).ok()
    }
}

impl From<Vec<u8>> for AnswerBytes {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes.into())
    }
}

impl Answer for AnswerBytes {
    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        Some(Self(bytes.into()))
    }

    fn to_bytes(&self) -> Vec<u8> {
        self.0.to_vec()
    }

    fn byte_len(&self) -> usize {
        self.0.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_written_and_read() {
        assert_eq!(u64::from_bytes(b"30"), Some(30));
        for no_number in [&b""[..], b"30\n", b"\xff"] {
            assert_eq!(u64::from_bytes(no_number), None);
        }
        assert_eq!(12_345_u64.to_bytes(), b"12345");
        assert_eq!(12_345_u64.byte_len(), 5);
        assert_eq!("größe".to_owned().byte_len(), "größe".len());
    }

    #[test]
    fn bytes_need_not_be_text() {
        let answer = AnswerBytes::from_bytes(b"\x89PNG\0").unwrap();
        assert_eq!(
            (answer.as_bytes(), answer.as_text()),
            (&b"\x89PNG\0"[..], None)
        );
        assert_eq!(
            (answer.to_bytes(), answer.byte_len()),
            (b"\x89PNG\0".to_vec(), 5)
        );
        assert_eq!(AnswerBytes::from(b"text".to_vec()).as_text(), Some("text"));
    }
}
