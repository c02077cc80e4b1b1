//! The line of a length, behind `$` or `*`.

use super::Violation;

/// No length that is allowed has more.
const MAX_DIGITS: u8 = 18;

#[derive(Debug, Clone, Copy)]
pub(super) struct Length {
    pub(super) of_array: bool,
    /// -1: nothing.
    pub(super) negative: bool,
    pub(super) value: u64,
    digits: u8,
    cr: bool,
    /// Where the header begins in the bytes that are kept of this call; `None`: in an earlier call.
    pub(super) begin: Option<usize>,
}

impl Length {
    pub(super) fn new(of_array: bool, begin: usize) -> Self {
        Self {
            of_array,
            negative: false,
            value: 0,
            digits: 0,
            cr: false,
            begin: Some(begin),
        }
    }

    /// How many of the bytes belong to the line, and whether it is complete.
    pub(super) fn read(&mut self, bytes: &[u8]) -> Result<(usize, bool), Violation> {
        for (at, &byte) in bytes.iter().enumerate() {
            match byte {
                b'0'..=b'9' if !self.cr && self.digits < MAX_DIGITS => {
                    self.digits += 1;
                    self.value = self.value * 10 + u64::from(byte - b'0');
                }
                b'-' if self.digits == 0 && !self.negative && !self.cr => {
                    self.negative = true;
                }
                b'\r' if self.digits > 0 && !self.cr => self.cr = true,
                // Only -1 is a length: of nothing.
                b'\n' if self.cr && (!self.negative || self.value == 1) => {
                    return Ok((at + 1, true));
                }
                _ => return Err(Violation::NoLength),
            }
        }
        Ok((bytes.len(), false))
    }
}
