//! Tests the filter against lapin's parser, on generated frames, valid and hostile.

mod generator;

use amq_protocol::frame::AMQPFrame;
use amq_protocol::types::AMQPValue;
use fastrand::Rng;
use tokio::io::AsyncWriteExt as _;

use self::generator::{
    ChoppyStream, Publisher, correlation_id, filtered, frame, long, message, parsed, run, short,
};
use super::properties::{CORRELATION_BYTES, OVERSIZED};
use super::*;

/// The number of frames in each direction.
const GENERATED: usize = 500_000;

#[test]
fn lapin_can_parse_every_filtered_frame_and_parsable_ones_are_unchanged() {
    let (mut frames, mut changed) = (0, 0);
    for seed in 0.. {
        let mut publisher = Publisher {
            rng: Rng::with_seed(seed),
            is_shallow: true,
        };
        let messages: Vec<_> = (0..200).map(|_| message(&mut publisher)).collect();
        let incoming: Vec<u8> = messages
            .iter()
            .flat_map(|message| message.incoming.concat())
            .collect();
        let read = filtered(seed, &incoming).unwrap();
        let mut rest = &read[..];
        for message in messages {
            for expected in message.expected {
                let total = Envelope::read(rest).unwrap().total();
                let (frame, behind) = rest.split_at(total);
                rest = behind;
                frames += 1;
                let Some(expected) = expected else {
                    changed += 1;
                    assert!(frame.len() <= MAX_FRAME as usize, "seed {seed}");
                    let parsed = parsed(frame).expect("lapin can parse it");
                    if matches!(parsed, AMQPFrame::Header(..)) {
                        assert_eq!(
                            correlation_id(&parsed),
                            message.correlation_id,
                            "seed {seed}"
                        );
                    }
                    continue;
                };
                assert!(
                    frame == expected,
                    "seed {seed}: an honest frame was changed"
                );
            }
        }
        assert!(rest.is_empty(), "seed {seed}");
        if frames >= GENERATED {
            break;
        }
    }
    assert!(
        changed > frames / 20 && changed < frames / 2,
        "{changed} of {frames}"
    );
}

#[test]
fn oversized_bodies_are_dropped_and_the_rest_passes() {
    let header = |size: u64| {
        let flags_and_id = [&[0x04, 0][..], &short(b"id")].concat();
        [&[0, 60, 0, 0][..], &size.to_be_bytes(), &flags_and_id].concat()
    };
    let piece = frame(3, 1, &vec![b'x'; 60_000]);
    let other = [frame(1, 2, b"\0\x0a\0\x3d"), frame(8, 0, &[])].concat();
    let size = MAX_BODY + 1;
    let mut incoming = frame(2, 1, &header(size));
    let mut left = size;
    while left > 0 {
        let part = left.min(60_000);
        incoming.extend_from_slice(&if part == 60_000 {
            piece.clone()
        } else {
            frame(3, 1, &vec![b'x'; usize::try_from(part).unwrap()])
        });
        left -= part;
    }
    let last = frame(3, 1, b"the next message's");
    incoming.splice(..0, frame(1, 0, b"\0\x0a\0\x3d"));
    incoming.extend_from_slice(&other);
    incoming.extend_from_slice(&frame(2, 1, &header(18)));
    incoming.extend_from_slice(&last);
    // In chunks like a socket's: one byte at a time would take too long.
    let mut inbound = Inbound::new(MAX_FRAME);
    let mut read = Vec::new();
    for piece in incoming.chunks_mut(100_000) {
        let mut bytes = inbound.pending().to_vec();
        bytes.extend_from_slice(piece);
        let judged = inbound.judge_in_place(&mut bytes).unwrap();
        read.extend_from_slice(&bytes[..judged]);
        read.extend_from_slice(inbound.ready());
        inbound.take(inbound.ready().len());
        assert!(inbound.pending().len() < 100);
    }
    let first = frame(1, 0, b"\0\x0a\0\x3d").len();
    let total = Envelope::read(&read[first..]).unwrap().total();
    let Some(AMQPFrame::Header(1, bare)) = parsed(&read[first..first + total]) else {
        panic!("no header");
    };
    assert_eq!(bare.body_size, 0);
    assert_eq!(
        bare.properties.correlation_id().as_ref().unwrap().as_str(),
        "id"
    );
    let headers = bare.properties.headers().as_ref().unwrap().inner();
    assert_eq!(
        headers[OVERSIZED],
        AMQPValue::LongString(size.to_string().into())
    );
    let rest = [other, frame(2, 1, &header(18)), last].concat();
    assert!(read[first + total..] == rest);
}

#[test]
fn headers_of_any_size_are_reduced() {
    for size in [MAX_FRAME as usize, 1 << 20, 1 << 24] {
        let table = [short(b"big"), b"S".to_vec(), long(&vec![b'x'; size])].concat();
        let payload = [
            &[0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x20, 0][..],
            &long(&table),
        ]
        .concat();
        let begin = frame(1, 0, b"\0\x0a\0\x3d");
        let incoming = [begin.clone(), frame(2, 1, &payload), frame(8, 0, &[])].concat();
        let read = filtered(1, &incoming).unwrap();
        let reduced = &read[begin.len()..read.len() - 8];
        assert!(
            matches!(parsed(reduced), Some(AMQPFrame::Header(1, _))),
            "{size}"
        );
        assert!(reduced.len() < 100);
    }
}

#[test]
fn invalid_frames_end_the_connection_and_other_protocols_pass() {
    let method = frame(1, 0, b"\0\x0a\0\x3d");
    let endless = [1, 0, 0, 0x7f, 0xff, 0xff, 0xff];
    let no_end = [&method[..method.len() - 1], b"x"].concat();
    let unknown = [&method[..], &frame(9, 0, &[])].concat();
    let large_body = [&method[..], &[3, 0, 1, 0x7f, 0xff, 0xff, 0xff]].concat();
    for incoming in [&endless[..], &no_end, &unknown, &large_body] {
        let error = filtered(1, incoming).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        assert!(
            error.to_string().starts_with("the broker sent a frame"),
            "{error}"
        );
    }
    for foreign in [
        &b"AMQP\0\0\x09\x01"[..],
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"\x15\x03\x03\0\x02\x02\x28",
    ] {
        assert_eq!(filtered(1, foreign).unwrap(), foreign);
    }
}

/// What the broker receives of `writes`, written in chunks of random size.
fn sent(seed: u64, frame_max: u32, writes: &[u8]) -> Vec<u8> {
    let mut frames = Frames::new(ChoppyStream::new(seed, &[]), MAX_FRAME);
    frames.outbound.set_frame_max(frame_max);
    let mut rng = Rng::with_seed(seed);
    run(async {
        let mut rest = writes;
        while !rest.is_empty() {
            let count = if rng.bool() {
                rest.len()
            } else {
                rng.usize(1..=rest.len().min(50))
            };
            let written = frames.write(&rest[..count]).await.unwrap();
            rest = &rest[written..];
            if rng.bool() {
                frames.flush().await.unwrap();
            }
        }
        frames.flush().await.unwrap();
    });
    frames.stream.outgoing
}

#[test]
fn sent_frames_are_unchanged_except_for_correlation_bytes() {
    let mut frames = 0;
    for seed in 0.. {
        let mut publisher = Publisher {
            rng: Rng::with_seed(seed),
            is_shallow: true,
        };
        let mut writes = b"AMQP\0\0\x09\x01".to_vec();
        let mut expected = writes.clone();
        for _ in 0..200 {
            let channel = publisher.rng.u16(1..4);
            let publish = frame(1, channel, &publisher.deliver());
            let body = publisher.text();
            let size = (body.len() as u64).to_be_bytes();
            let body = frame(3, channel, &body);
            let id = publisher.text();
            let reply = |flags: u16, properties: &[u8]| {
                let payload =
                    [&[0, 60, 0, 0][..], &size, &flags.to_be_bytes(), properties].concat();
                frame(2, channel, &payload)
            };
            let source = [short(b"x-rpcache-source"), b"S".to_vec(), long(b"cache")].concat();
            let (written, on_the_wire) = if publisher.rng.bool() {
                let bytes = [
                    short(CORRELATION_BYTES.as_bytes()),
                    b"S".to_vec(),
                    long(&id),
                ]
                .concat();
                let both = [bytes, source.clone()].concat();
                (
                    reply(0x2000, &long(&both)),
                    reply(0x2400, &[long(&source), short(&id)].concat()),
                )
            } else {
                let plain = reply(0x2400, &[long(&source), short(&id)].concat());
                (plain.clone(), plain)
            };
            frames += 3;
            writes.extend([&publish[..], &written, &body].concat());
            expected.extend([&publish[..], &on_the_wire, &body].concat());
        }
        assert!(sent(seed, MAX_FRAME, &writes) == expected, "seed {seed}");
        if frames >= GENERATED {
            break;
        }
    }
}

#[test]
fn a_broker_with_smaller_frames_than_lapin_agrees_to_gets_smaller_frames() {
    let tune_ok = |frame_max: u32| {
        frame(
            1,
            0,
            &[
                &[0, 10, 0, 31, 7, 255][..],
                &frame_max.to_be_bytes(),
                &[0, 60],
            ]
            .concat(),
        )
    };
    let body: Vec<u8> = (0..8184_u32).map(|n| n.to_le_bytes()[0]).collect();
    let begin = b"AMQP\0\0\x09\x01".to_vec();
    let writes = [
        begin.clone(),
        tune_ok(8192),
        frame(3, 1, &body),
        frame(8, 0, &[]),
    ]
    .concat();
    for seed in 0..100 {
        for frame_max in [4096, 5000, 8191] {
            let parts = body
                .chunks(frame_max as usize - 8)
                .map(|part| frame(3, 1, part));
            let parts = parts.collect::<Vec<_>>().concat();
            let expected = [begin.clone(), tune_ok(frame_max), parts, frame(8, 0, &[])].concat();
            assert!(
                sent(seed, frame_max, &writes) == expected,
                "seed {seed}, {frame_max}"
            );
        }
        assert!(sent(seed, 8192, &writes) == writes, "seed {seed}");
    }
}
