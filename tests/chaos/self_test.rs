//! Tests ledger, oracle and tap before every run: each verdict is given for exactly the calls that deserve it.
//! The calls of these tests are made up, and take the path of real ones into a ledger of their own.

use std::sync::Arc;
use std::time::Duration;

use crate::call::{Argument, Batch, Call, Clock, Outcome, micros};
use crate::client::PATIENT;
use crate::excuse::Excuse;
use crate::fault::{Fault, Topology};
use crate::ledger::{Ledger, Tally};
use crate::oracle::{self, Oracle};
use crate::pauses::{Pauses, Stream};
use crate::stall::Ticker;
use crate::tap::{Marker, Protocol, Reader, Sender};
use crate::timeline::Timeline;

const HASTY: u64 = 2000;
/// One argument of the crasher for each behaviour.
const ANSWERS: Argument = Argument::Crasher(7);
const PANICS: Argument = Argument::Crasher(10_007);
const ABORTS: Argument = Argument::Crasher(20_007);

pub(crate) fn run(oracle: &Oracle) {
    wrong_answers_are_wrong(oracle);
    calls_are_late_after_the_bound();
    calls_without_an_end_are_lost();
    patient_calls_fail_under_certain_faults_only();
    patient_calls_outlive_elections();
    pauses_are_found();
    refused_replies_end_as_too_large();
    stored_answers_are_hits();
    crashers_have_errors_of_their_own(oracle);
    amqp_markers_are_recognized();
    redis_markers_are_recognized();
}

type Calls = Vec<(Argument, u64, Duration, Outcome)>;

/// A ledger with these calls in it, all of which ran under `fault`.
fn judged(calls: Calls, fault: Option<Fault>, apart: bool) -> Ledger {
    judged_by(Excuse::of(Topology::Single, apart), calls, fault.as_slice())
}

fn judged_by(excuse: Excuse, calls: Calls, faults: &[Fault]) -> Ledger {
    let clock = Clock::new();
    let timeline = Arc::new(Timeline::new(clock));
    for &fault in faults {
        timeline.begin(fault);
    }
    let now = clock.now();
    let ledger = Ledger::new(clock, timeline, excuse, Ticker::default());
    let call = |(argument, timeout_ms, late, outcome)| Call {
        start: now,
        end: now,
        timeout_ms,
        argument,
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

/// The numbers of wrong, lost, late and broken calls; each failure has a description.
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

/// The verdicts on one call.
fn one(
    argument: Argument,
    timeout_ms: u64,
    outcome: Outcome,
    fault: Option<Fault>,
    apart: bool,
) -> [u64; 4] {
    verdicts(&judged(
        vec![(argument, timeout_ms, Duration::ZERO, outcome)],
        fault,
        apart,
    ))
}

fn wrong_answers_are_wrong(oracle: &Oracle) {
    let right = |n, answer| oracle.judge(Argument::Fib(n), "cache", answer) != Outcome::Wrong;
    assert!(right(30, "832040") && right(0, "0") && right(100, "354224848179261915075"));
    for wrong in ["832041", "0832040", "832040\n", "1346269", ""] {
        assert!(!right(30, wrong));
    }
    let off_by_one = oracle.judge(Argument::Fib(30), "cache", "832041");
    assert_eq!(
        one(Argument::Fib(30), HASTY, off_by_one, None, false),
        [1, 0, 0, 0]
    );
    let right = oracle.judge(Argument::Fib(30), "cache", "832040");
    assert_eq!(one(Argument::Fib(30), HASTY, right, None, false), [0; 4]);
}

fn calls_are_late_after_the_bound() {
    let millis = Duration::from_millis;
    let late = |took, stalls| oracle::late(millis(took), millis(HASTY), millis(stalls));
    assert_eq!(late(HASTY + 50, 0), Duration::ZERO);
    assert_eq!(late(HASTY + 60, 20), Duration::ZERO);
    let late = late(HASTY + 60, 0);
    let ledger = judged(
        vec![(Argument::Fib(1), HASTY, late, failed("deadline"))],
        None,
        false,
    );
    assert_eq!(verdicts(&ledger), [0, 0, 1, 0]);
}

fn calls_without_an_end_are_lost() {
    assert_eq!(
        one(Argument::Fib(1), HASTY, Outcome::Lost, None, false),
        [0, 1, 0, 0]
    );
    let answered = || Outcome::Answered("cache".to_owned());
    let calls = vec![(Argument::Fib(1), HASTY, Duration::ZERO, answered()); 3];
    let ledger = judged(calls, None, false);
    ledger.client_ended(0, 3, true);
    assert_eq!(verdicts(&ledger), [0; 4]);
    // It began three and reported two.
    ledger.client_ended(0, 2, true);
    assert_eq!(verdicts(&ledger), [0, 1, 0, 0]);
}

fn patient_calls_fail_under_certain_faults_only() {
    let broken = |timeout_ms, code, fault, apart| {
        one(Argument::Fib(1), timeout_ms, failed(code), fault, apart) == [0, 0, 0, 1]
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

/// With several servers, a patient call may fail only if a stopped worker holds it while RabbitMQ elects.
fn patient_calls_outlive_elections() {
    let broken = |faults: &[Fault]| {
        let call = (
            Argument::Fib(1),
            PATIENT,
            Duration::ZERO,
            failed("deadline"),
        );
        let excuse = Excuse::of(Topology::Cluster, false);
        verdicts(&judged_by(excuse, vec![call], faults)) == [0, 0, 0, 1]
    };
    assert!(broken(&[]) && broken(&[Fault::NodeFreeze]) && broken(&[Fault::WorkerStop]));
    assert!(broken(&[
        Fault::NodeCut,
        Fault::PrimaryKill,
        Fault::WorkerKill
    ]));
    assert!(!broken(&[Fault::NodeFreeze, Fault::WorkerStop]));
}

/// The longest time without an answer that touches a fault, of hits in any third of the slots, and of computed ones.
fn pauses_are_found() {
    let mut pauses = Pauses::new(0);
    let second = 1_000_000;
    // As CLUSTER KEYSLOT says of `fib:30`, `fib:31` and `fib:32`.
    let [last, middle, first] = [30, 31, 32].map(Stream::hits_of);
    assert_eq!([first, middle, last], [0, 1, 2].map(Stream::Hits));
    for at in 0..20 {
        pauses.note(first, at * second / 2);
        if !(4..8).contains(&at) {
            pauses.note(middle, at * second / 2);
        }
        if at % 4 == 0 {
            pauses.note(Stream::Computed, at * second / 2);
        }
    }
    let millis = |hits, computed| [hits, computed].map(Duration::from_millis);
    assert_eq!(pauses.between(2 * second, 3 * second), millis(2500, 2000));
    assert_eq!(pauses.between(6 * second, 7 * second), millis(500, 2000));
}

/// An answer that is too large for the broker must end as `too-large`, and no other may.
fn refused_replies_end_as_too_large() {
    let (small, large) = (Argument::Fib(30), Argument::Fib(100_000));
    let ends = |argument, code, fault, apart| one(argument, PATIENT, failed(code), fault, apart);
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

/// An answer that was stored just before is a hit, unless the process was not scheduled.
fn stored_answers_are_hits() {
    let verdict = |source: &str, stored: Option<u64>, stall: u64| {
        let clock = Clock::new();
        let ticker = Ticker::default();
        let ledger = Ledger::new(
            clock,
            Arc::new(Timeline::new(clock)),
            Excuse::AnyFault,
            ticker.clone(),
        );
        let start = clock.now();
        ticker.note(Duration::from_millis(stall));
        let call = Call {
            start,
            end: start + 1000,
            timeout_ms: PATIENT,
            argument: Argument::Fib(30),
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

fn crashers_have_errors_of_their_own(oracle: &Oracle) {
    let wrong =
        |argument, outcome| one(argument, HASTY, outcome, Some(Fault::BrokerKill), false)[0] == 1;
    assert!(wrong(ANSWERS, oracle.judge(ANSWERS, "cache", "25 is safe")));
    assert!(!wrong(
        ANSWERS,
        oracle.judge(ANSWERS, "cache", "22 is safe")
    ));
    assert!(wrong(
        PANICS,
        oracle.judge(PANICS, "cache", "30022 is safe")
    ));
    assert!(wrong(
        ABORTS,
        oracle.judge(ABORTS, "cache", "60022 is safe")
    ));
    assert!(wrong(ANSWERS, failed("poison")) && wrong(ANSWERS, failed("failed")));
    assert!(wrong(PANICS, failed("poison")) && wrong(ABORTS, failed("failed")));
    assert!(!wrong(ANSWERS, failed("deadline")) && !wrong(ABORTS, failed("deadline")));
    // Also for a patient call without a fault.
    for (argument, code) in [(PANICS, "failed"), (ABORTS, "poison")] {
        assert_eq!(one(argument, PATIENT, failed(code), None, true), [0; 4]);
    }
}

/// In one piece, and in pieces down to a byte.
fn amqp_markers_are_recognized() {
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
        // A message body that looks like an ack.
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
        assert_eq!(seen(piece), [Marker::Reply, Marker::Ack]);
    }
}

fn redis_markers_are_recognized() {
    let mut worker = Reader::new(Protocol::Redis, Sender::Worker);
    assert_eq!(
        worker.read(b"*3\r\n$3\r\nSET\r\n$5\r\nfib:1\r\n$1\r\n1\r\n"),
        []
    );
    assert_eq!(
        worker.read(b"*2\r\n$3\r\nGET\r\n$5\r\nfib:1\r\n"),
        [Marker::Lookup]
    );
    let mut redis = Reader::new(Protocol::Redis, Sender::Server);
    assert_eq!(redis.read(b"+OK\r\n"), [], "OK before a lookup is no fill");
    assert_eq!(redis.read(b"$1\r\n1\r\n"), []);
    assert_eq!(redis.read(b"$-1\r\n"), [Marker::Miss]);
    assert_eq!(redis.read(b":1\r\n+OK\r\n"), [Marker::Stored]);
}
