//! Tests of large numbers, against code that shares nothing with their arithmetic, and of the memo.

use proptest::prelude::*;

use super::super::check::is_fibonacci;
use super::*;

fn doubled(n: u64) -> String {
    doubling(n, &Cancel::new()).unwrap().to_string()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..Default::default() })]

    /// The check knows F(n) modulo a secret prime, from n and from the text alone.
    #[test]
    fn large_ones_are_right(n in 4000u64..1_000_000) {
        let text = doubled(n);
        prop_assert!(is_fibonacci(n, &text), "F({n})");
        let memo = Memo::new(4 << 20);
        for m in [n / 3, n, n / 2, n] {
            let number = memoized(m, &memo, &Cancel::new()).unwrap();
            prop_assert!(is_fibonacci(m, number.as_str()), "F({m})");
        }
    }
}

/// By Python: the first ones as φⁿ / √5 with 60 places, the last ones modulo 10²⁰.
#[test]
fn known_ones_have_their_digits() {
    for (n, len, first, last) in [
        (
            1_000_000,
            208_988,
            "19532821287077577316",
            "68996526838242546875",
        ),
        (
            10_000_000,
            2_089_877,
            "11298343782253997603",
            "86998673686380546875",
        ),
    ] {
        let text = doubled(n);
        assert_eq!(text.len(), len);
        assert!(text.starts_with(first) && text.ends_with(last), "F({n})");
    }
}

#[test]
fn a_second_call_starts_where_the_first_one_passed() {
    let (memo, cancel) = (Memo::new(1 << 20), Cancel::new());
    let first = memoized(1000, &memo, &cancel).unwrap();
    let held = |n| memo.longest_prefix(n).map(|pair| pair.k);
    assert_eq!(held(1000), Some(1000));
    assert_eq!(held(1001), Some(500));
    assert_eq!(held(8007), Some(1000));
    assert_eq!(held(124), None);
    assert_eq!(memoized(1000, &memo, &cancel), Ok(first));
}

/// Not even a conversion is started.
#[test]
fn nothing_is_computed_after_it_was_cancelled() {
    let (memo, cancel) = (Memo::new(1 << 20), Cancel::new());
    memoized(1000, &memo, &cancel).unwrap();
    cancel.cancel();
    let cancelled = Err(ComputeError::Cancelled);
    for n in [1000, 1001] {
        assert_eq!(memoized(n, &memo, &cancel), cancelled);
        assert_eq!(doubling(n, &cancel), cancelled);
    }
    let pair = Pair::first(1000);
    assert_eq!(pair.append(true, &cancel), Err(ComputeError::Cancelled));
}
