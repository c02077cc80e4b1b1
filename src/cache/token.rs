//! The name under which a worker holds a lease.

use std::fmt;
use std::sync::Arc;

use sha2::{Digest, Sha256};

/// The holder of a lease: a request in the hands of a worker, `REQUEST@WORKER`.
///
/// REQUEST is a hash of the correlation id: it identifies a redelivery of the request, and is of no use for
/// forging a reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Token {
    text: Arc<str>,
    /// Length of the part up to and with the `@`.
    request: usize,
}

impl Token {
    pub(crate) fn new(correlation_id: Option<&[u8]>, worker: &str) -> Self {
        let mut text = String::with_capacity(17 + worker.len());
        match correlation_id {
            Some(id) => {
                for byte in &Sha256::digest(id)[..8] {
                    push_hex(&mut text, *byte);
                }
            }
            None => {
                for byte in fastrand::u64(..).to_be_bytes() {
                    push_hex(&mut text, byte);
                }
            }
        }
        text.push('@');
        let request = text.len();
        text.push_str(worker);
        Self {
            text: text.into(),
            request,
        }
    }

    pub(super) fn as_str(&self) -> &str {
        &self.text
    }

    /// The part that all tokens of one request have in common: `REQUEST@`.
    pub(super) fn request(&self) -> &str {
        &self.text[..self.request]
    }
}

fn push_hex(text: &mut String, byte: u8) {
    for digit in [byte >> 4, byte & 15] {
        text.push(char::from_digit(digit.into(), 16).unwrap_or('0'));
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
