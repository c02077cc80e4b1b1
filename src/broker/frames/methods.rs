//! Makes method frames from the broker parsable for lapin, in place. Pure.
//!
//! A delivery contains its publisher's exchange and routing key, which may be any bytes. rpcache reads neither, so
//! bytes that are not UTF-8 become question marks, which keeps the length.

use std::io;

use super::Envelope;
use super::table::{self, take_long, take_short};

const CONNECTION: u16 = 10;
const CHANNEL: u16 = 20;
const QUEUE: u16 = 50;
const BASIC: u16 = 60;

/// Class and method of `connection.tune`: channels, frame size, heartbeat.
const TUNE: (u16, u16) = (CONNECTION, 30);
const TUNE_OK: (u16, u16) = (CONNECTION, 31);
const TUNED_FRAME_MAX: std::ops::Range<usize> = 6..10;

/// The type of a method's argument.
enum Argument {
    Bytes(usize),
    Short,
    Long,
    Table,
}

/// The arguments of methods that a client receives and that contain text. lapin parses any other method.
fn arguments(method: (u16, u16)) -> &'static [Argument] {
    use Argument::{Bytes, Long, Short, Table};
    match method {
        // start, secure; open-ok, blocked, declare-ok, consume-ok and similar; close
        (CONNECTION, 10) => &[Bytes(2), Table, Long, Long],
        (CONNECTION, 20) => &[Long],
        (CONNECTION, 41 | 60) | (QUEUE, 11) | (BASIC, 21 | 30 | 31 | 72) => &[Short],
        (CONNECTION, 50) | (CHANNEL, 40) => &[Bytes(2), Short],
        // return, deliver, get-ok
        (BASIC, 50) => &[Bytes(2), Short, Short, Short],
        (BASIC, 60) => &[Short, Bytes(9), Short, Short],
        (BASIC, 71) => &[Bytes(9), Short, Short],
        _ => &[],
    }
}

/// Makes all text of a method UTF-8. Fails if the method violates AMQP or has a table that lapin cannot parse:
/// then the broker itself is at fault.
pub(super) fn make_parsable(payload: &mut [u8]) -> io::Result<()> {
    let mut at = 4;
    for argument in arguments(method(payload)) {
        let end = match argument {
            Argument::Bytes(size) => Some(at + size),
            Argument::Short => {
                let end = take_short(payload, at).map(|(_, end)| end);
                end.inspect(|&end| make_utf8(&mut payload[at + 1..end]))
            }
            Argument::Long => take_long(payload, at).map(|(_, end)| end),
            Argument::Table => take_long(payload, at)
                .filter(|(content, _)| table::is_parsable(content))
                .map(|(_, end)| end),
        };
        at = end.ok_or_else(|| super::broken("a method that cannot be parsed"))?;
    }
    Ok(())
}

/// The frame size that the broker offers, 0 for any, if the method is `connection.tune`.
pub(super) fn offered_frame_max(payload: &[u8]) -> Option<u32> {
    tuned(TUNE, payload)
}

/// The frame size that lapin agrees to, if the method is `connection.tune-ok`.
pub(super) fn agreed_frame_max(payload: &[u8]) -> Option<u32> {
    tuned(TUNE_OK, payload)
}

/// Replaces the frame size in lapin's `connection.tune-ok`.
pub(super) fn agree_frame_max(frame: &mut [u8], frame_max: u32) {
    let at = Envelope::SIZE + TUNED_FRAME_MAX.start;
    if let Some(field) = frame.get_mut(at..at + 4) {
        field.copy_from_slice(&frame_max.to_be_bytes());
    }
}

/// Whether the method closes its channel.
pub(super) fn ends_channel(payload: &[u8]) -> bool {
    matches!(method(payload), (CHANNEL, 40 | 41))
}

fn tuned(tune: (u16, u16), payload: &[u8]) -> Option<u32> {
    let frame_max = payload.get(TUNED_FRAME_MAX)?;
    (method(payload) == tune).then_some(u32::from_be_bytes(frame_max.try_into().ok()?))
}

/// Class and method; zeros if the payload is too short.
fn method(payload: &[u8]) -> (u16, u16) {
    match payload {
        &[a, b, c, d, ..] => (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])),
        _ => (0, 0),
    }
}

fn make_utf8(mut text: &mut [u8]) {
    while let Err(error) = std::str::from_utf8(text) {
        let start = error.valid_up_to();
        let end = error
            .error_len()
            .map_or(text.len(), |length| start + length);
        text[start..end].fill(b'?');
        text = &mut text[end..];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_becomes_utf8_in_place() {
        for (before, after) in [
            (&b"rpc_queue"[..], &b"rpc_queue"[..]),
            (b"\xff", b"?"),
            (b"a\xffb\xc3", b"a?b?"),
            ("aä€😀".as_bytes(), "aä€😀".as_bytes()),
            (b"\xf0\x9f\x98", b"???"),
        ] {
            let mut text = before.to_vec();
            make_utf8(&mut text);
            assert_eq!(text, after);
        }
    }

    #[test]
    fn only_the_routing_key_of_a_delivery_changes() {
        let mut deliver = b"\0\x3c\0\x3c\x03tag\0\0\0\0\0\0\0\x01\x01\x02e\xff\x01\x80".to_vec();
        make_parsable(&mut deliver).unwrap();
        assert_eq!(
            deliver,
            b"\0\x3c\0\x3c\x03tag\0\0\0\0\0\0\0\x01\x01\x02e?\x01?"
        );
    }

    #[test]
    fn truncated_methods_are_refused() {
        for method in [
            &b"\0\x3c\0\x3c\x03ta"[..],
            b"\0\x0a\0\x32\0",
            b"\0\x0a\0\x0a\0\x09\0\0\0\x02\xff",
        ] {
            assert!(make_parsable(&mut method.to_vec()).is_err(), "{method:?}");
        }
    }
}
