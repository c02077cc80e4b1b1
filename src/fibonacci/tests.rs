//! Tests of the procedure through its public API, as workers and clients use it.

use std::mem;
use std::thread;
use std::time::{Duration, Instant};

use num_bigint::BigUint;
use proptest::prelude::*;

use super::*;

const ALGORITHMS: [Algorithm; 3] = [
    Algorithm::Doubling,
    Algorithm::Iterative,
    Algorithm::Memoized,
];

fn compute(n: u64) -> Decimal {
    Fibonacci::default().compute(&N(n), &Cancel::new()).unwrap()
}

/// Whether `text` is believed to be F(n), as if it came from Redis.
fn believed(n: u64, text: &str) -> bool {
    text.parse()
        .is_ok_and(|answer| Fibonacci::default().verify(&N(n), &answer))
}

/// F(0), F(1), … by the definition, on digits in groups of 18: shares no code with what is tested.
fn by_definition() -> impl Iterator<Item = String> {
    const BASE: u64 = 10u64.pow(18);
    let (mut this, mut next) = (vec![0], vec![1]);
    std::iter::from_fn(move || {
        let (last, rest) = this.split_last()?;
        let rest = rest.iter().rev().map(|group| format!("{group:018}"));
        let text = std::iter::once(last.to_string()).chain(rest).collect();
        let mut carry = 0;
        this.resize(next.len(), 0);
        for (group, other) in this.iter_mut().zip(&next) {
            carry += *group + other;
            (*group, carry) = (carry % BASE, carry / BASE);
        }
        if carry > 0 {
            this.push(carry);
        }
        mem::swap(&mut this, &mut next);
        Some(text)
    })
}

/// F(n) by all algorithms, which agree.
fn by_all(n: u64, memo: &Memo) -> Decimal {
    let cancel = Cancel::new();
    let number = doubling::doubling(n, &cancel).unwrap();
    let others = [
        doubling::memoized(n, memo, &cancel),
        additions::iterative(n, &cancel),
    ];
    for other in others {
        assert!(other.unwrap() == number, "F({n})");
    }
    number
}

#[test]
fn all_algorithms_are_right_for_every_small_n() {
    let memo = Memo::new(1 << 20);
    for (n, expected) in (0..=4000).zip(by_definition()) {
        assert_eq!(by_all(n, &memo).as_str(), expected, "F({n})");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, failure_persistence: None, ..Default::default() })]

    /// The check knows F(n) modulo a secret prime, from n and from the text alone.
    #[test]
    fn all_algorithms_are_right_for_any_n(n in 0u64..30_000, before in 0u64..30_000) {
        let memo = Memo::new(1 << 20);
        for m in [before, n / 2, n / 3, n] {
            prop_assert!(check::is_fibonacci(m, by_all(m, &memo).as_str()), "F({m})");
        }
    }
}

#[test]
fn all_algorithms_answer_alike_and_are_believed() {
    for algorithm in ALGORITHMS {
        let fibonacci = Fibonacci::new(algorithm);
        for (n, answer) in [
            (0, "0"),
            (1, "1"),
            (2, "1"),
            (30, "832040"),
            (93, "12200160415121876738"),
        ] {
            assert_eq!(
                fibonacci.compute(&N(n), &Cancel::new()).unwrap().as_str(),
                answer
            );
        }
        for n in (0..400).chain([1000, 4782, 12_345, 20_000]) {
            let answer = fibonacci.compute(&N(n), &Cancel::new()).unwrap();
            assert!(fibonacci.verify(&N(n), &answer), "{algorithm}: F({n})");
        }
    }
    // The first with a thousand digits; known from Project Euler, problem 25.
    assert_eq!(compute(4782).as_str().len(), 1000);
    assert_eq!(compute(4781).as_str().len(), 999);
}

#[test]
fn refuses_what_is_over_its_limit() {
    let too_large = |limit: u64| {
        Err(ComputeError::TooLarge(format!(
            "n is limited to {limit} here"
        )))
    };
    let compute = |fibonacci: Fibonacci, n| fibonacci.compute(&N(n), &Cancel::new());
    for algorithm in ALGORITHMS {
        let new = || Fibonacci::new(algorithm);
        assert_eq!(compute(new(), 1_000_001), too_large(1_000_000));
        assert_eq!(compute(new().max_n(9), 10), too_large(9));
        assert!(compute(new().max_n(9), 9).is_ok());
        assert_eq!(
            compute(new().max_n(u64::MAX), 1 << 32),
            too_large(u64::from(u32::MAX))
        );
    }
}

#[test]
fn believes_no_tutorial_worker_that_overflowed() {
    assert!(!believed(47, "-1323752223")); // Java
    assert!(!believed(79, "14472334024676220")); // JavaScript
    assert!(!believed(93, "-6246583658587674878")); // Go
    assert!(!believed(94, "1293530146158671551")); // Rust
}

#[test]
fn believes_nothing_beyond_what_it_can_verify() {
    assert!(!believed(1 << 32, "1"));
    assert!(!believed(u64::MAX, &"9".repeat(1000)));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..Default::default() })]

    #[test]
    fn believes_no_corrupted_answer(n in 3u64..20_000, at: prop::sample::Index, to in b'0'..=b'9', multiple in 1u64..) {
        let right = compute(n);
        let right = right.as_str();
        prop_assert!(believed(n, right));
        let at = at.index(right.len());

        let mut flipped = right.as_bytes().to_vec();
        flipped[at] = to;
        let mut swapped = right.as_bytes().to_vec();
        swapped.swap(at, at.saturating_sub(1));
        let wrong = [
            String::from_utf8(flipped).unwrap(),
            String::from_utf8(swapped).unwrap(),
            right[1..].to_owned(),
            right[..right.len() - 1].to_owned(),
            format!("{right}{}", char::from(to)),
            format!("0{right}"),
            format!("+{right}"),
            format!("{right}\n"),
            compute(n - 1).to_string(),
            compute(n + 1).to_string(),
        ];
        for wrong in wrong.iter().filter(|wrong| *wrong != right) {
            prop_assert!(!believed(n, wrong), "F({n}) = {right}, not {wrong}");
        }

        // What would fool a check modulo a fixed number.
        let number: BigUint = right.parse().unwrap();
        for fixed in [(1 << 61) - 1, 1 << 61, 998_244_353, 1_000_000_007, 999_999_999, 18_446_744_069_414_584_321_u64] {
            let wrong = (&number + BigUint::from(fixed) * multiple).to_string();
            prop_assert!(!believed(n, &wrong), "F({n}) + {multiple} * {fixed}");
        }
    }

    #[test]
    fn no_text_makes_it_panic(n: u64, text in "[0-9]{0,400}", any in ".{0,50}") {
        for n in [n, n % 2000, n >> 32] {
            believed(n, &text);
            believed(n, &any);
        }
    }
}

#[test]
fn does_nothing_once_cancelled() {
    let cancel = Cancel::new();
    cancel.cancel();
    for algorithm in ALGORITHMS {
        for n in [0, 30, 1_000_000] {
            let answer = Fibonacci::new(algorithm).compute(&N(n), &cancel);
            assert_eq!(answer, Err(ComputeError::Cancelled));
        }
    }
}

#[test]
fn stops_soon_after_it_is_cancelled() {
    let cancel = Cancel::new();
    thread::scope(|scope| {
        // Minutes of work, unless it is cancelled.
        let fibonacci = Fibonacci::new(Algorithm::Iterative).max_n(10_000_000);
        let (started, wait) = std::sync::mpsc::channel();
        let worker = scope.spawn({
            let cancel = cancel.clone();
            move || {
                started.send(()).unwrap();
                fibonacci.compute(&N(10_000_000), &cancel)
            }
        });
        wait.recv().unwrap();
        // Something else meanwhile, so that the worker gets to large numbers.
        compute(200_000);
        let cancelled = Instant::now();
        cancel.cancel();
        assert_eq!(worker.join().unwrap(), Err(ComputeError::Cancelled));
        // It takes microseconds; the rest is for a machine that is busy with other tests.
        assert!(cancelled.elapsed() < Duration::from_millis(200));
    });
}
