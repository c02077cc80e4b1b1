//! The judges are judged before every run: each verdict is reached by what deserves it, and by no
//! less. Forged calls go the way of real ones, into a ledger of their own.

use std::sync::Arc;
use std::time::Duration;

use crate::client::PATIENT;
use crate::fault::Fault;
use crate::ledger::{Ledger, Tally};
use crate::oracle::{self, Oracle};
use crate::record::{Asked, Batch, Call, Clock, Outcome, micros};
use crate::stall::Ticker;
use crate::tap::{Protocol, Reader, Sender, Sight};
use crate::timeline::Timeline;

const HASTY: u64 = 2000;
/// One of each nature.
const SAFE: Asked = Asked::Trap(7);
const PANICS: Asked = Asked::Trap(10_007);
const KILLS: Asked = Asked::Trap(20_007);

pub(crate) fn run(oracle: &Oracle) {
    answers(oracle);
    moments();
    missing_calls();
    patient_calls();
    refused_replies();
    stored_answers();
    traps(oracle);
    frames();
    commands();
}

/// A ledger with these calls in it, all of which ran under `fault`.
fn judged(
    calls: Vec<(Asked, u64, Duration, Outcome)>,
    fault: Option<Fault>,
    apart: bool,
) -> Ledger {
    let clock = Clock::new();
    let timeline = Arc::new(Timeline::new(clock));
    if let Some(fault) = fault {
        timeline.begin(fault);
    }
    let now = clock.now();
    let ledger = Ledger::new(clock, timeline, apart, Ticker::default());
    let call = |(asked, timeout_ms, late, outcome)| Call {
        start: now,
        end: now,
        timeout_ms,
        asked,
        cached: true,
        stored: None,
        late: micros(late),
        outcome,
    };
    ledger.take(
        0,
        Batch {
            begun: calls.len() as u64,
            calls: calls.into_iter().map(call).collect(),
            stall: 0,
            last: true,
        },
    );
    ledger
}

/// Wrong, lost, late, broken; and nothing of it unless it is told.
fn verdicts(ledger: &Ledger) -> [u64; 4] {
    let tally = ledger.tally();
    let Tally {
        wrong,
        lost,
        late,
        broken,
        ..
    } = *tally;
    let verdicts = [wrong, lost, late, broken];
    assert_eq!(tally.failures.is_empty(), verdicts == [0; 4]);
    verdicts
}

fn failed(code: &str) -> Outcome {
    Outcome::Failed(code.to_owned(), String::new())
}

fn one(
    asked: Asked,
    timeout_ms: u64,
    outcome: Outcome,
    fault: Option<Fault>,
    apart: bool,
) -> [u64; 4] {
    verdicts(&judged(
        vec![(asked, timeout_ms, Duration::ZERO, outcome)],
        fault,
        apart,
    ))
}

fn answers(oracle: &Oracle) {
    let right = |n, answer| oracle.judge(Asked::Fib(n), "cache", answer) != Outcome::Wrong;
    assert!(right(30, "832040") && right(0, "0") && right(100, "354224848179261915075"));
    for wrong in ["832041", "0832040", "832040\n", "1346269", ""] {
        assert!(!right(30, wrong));
    }
    let off_by_one = oracle.judge(Asked::Fib(30), "cache", "832041");
    assert_eq!(
        one(Asked::Fib(30), HASTY, off_by_one, None, false),
        [1, 0, 0, 0]
    );
    let right = oracle.judge(Asked::Fib(30), "cache", "832040");
    assert_eq!(one(Asked::Fib(30), HASTY, right, None, false), [0; 4]);
}

fn moments() {
    let millis = Duration::from_millis;
    let late = |took, stalls| oracle::late(millis(took), millis(HASTY), millis(stalls));
    assert_eq!(late(HASTY + 50, 0), Duration::ZERO);
    assert_eq!(late(HASTY + 60, 20), Duration::ZERO);
    let late = late(HASTY + 60, 0);
    let ledger = judged(
        vec![(Asked::Fib(1), HASTY, late, failed("deadline"))],
        None,
        false,
    );
    assert_eq!(verdicts(&ledger), [0, 0, 1, 0]);
}

fn missing_calls() {
    assert_eq!(
        one(Asked::Fib(1), HASTY, Outcome::Lost, None, false),
        [0, 1, 0, 0]
    );
    let answered = || Outcome::Answered("cache".to_owned());
    let calls = vec![(Asked::Fib(1), HASTY, Duration::ZERO, answered()); 3];
    let ledger = judged(calls, None, false);
    ledger.client_ended(0, 3, true);
    assert_eq!(verdicts(&ledger), [0; 4]);
    // It began three and has told of two.
    ledger.client_ended(0, 2, true);
    assert_eq!(verdicts(&ledger), [0, 1, 0, 0]);
}

fn patient_calls() {
    let broken = |timeout_ms, code, fault, apart| {
        one(Asked::Fib(1), timeout_ms, failed(code), fault, apart) == [0, 0, 0, 1]
    };
    assert!(broken(PATIENT, "deadline", None, false));
    assert!(!broken(HASTY, "deadline", None, false));
    assert!(!broken(PATIENT, "deadline", Some(Fault::BrokerKill), false));
    assert!(broken(PATIENT, "deadline", Some(Fault::BrokerKill), true));
    assert!(!broken(
        PATIENT,
        "overloaded",
        Some(Fault::BrokerAlarm),
        true
    ));
    assert!(broken(PATIENT, "deadline", Some(Fault::BrokerAlarm), true));
    assert!(broken(PATIENT, "overloaded", Some(Fault::RedisFull), true));
}

/// An answer that the broker takes no more ends as `too-large`, and no other does.
fn refused_replies() {
    let (small, large) = (Asked::Fib(30), Asked::Fib(100_000));
    let ends = |asked, code, fault, apart| one(asked, PATIENT, failed(code), fault, apart);
    let refused = Some(Fault::ReplyRefused);
    assert_eq!(ends(large, "too-large", refused, true), [0; 4]);
    assert_eq!(ends(small, "too-large", refused, false), [1, 0, 0, 0]);
    assert_eq!(ends(large, "too-large", None, false), [1, 0, 0, 0]);
    assert_eq!(
        ends(large, "too-large", Some(Fault::BrokerKill), false),
        [1, 0, 0, 0]
    );
    assert_eq!(ends(large, "deadline", refused, true), [0, 0, 0, 1]);
    assert_eq!(ends(small, "nobody-serving", refused, true), [0, 0, 0, 1]);
}

/// What was stored a moment before is a hit, unless this process did not get to run.
fn stored_answers() {
    let verdict = |source: &str, stored: Option<u64>, stall: u64| {
        let clock = Clock::new();
        let ticker = Ticker::default();
        let ledger = Ledger::new(clock, Arc::new(Timeline::new(clock)), false, ticker.clone());
        let start = clock.now();
        ticker.note(Duration::from_millis(stall));
        let call = Call {
            start,
            end: start + 1000,
            timeout_ms: PATIENT,
            asked: Asked::Fib(30),
            cached: true,
            stored,
            late: 0,
            outcome: Outcome::Answered(source.to_owned()),
        };
        let batch = Batch {
            begun: 1,
            calls: vec![call],
            stall: 0,
            last: true,
        };
        ledger.take(0, batch);
        verdicts(&ledger)
    };
    assert_eq!(verdict("cache", Some(0), 0), [0; 4]);
    assert_eq!(verdict("computed", Some(0), 0), [0, 0, 0, 1]);
    assert_eq!(verdict("computed", Some(5000), 5), [0, 0, 0, 1]);
    assert_eq!(verdict("computed", None, 0), [0; 4]);
    assert_eq!(verdict("computed", Some(0), 100), [0; 4]);
    assert_eq!(verdict("computed", Some(100_000), 0), [0; 4]);
}

fn traps(oracle: &Oracle) {
    let wrong = |asked, outcome| one(asked, HASTY, outcome, Some(Fault::BrokerKill), false)[0] == 1;
    assert!(wrong(SAFE, oracle.judge(SAFE, "cache", "25 is safe")));
    assert!(!wrong(SAFE, oracle.judge(SAFE, "cache", "22 is safe")));
    assert!(wrong(
        PANICS,
        oracle.judge(PANICS, "cache", "30022 is safe")
    ));
    assert!(wrong(KILLS, oracle.judge(KILLS, "cache", "60022 is safe")));
    assert!(wrong(SAFE, failed("poison")) && wrong(SAFE, failed("failed")));
    assert!(wrong(PANICS, failed("poison")) && wrong(KILLS, failed("failed")));
    assert!(!wrong(SAFE, failed("deadline")) && !wrong(KILLS, failed("deadline")));
    // Even without a fault and with all patience.
    for (asked, code) in [(PANICS, "failed"), (KILLS, "poison")] {
        assert_eq!(one(asked, PATIENT, failed(code), None, true), [0; 4]);
    }
}

/// Whole, and byte by byte.
fn frames() {
    let frame = |kind, payload: &[u8]| {
        let size = u32::try_from(payload.len())
            .expect("it is short")
            .to_be_bytes();
        [&[kind, 0, 1], &size[..], payload, &[0xCE]].concat()
    };
    let sent = [
        b"AMQP\0\0\x09\x01".to_vec(),
        frame(8, &[]),
        frame(1, &[0, 60, 0, 40, 1, 2, 3]),
        // A body that looks like an ack.
        frame(3, &frame(1, &[0, 60, 0, 80])),
        frame(1, &[0, 60, 0, 20]),
        frame(1, &[0, 60, 0, 80, 0]),
    ]
    .concat();
    let seen = |piece| {
        let mut reader = Reader::new(Protocol::Amqp, Sender::Worker);
        sent.chunks(piece)
            .flat_map(|piece| reader.read(piece))
            .collect::<Vec<_>>()
    };
    for piece in [1, 2, 3, 5, 8, sent.len()] {
        assert_eq!(seen(piece), [Sight::Reply, Sight::Ack]);
    }
}

fn commands() {
    let mut worker = Reader::new(Protocol::Redis, Sender::Worker);
    assert_eq!(
        worker.read(b"*3\r\n$3\r\nSET\r\n$5\r\nfib:1\r\n$1\r\n1\r\n"),
        []
    );
    assert_eq!(
        worker.read(b"*2\r\n$3\r\nGET\r\n$5\r\nfib:1\r\n"),
        [Sight::Lookup]
    );
    let mut redis = Reader::new(Protocol::Redis, Sender::Server);
    assert_eq!(redis.read(b"+OK\r\n"), [], "nothing was looked up yet");
    assert_eq!(redis.read(b"$1\r\n1\r\n"), []);
    assert_eq!(redis.read(b"$-1\r\n"), [Sight::Nothing]);
    assert_eq!(redis.read(b":1\r\n+OK\r\n"), [Sight::Stored]);
}
