//! Checks and splits field tables in wire format, without recursion. Pure.
//!
//! RabbitMQ forwards headers unchecked. lapin parses them recursively and refuses text that is not UTF-8, so tables
//! are checked before lapin parses them.

/// The deepest nesting of tables and arrays. RabbitMQ's own headers nest two levels (`x-death`).
const MAX_DEPTH: usize = 32;

/// Whether lapin can parse the content of a table (the bytes after its length).
pub(super) fn is_parsable(content: &[u8]) -> bool {
    let mut levels = Levels::new(content.len());
    let mut at = 0;
    loop {
        let level = levels.innermost();
        if at == level.end {
            if levels.leave() {
                continue;
            }
            return true;
        }
        let bounded = &content[..level.end];
        if level.is_table {
            match take_short(bounded, at) {
                Some((name, next)) if std::str::from_utf8(name).is_ok() => at = next,
                _ => return false,
            }
        }
        match Value::at(bounded, at) {
            Some(Value::Plain { end }) => at = end,
            Some(Value::Nested {
                start,
                end,
                is_table,
            }) if levels.enter(Level { end, is_table }) => at = start,
            _ => return false,
        }
    }
}

/// The top-level entries of a table. Ends at the first invalid entry.
pub(super) fn entries(content: &[u8]) -> impl Iterator<Item = Entry<'_>> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let (name, value_at) = take_short(content, at)?;
        let end = match Value::at(content, value_at)? {
            Value::Plain { end } | Value::Nested { end, .. } => end,
        };
        let entry = Entry {
            name,
            value: &content[value_at..end],
            whole: &content[at..end],
        };
        at = end;
        Some(entry)
    })
}

/// One entry of a table.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry<'a> {
    pub(super) name: &'a [u8],
    /// The type's letter and the value.
    value: &'a [u8],
    pub(super) whole: &'a [u8],
}

impl<'a> Entry<'a> {
    /// The bytes of a long string.
    pub(super) fn long_string(&self) -> Option<&'a [u8]> {
        match self.value {
            [b'S', _, _, _, _, text @ ..] => Some(text),
            _ => None,
        }
    }
}

/// Appends an entry that holds a long string.
pub(super) fn push_long_string(table: &mut Vec<u8>, name: &str, value: &[u8]) {
    // Names are this module's, and values are parts of what was read: neither length overflows.
    table.push(u8::try_from(name.len()).unwrap_or(0));
    table.extend_from_slice(name.as_bytes());
    table.push(b'S');
    table.extend_from_slice(&u32::try_from(value.len()).unwrap_or(0).to_be_bytes());
    table.extend_from_slice(value);
}

/// The short string at `at`, and its end.
pub(super) fn take_short(bytes: &[u8], at: usize) -> Option<(&[u8], usize)> {
    let length = usize::from(*bytes.get(at)?);
    let end = at + 1 + length;
    Some((bytes.get(at + 1..end)?, end))
}

/// The bytes after the 32-bit length at `at`, and their end.
pub(super) fn take_long(bytes: &[u8], at: usize) -> Option<(&[u8], usize)> {
    let start = at.checked_add(4)?;
    let length = u32::from_be_bytes(bytes.get(at..start)?.try_into().ok()?);
    let end = start.checked_add(usize::try_from(length).ok()?)?;
    Some((bytes.get(start..end)?, end))
}

enum Value {
    Plain {
        end: usize,
    },
    Nested {
        start: usize,
        end: usize,
        is_table: bool,
    },
}

impl Value {
    /// The value whose type letter is at `at`.
    fn at(bytes: &[u8], at: usize) -> Option<Self> {
        let letter = *bytes.get(at)?;
        let start = at + 1;
        // The types that lapin supports; RabbitMQ has no others.
        let size = match letter {
            b'V' => 0,
            b't' | b'b' | b'B' => 1,
            b's' | b'U' | b'u' => 2,
            b'I' | b'i' | b'f' => 4,
            b'D' => 5,
            b'L' | b'l' | b'd' | b'T' => 8,
            b'S' | b'x' => {
                let (_, end) = take_long(bytes, start)?;
                return Some(Self::Plain { end });
            }
            b'A' | b'F' => {
                let (_, end) = take_long(bytes, start)?;
                return Some(Self::Nested {
                    start: start + 4,
                    end,
                    is_table: letter == b'F',
                });
            }
            _ => return None,
        };
        let end = start + size;
        (end <= bytes.len()).then_some(Self::Plain { end })
    }
}

#[derive(Debug, Clone, Copy, Default)]
struct Level {
    end: usize,
    is_table: bool,
}

/// The stack of tables and arrays around the current position.
struct Levels {
    levels: [Level; MAX_DEPTH],
    depth: usize,
}

impl Levels {
    fn new(end: usize) -> Self {
        let mut levels = [Level::default(); MAX_DEPTH];
        levels[0] = Level {
            end,
            is_table: true,
        };
        Self { levels, depth: 1 }
    }

    fn innermost(&self) -> Level {
        self.levels[self.depth - 1]
    }

    /// Pushes a level; `false` if that is too deep.
    fn enter(&mut self, level: Level) -> bool {
        let Some(free) = self.levels.get_mut(self.depth) else {
            return false;
        };
        *free = level;
        self.depth += 1;
        true
    }

    /// Pops a level; `false` if it was the outermost one.
    fn leave(&mut self) -> bool {
        self.depth -= 1;
        self.depth > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn long(bytes: &[u8]) -> Vec<u8> {
        let mut long = u32::try_from(bytes.len()).unwrap().to_be_bytes().to_vec();
        long.extend_from_slice(bytes);
        long
    }

    /// A table entry with nested arrays.
    fn nested(depth: usize) -> Vec<u8> {
        let mut value = b"V".to_vec();
        for _ in 0..depth {
            value = [b"A".to_vec(), long(&value)].concat();
        }
        [b"\x01a".to_vec(), value].concat()
    }

    #[test]
    fn tables_are_parsable_up_to_a_depth() {
        assert!(is_parsable(b""));
        assert!(is_parsable(&nested(MAX_DEPTH - 1)));
        assert!(!is_parsable(&nested(MAX_DEPTH)));
        assert!(!is_parsable(&nested(10_000)));
    }

    #[test]
    fn what_lapin_refuses_is_refused() {
        for table in [
            &b"\x01"[..],
            b"\x01a",
            b"\x01aZ",
            b"\x01\xffV",
            b"\x01aS\0\0\0\x02x",
            b"\x01aS\xff\xff\xff\xff",
            b"\x01aF\0\0\0\x03\x01bt",
            b"\x01aA\0\0\0\x02SS",
        ] {
            assert!(!is_parsable(table), "{table:?}");
        }
    }

    #[test]
    fn entries_end_at_the_first_invalid_one() {
        let mut table = Vec::new();
        push_long_string(&mut table, "one", b"\xff\xfe");
        table.extend_from_slice(b"\x03twot\x01");
        let whole = table.clone();
        table.extend_from_slice(b"\x05threeZ");
        let read: Vec<_> = entries(&table).collect();
        assert_eq!(read.len(), 2);
        assert_eq!(read[0].long_string(), Some(&b"\xff\xfe"[..]));
        assert_eq!((read[1].name, read[1].long_string()), (&b"two"[..], None));
        assert_eq!([read[0].whole, read[1].whole].concat(), whole);
    }
}
