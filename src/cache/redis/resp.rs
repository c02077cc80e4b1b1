//! Checks what a server sends in RESP2 before redis-rs parses it: lengths, depth, types. Pure: no I/O.
//!
//! redis-rs takes a line of any length and believes every declared length. This checker reads lines only
//! and counts over the bytes of strings, so that it costs a few nanoseconds for each value and copies
//! nothing. A string that is too large never reaches redis-rs: in its place stands `nil` within an array,
//! as for a value of another type, and an error with the code [`TOO_BIG`] elsewhere. Everything else
//! that is out of bounds is a [`Violation`] and ends the connection.

mod length;
mod violation;

use self::length::Length;
pub(super) use self::violation::Violation;

/// Code of the error that stands for a string that is too large.
pub(super) const TOO_BIG: &str = "TOOBIG";

/// The replacement is no longer than any header of a string that is replaced, at the default limits.
const TOO_BIG_REPLY: &[u8] = b"-TOOBIG\r\n";
const NIL: &[u8] = b"$-1\r\n";

/// Redis' own limit on a string (`proto-max-bulk-len`), in bytes.
const MAX_DECLARED: u64 = 512 << 20;

/// Bytes of a status or an error.
const MAX_LINE: usize = 64 * 1024;

/// Elements of one array. SCAN and MGET return some hundred.
const MAX_ELEMENTS: u64 = 1 << 17;

/// Arrays within arrays.
const MAX_DEPTH: usize = 8;

/// Beginning of an error that is kept to be classified.
const KEPT: usize = 160;

/// Largest sizes that are passed on, in bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Of one string.
    pub(super) string: u64,
    /// Of all strings of one reply.
    pub(super) reply: u64,
}

/// Position in the stream between two calls.
#[derive(Debug)]
enum Position {
    /// Before the first byte of a value.
    Type,
    /// Within a line without a length: its bytes so far, and whether the last one was `\r`.
    Line {
        is_error: bool,
        length: usize,
        cr: bool,
    },
    /// Within the line of a length.
    Length(Length),
    /// Within a string and the line end behind it.
    Pass(u64),
    /// The same of a string that is replaced.
    Drop(u64),
}

/// Checks the bytes of one connection, in any portions.
#[derive(Debug)]
pub(super) struct Checker {
    limits: Limits,
    position: Position,
    /// Elements that are still to come in each array around this place.
    open: [u64; MAX_DEPTH],
    depth: usize,
    /// Bytes of strings in this reply so far.
    size: u64,
    /// Whether nothing has come yet.
    at_start: bool,
    /// Beginning of the error that is being read.
    error: Vec<u8>,
    /// The latest complete error that is not taken yet.
    refusal: Option<Vec<u8>>,
}

impl Checker {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            limits,
            position: Position::Type,
            open: [0; MAX_DEPTH],
            depth: 0,
            size: 0,
            at_start: true,
            error: Vec::new(),
            refusal: None,
        }
    }

    /// Takes the beginning of the latest error of the server, without `-`.
    pub(super) fn take_refusal(&mut self) -> Option<Vec<u8>> {
        self.refusal.take()
    }

    /// Checks the next bytes. The first ones of `bytes` are to be passed on, as many as it returns: all,
    /// except where a string was replaced.
    pub(super) fn check(&mut self, bytes: &mut [u8]) -> Result<usize, Violation> {
        // `kept` bytes are to be passed on; `at` is what is looked at next.
        let (mut kept, mut at) = (0, 0);
        if let Position::Length(length) = &mut self.position {
            length.begin = None;
        }
        while at < bytes.len() {
            let left = bytes.len() - at;
            let passed = match &mut self.position {
                Position::Type => {
                    if let Some(passed) = self.whole_string(&bytes[at..]) {
                        passed
                    } else {
                        self.position = self.begin(bytes[at], kept)?;
                        1
                    }
                }
                Position::Line { .. } => self.line(&bytes[at..])?,
                Position::Length(length) => {
                    let (passed, is_complete) = length.read(&bytes[at..])?;
                    if is_complete {
                        let length = *length;
                        move_to(bytes, at, kept, passed);
                        at += passed;
                        kept = self.value(length, bytes, kept + passed)?;
                        continue;
                    }
                    passed
                }
                Position::Pass(rest) => {
                    let passed = usize::try_from(*rest).map_or(left, |rest| rest.min(left));
                    *rest -= passed as u64;
                    if *rest == 0 {
                        self.end_of_value();
                    }
                    passed
                }
                Position::Drop(rest) => {
                    let dropped = usize::try_from(*rest).map_or(left, |rest| rest.min(left));
                    *rest -= dropped as u64;
                    if *rest == 0 {
                        self.end_of_value();
                    }
                    at += dropped;
                    continue;
                }
            };
            move_to(bytes, at, kept, passed);
            (kept, at) = (kept + passed, at + passed);
        }
        Ok(kept)
    }

    /// How long the string is with which the bytes begin, where all of it is there, as nearly always, and
    /// within the limits: what follows it comes next. Everything else is read step by step.
    fn whole_string(&mut self, bytes: &[u8]) -> Option<usize> {
        let (b'$', rest) = bytes.split_first()? else {
            return None;
        };
        let digits = rest.iter().take(9).take_while(|byte| byte.is_ascii_digit());
        let (mut length, mut count) = (0_usize, 0);
        for digit in digits {
            length = length * 10 + usize::from(digit - b'0');
            count += 1;
        }
        if count == 0 || !rest[count..].starts_with(b"\r\n") {
            return None;
        }
        let size = self.size + length as u64;
        let end = 1 + count + 2 + length + 2;
        if end > bytes.len() || length as u64 > self.limits.string || size > self.limits.reply {
            return None;
        }
        self.at_start = false;
        self.size = size;
        self.end_of_value();
        Some(end)
    }

    fn begin(&mut self, byte: u8, kept: usize) -> Result<Position, Violation> {
        let at_start = std::mem::take(&mut self.at_start);
        match byte {
            b'$' | b'*' => Ok(Position::Length(Length::new(byte == b'*', kept))),
            b'+' | b'-' | b':' => Ok(Position::Line {
                is_error: byte == b'-',
                length: 0,
                cr: false,
            }),
            b'_' | b',' | b'#' | b'!' | b'=' | b'(' | b'%' | b'|' | b'~' | b'>' => {
                Err(Violation::Type(byte))
            }
            _ if at_start => Err(Violation::NotRedis),
            _ => Err(Violation::Type(byte)),
        }
    }

    /// How many of the bytes belong to the line.
    fn line(&mut self, bytes: &[u8]) -> Result<usize, Violation> {
        let Position::Line {
            is_error,
            length,
            cr,
        } = &mut self.position
        else {
            return Ok(0);
        };
        let mut ended = false;
        let mut count = 0;
        for &byte in bytes {
            count += 1;
            if *cr && byte == b'\n' {
                ended = true;
                break;
            }
            *cr = byte == b'\r';
        }
        *length += count;
        if *length > MAX_LINE {
            return Err(Violation::Line);
        }
        if *is_error {
            let room = KEPT.saturating_sub(self.error.len()).min(count);
            self.error.extend_from_slice(&bytes[..room]);
        }
        if ended {
            if *is_error {
                let line = std::mem::take(&mut self.error);
                self.refusal = Some(line.trim_ascii_end().to_owned());
            }
            self.end_of_value();
        }
        Ok(count)
    }

    /// A length is complete: how many bytes are kept now. They were `kept`, the header included.
    fn value(&mut self, length: Length, bytes: &mut [u8], kept: usize) -> Result<usize, Violation> {
        if length.negative {
            self.end_of_value();
            return Ok(kept);
        }
        if length.of_array {
            self.position = Position::Type;
            return self.array(length.value).map(|()| kept);
        }
        if length.value > MAX_DECLARED {
            return Err(Violation::String(length.value));
        }
        let rest = length.value + 2;
        let size = self.size.saturating_add(length.value);
        if length.value <= self.limits.string && size <= self.limits.reply {
            self.size = size;
            self.position = Position::Pass(rest);
            return Ok(kept);
        }
        // The beginning of the header may have been passed on already, in an earlier portion.
        let begin = length.begin.ok_or(Violation::String(length.value))?;
        let reply = match self.depth {
            0 if TOO_BIG_REPLY.len() <= kept - begin => TOO_BIG_REPLY,
            _ => NIL,
        };
        let end = begin + reply.len();
        let place = bytes.get_mut(begin..end).filter(|_| end <= kept);
        place
            .ok_or(Violation::String(length.value))?
            .copy_from_slice(reply);
        self.position = Position::Drop(rest);
        Ok(end)
    }

    fn array(&mut self, elements: u64) -> Result<(), Violation> {
        if elements > MAX_ELEMENTS {
            return Err(Violation::Elements(elements));
        }
        if elements == 0 {
            self.end_of_value();
            return Ok(());
        }
        let open = self.open.get_mut(self.depth).ok_or(Violation::Depth)?;
        *open = elements;
        self.depth += 1;
        Ok(())
    }

    /// A value has ended, and with it maybe the arrays around it.
    fn end_of_value(&mut self) {
        self.position = Position::Type;
        while let Some(open) = self
            .depth
            .checked_sub(1)
            .and_then(|at| self.open.get_mut(at))
        {
            *open -= 1;
            if *open > 0 {
                return;
            }
            self.depth -= 1;
        }
        self.size = 0;
    }
}

/// Copies only behind a string that was replaced.
fn move_to(bytes: &mut [u8], from: usize, to: usize, count: usize) {
    if from != to {
        bytes.copy_within(from..from + count, to);
    }
}

#[cfg(test)]
mod tests;
