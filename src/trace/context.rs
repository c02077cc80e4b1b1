//! Parses and writes W3C's [Trace Context](https://www.w3.org/TR/trace-context/), which says which trace a request
//! belongs to. Pure.

use std::fmt;

/// Bytes of `00-TRACE-PARENT-FLAGS`.
const LENGTH: usize = 55;

/// The largest `traceparent` that is parsed: later versions may be longer than [`LENGTH`].
const MAX_LENGTH: usize = 256;

/// The largest `tracestate` that is passed on: the least that the specification requires.
const MAX_STATE_LENGTH: usize = 512;

/// A trace, the parent span in it, and the vendors' additions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TraceContext {
    /// Like `parent_id`, never zero.
    pub(crate) trace_id: u128,
    pub(crate) parent_id: u64,
    /// The lowest bit is set if the trace is recorded; the others are passed on.
    pub(crate) flags: u8,
    /// `tracestate`: printable ASCII, defined by vendors.
    pub(crate) state: Option<String>,
}

impl TraceContext {
    /// Parses both headers. `None` if `traceparent` is invalid: the span then has no parent.
    pub(crate) fn read(parent: &[u8], state: Option<&[u8]>) -> Option<Self> {
        if !(LENGTH..=MAX_LENGTH).contains(&parent.len()) {
            return None;
        }
        let version = number(&parent[..2], 0xff)?;
        // Later versions begin like version 0, and may go on after another dash.
        let ends = match (version, parent.get(LENGTH)) {
            (0xff, _) | (0, Some(_)) => false,
            (_, None) => true,
            (_, Some(next)) => *next == b'-',
        };
        if !ends || [2, 35, 52].iter().any(|&dash| parent[dash] != b'-') {
            return None;
        }
        Some(Self {
            trace_id: number(&parent[3..35], u128::MAX).filter(|&id| id != 0)?,
            parent_id: u64::try_from(number(&parent[36..52], u64::MAX.into())?)
                .ok()
                .filter(|&id| id != 0)?,
            flags: u8::try_from(number(&parent[53..55], 0xff)?).ok()?,
            state: state.and_then(valid_state),
        })
    }
}

/// The header `traceparent`.
impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            trace_id,
            parent_id,
            flags,
            ..
        } = self;
        write!(f, "00-{trace_id:032x}-{parent_id:016x}-{flags:02x}")
    }
}

/// Parses lower-case hexadecimal digits, up to `max`.
fn number(digits: &[u8], max: u128) -> Option<u128> {
    let mut number = 0;
    for digit in digits {
        let value = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        number = number << 4 | u128::from(value);
    }
    (number <= max).then_some(number)
}

/// The `tracestate` if it is valid. One that is too long or not printable is dropped, as the specification
/// requires.
fn valid_state(state: &[u8]) -> Option<String> {
    let fits = (1..=MAX_STATE_LENGTH).contains(&state.len());
    let printable = state.iter().all(|byte| (b' '..=b'~').contains(byte));
    let state = (fits && printable).then_some(state)?;
    String::from_utf8(state.to_vec()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const EXAMPLE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn read(parent: &str) -> Option<TraceContext> {
        TraceContext::read(parent.as_bytes(), None)
    }

    #[test]
    fn the_specifications_example_is_parsed() {
        let context = read(EXAMPLE).unwrap();
        assert_eq!(context.trace_id, 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736);
        assert_eq!(context.parent_id, 0x00f0_67aa_0ba9_02b7);
        assert_eq!(context.flags, 1);
        assert_eq!(context.to_string(), EXAMPLE);
    }

    #[test]
    fn an_invalid_context_is_none() {
        for wrong in [
            "",
            "00",
            // Upper case, all zero, an unknown version that is none, one byte more or less.
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0",
            "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01x",
            "0--4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00_4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e473600f067aa0ba902b7--01",
            "00-4bf92f3577b34da6a3ce929d0e0e473é-00f067aa0ba902b7-1",
            " 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        ] {
            assert_eq!(read(wrong), None, "{wrong:?}");
        }
        let endless = format!("01{}-{}", &EXAMPLE[2..], "0".repeat(300));
        assert_eq!(read(&endless), None);
    }

    #[test]
    fn the_known_part_of_a_later_version_is_parsed() {
        let later = format!("fe{}-more", &EXAMPLE[2..]);
        assert_eq!(read(&later), read(EXAMPLE));
    }

    #[test]
    fn an_invalid_state_is_dropped() {
        let long = "x".repeat(MAX_STATE_LENGTH + 1);
        for (state, expected) in [
            ("rojo=1,congo=2", Some("rojo=1,congo=2")),
            ("", None),
            ("a=\u{1b}[31m", None),
            ("a=é", None),
            (long.as_str(), None),
        ] {
            let context = TraceContext::read(EXAMPLE.as_bytes(), Some(state.as_bytes())).unwrap();
            assert_eq!(context.state.as_deref(), expected, "{state:?}");
        }
    }

    proptest! {
        #[test]
        fn a_written_context_is_parsed(trace_id in 1_u128.., parent_id in 1_u64.., flags: u8) {
            let context = TraceContext { trace_id, parent_id, flags, state: None };
            prop_assert_eq!(read(&context.to_string()), Some(context));
        }

        #[test]
        fn a_parsed_context_is_written_alike(
            parent in "[0-9a-f]{2}-[0-9a-fA-F]{31,33}-[0-9a-f]{15,17}-[0-9a-f]{1,3}(-.*)?",
        ) {
            if let Some(context) = read(&parent) {
                prop_assert_eq!(&context.to_string()[2..], &parent[2..LENGTH]);
            }
        }

        #[test]
        fn any_bytes_are_parsed_without_a_panic(
            parent in prop::collection::vec(any::<u8>(), 0..300),
            state in prop::collection::vec(any::<u8>(), 0..600),
        ) {
            let context = TraceContext::read(&parent, Some(&state));
            prop_assert!(context.is_none_or(|context| context.trace_id != 0));
        }
    }
}
