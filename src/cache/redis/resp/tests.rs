//! What is passed on, in whatever portions it comes.

use super::*;

const LIMITS: Limits = Limits {
    string: 1000,
    reply: 2500,
};

/// What is passed on of these portions.
fn checked(portions: &[&[u8]]) -> Result<Vec<u8>, Violation> {
    let mut checker = Checker::new(LIMITS);
    let mut passed = Vec::new();
    for portion in portions {
        let mut bytes = portion.to_vec();
        let kept = checker.check(&mut bytes)?;
        passed.extend_from_slice(&bytes[..kept]);
    }
    Ok(passed)
}

/// The same in one portion, and in two that are split at every position.
#[track_caller]
fn in_any_portions(bytes: &[u8], expected: &Result<Vec<u8>, Violation>) {
    assert_eq!(&checked(&[bytes]), expected);
    for at in 0..=bytes.len() {
        let (one, other) = bytes.split_at(at);
        assert_eq!(&checked(&[one, other]), expected, "split at {at}");
    }
    let single: Vec<_> = bytes.chunks(1).collect();
    assert_eq!(&checked(&single), expected, "byte by byte");
}

fn string(length: usize) -> Vec<u8> {
    let mut text = format!("${length}\r\n").into_bytes();
    text.extend(vec![b'\n'; length]);
    text.extend(b"\r\n");
    text
}

/// A reply of every shape that Redis sends, within the limits.
fn reply(rng: &mut fastrand::Rng, depth: usize) -> Vec<u8> {
    match rng.u8(..if depth < 4 { 8 } else { 7 }) {
        0 => b"+OK\r\n".to_vec(),
        1 => b"-ERR a\rb\nc\r\n".to_vec(),
        2 => format!(":{}\r\n", rng.i64(..)).into_bytes(),
        3 => b"$-1\r\n".to_vec(),
        4 => b"*-1\r\n".to_vec(),
        5 => b"+\r\n".to_vec(),
        6 => string(rng.usize(..20)),
        _ => {
            let elements = rng.usize(..4);
            let mut reply = format!("*{elements}\r\n").into_bytes();
            (0..elements).for_each(|_| reply.extend(self::reply(rng, depth + 1)));
            reply
        }
    }
}

#[test]
fn twenty_thousand_generated_replies_are_passed_on_as_they_come() {
    let mut rng = fastrand::Rng::with_seed(7);
    for _ in 0..20_000 {
        let replies: Vec<_> = (0..rng.usize(1..4)).map(|_| reply(&mut rng, 0)).collect();
        let bytes = replies.concat();
        let cuts = [(); 3].map(|()| rng.usize(..=bytes.len()));
        let (from, to) = (cuts[0].min(cuts[1]), cuts[0].max(cuts[1]));
        let portions = [&bytes[..from], &bytes[from..to], &bytes[to..]];
        assert_eq!(checked(&portions).as_ref(), Ok(&bytes), "{bytes:?}");
    }
}

#[test]
fn replies_are_passed_on_wherever_they_are_split() {
    let mut rng = fastrand::Rng::with_seed(3);
    for _ in 0..300 {
        let bytes = [reply(&mut rng, 0), reply(&mut rng, 0)].concat();
        in_any_portions(&bytes, &Ok(bytes.clone()));
    }
}

#[test]
fn twenty_thousand_generated_portions_of_garbage_end_or_pass_and_never_panic() {
    let mut rng = fastrand::Rng::with_seed(5);
    let alphabet = b"$*+-:0123456789\r\n\r\n(%>\x00\xff";
    for _ in 0..20_000 {
        let mut checker = Checker::new(LIMITS);
        for _ in 0..rng.usize(1..5) {
            let length = rng.usize(..40);
            let mut bytes: Vec<u8> = (0..length)
                .map(|_| alphabet[rng.usize(..alphabet.len())])
                .collect();
            match checker.check(&mut bytes) {
                Ok(kept) => assert!(kept <= length),
                Err(_) => break,
            }
        }
    }
}

#[test]
fn a_string_that_is_too_large_is_replaced_and_what_follows_is_passed_on() {
    let bytes = [string(1001), string(3)].concat();
    // The header is shorter than the error, so that nil stands there.
    let expected = [b"$-1\r\n".to_vec(), string(3)].concat();
    assert_eq!(checked(&[&bytes]), Ok(expected.clone()));
    // Behind its header, it may come in any portions.
    for at in 7..bytes.len() {
        let (one, other) = bytes.split_at(at);
        assert_eq!(checked(&[one, other]).as_ref(), Ok(&expected), "{at}");
    }
    // Within it, half of it is with redis-rs already.
    for at in 1..7 {
        let (one, other) = bytes.split_at(at);
        assert_eq!(checked(&[one, other]), Err(Violation::String(1001)), "{at}");
    }
}

#[test]
fn at_the_default_limits_an_error_says_that_a_string_was_too_large() {
    let string = 64 << 20;
    let mut checker = Checker::new(Limits {
        string,
        reply: string,
    });
    let mut header = format!("${}\r\n", string + 1).into_bytes();
    let kept = checker.check(&mut header).unwrap();
    assert_eq!(&header[..kept], b"-TOOBIG\r\n");
    let mut left = string + 3;
    while left > 0 {
        let mut some = vec![b'$'; usize::try_from(left.min(1 << 20)).unwrap()];
        left -= some.len() as u64;
        assert_eq!(checker.check(&mut some), Ok(0));
    }
    let mut next = b":1\r\n".to_vec();
    assert_eq!(checker.check(&mut next), Ok(4));
}

#[test]
fn within_an_array_nil_stands_for_what_is_too_large_alone_or_together() {
    let nil = b"$-1\r\n".to_vec();
    let head = b"*4\r\n".to_vec();
    let bytes = [head.clone(), string(1001), string(1), string(2), string(0)].concat();
    let expected = [head.clone(), nil.clone(), string(1), string(2), string(0)].concat();
    assert_eq!(checked(&[&bytes]), Ok(expected));
    let bytes = [
        head.clone(),
        string(1000),
        string(1000),
        string(501),
        string(500),
    ];
    let expected = [head, string(1000), string(1000), nil, string(500)].concat();
    // The next reply has all of it again.
    let twice = [bytes.concat(), bytes.concat()].concat();
    assert_eq!(
        checked(&[&twice]),
        Ok([expected.clone(), expected].concat())
    );
}

#[test]
fn what_no_redis_sends_ends_it_wherever_it_is_split() {
    let nested = |depth: usize| "*1\r\n".repeat(depth) + ":1\r\n";
    let long = |mark: &str| format!("{mark}{}\r\n", "x".repeat(MAX_LINE));
    for (text, expected) in [
        ("HTTP/1.1 400 Bad Request\r\n", Violation::NotRedis),
        ("AMQP\0\0\u{9}\u{1}", Violation::NotRedis),
        ("(12345678901234567890\r\n", Violation::Type(b'(')),
        ("%1\r\n+a\r\n+b\r\n", Violation::Type(b'%')),
        (">1\r\n+a\r\n", Violation::Type(b'>')),
        ("*2\r\n:1\r\n_\r\n", Violation::Type(b'_')),
        (":1\r\nHTTP", Violation::Type(b'H')),
        ("$3\r\nabc\r\nx", Violation::Type(b'x')),
        ("$x\r\n", Violation::NoLength),
        ("$\r\n", Violation::NoLength),
        ("$-2\r\n", Violation::NoLength),
        ("$+5\r\n", Violation::NoLength),
        ("$ 5\r\n", Violation::NoLength),
        ("$5\n", Violation::NoLength),
        ("$1\r2\n", Violation::NoLength),
        ("*1234567890123456789\r\n", Violation::NoLength),
        ("$536870913\r\n", Violation::String((512 << 20) + 1)),
        ("$2147483648\r\nabc", Violation::String(1 << 31)),
        ("*131073\r\n", Violation::Elements((1 << 17) + 1)),
        (&nested(9), Violation::Depth),
    ] {
        in_any_portions(text.as_bytes(), &Err(expected));
        // Behind a reply as well.
        if expected != Violation::NotRedis {
            let later = format!("+OK\r\n{text}");
            in_any_portions(later.as_bytes(), &Err(expected));
        }
    }
    for mark in ["+", "-", ":"] {
        assert_eq!(checked(&[long(mark).as_bytes()]), Err(Violation::Line));
        let endless = "x".repeat(1000);
        let portions: Vec<_> = [mark.as_bytes()]
            .into_iter()
            .chain((0..100).map(|_| endless.as_bytes()))
            .collect();
        assert_eq!(checked(&portions), Err(Violation::Line));
    }
    in_any_portions(nested(8).as_bytes(), &Ok(nested(8).into_bytes()));
}

#[test]
fn the_latest_error_can_be_taken_wherever_it_is_split() {
    let bytes = b"*2\r\n-READONLY no\r\n:1\r\n+OK\r\n";
    for at in 0..=bytes.len() {
        let mut checker = Checker::new(LIMITS);
        let (one, other) = bytes.split_at(at);
        for portion in [one, other] {
            let mut portion = portion.to_vec();
            checker.check(&mut portion).unwrap();
        }
        assert_eq!(checker.take_refusal().as_deref(), Some(&b"READONLY no"[..]));
        assert_eq!(checker.take_refusal(), None);
    }
    let mut long = format!("-{}\r\n", "x".repeat(1000)).into_bytes();
    let mut checker = Checker::new(LIMITS);
    checker.check(&mut long).unwrap();
    assert_eq!(checker.take_refusal().map(|line| line.len()), Some(KEPT));
}

/// redis-rs and the checker agree on where each value ends.
#[test]
fn redis_rs_reads_the_same_values() {
    let mut rng = fastrand::Rng::with_seed(11);
    for _ in 0..2000 {
        let one = reply(&mut rng, 0);
        let mut checker = Checker::new(LIMITS);
        let mut bytes = one.clone();
        assert_eq!(checker.check(&mut bytes), Ok(one.len()));
        assert!(matches!(checker.position, Position::Type) && checker.depth == 0);
        redis::parse_redis_value(&one).unwrap();
        // Without its end, it is complete for neither.
        let short = &one[..one.len() - 1];
        let mut checker = Checker::new(LIMITS);
        checker.check(&mut short.to_vec()).unwrap();
        assert!(!matches!(checker.position, Position::Type) || checker.depth > 0);
        assert!(redis::parse_redis_value(short).is_err());
    }
}
