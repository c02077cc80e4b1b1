//! Against another implementation of large numbers, and on the largest limbs there can be.

use num_bigint::BigUint;
use proptest::prelude::*;

use super::*;

fn doubled(n: u64) -> String {
    doubling(n, &Cancel::new()).unwrap().to_string()
}

/// F(n − 1) and F(n) by other formulas of doubling, and by another crate.
fn expected(n: u64) -> (BigUint, BigUint) {
    let (mut this, mut next) = (BigUint::ZERO, BigUint::from(1u8));
    for bit in low_bits(n, bit_len(n)) {
        let even = &this * ((&next << 1) - &this);
        let odd = &this * &this + &next * &next;
        (this, next) = if bit {
            (odd.clone(), even + odd)
        } else {
            (even, odd)
        };
    }
    (next - &this, this)
}

fn number(width: Width, limbs: &[u32]) -> BigUint {
    width.text(limbs).parse().unwrap()
}

/// The limbs of a number, cut from its text.
fn limbs(width: Width, number: &BigUint) -> Vec<u32> {
    let limb = |digits| std::str::from_utf8(digits).unwrap().parse().unwrap();
    let text = number.to_string();
    let limbs = text.as_bytes().rchunks(width as usize).map(limb);
    limbs.filter(|_| *number > BigUint::ZERO).collect()
}

#[test]
fn every_small_one_is_right() {
    let (mut this, mut next) = (BigUint::ZERO, BigUint::from(1u8));
    for n in 0..=4000 {
        assert_eq!(doubled(n), this.to_string(), "F({n})");
        this += &next;
        std::mem::swap(&mut this, &mut next);
    }
}

/// Where limbs get narrower, and around every length of transforms: F(n) has some 0.209 n digits.
#[test]
fn those_around_thresholds_are_right() {
    let narrower = (1_000_000..1_100_000)
        .find(|n| Width::of(max_digits(n / 2), 3) == Width::Six)
        .unwrap();
    let mut ns = vec![narrower - 1, narrower, narrower + 1];
    for log in 5..15 {
        for count in [4 << log, 5 << log, 6 << log] {
            let n = count * 7 * 100_000 / 20_899;
            ns.extend([n - 34, n - 1, n, n + 1, n + 34]);
        }
    }
    for n in ns {
        assert_eq!(doubled(n), expected(n).1.to_string(), "F({n})");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..Default::default() })]

    #[test]
    fn any_is_right(n in 0u64..1_000_000) {
        prop_assert_eq!(doubled(n), expected(n).1.to_string());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..Default::default() })]

    /// The formulas and the products, on numbers that need not be Fibonacci's.
    #[test]
    fn steps_agree_with_another_crate(
        before in prop::collection::vec(any::<u8>(), 0..3000),
        this in prop::collection::vec(any::<u8>(), 0..3000),
        width in prop::sample::select(vec![Width::Five, Width::Six, Width::Seven]),
    ) {
        let p = BigUint::from_bytes_le(&before);
        // At least as long: of two neighbours the second is not the smaller.
        let a = BigUint::from_bytes_le(&this) + &p;
        let pair = Pair { k: 7, width, before: limbs(width, &p), this: limbs(width, &a) };
        let cancel = Cancel::new();
        let mut steps = Steps::new(&cancel);
        let odd = &p * &p + &a * &a;
        let even = &a * (&p + &p + &a);
        prop_assert_eq!(number(width, &steps.finish(&pair, true).unwrap()), even.clone());
        prop_assert_eq!(number(width, &steps.finish(&pair, false).unwrap()), odd.clone());
        let next = steps.append(&pair, false).unwrap();
        prop_assert_eq!((next.k, next.width), (14, width));
        prop_assert_eq!((number(width, &next.before), number(width, &next.this)), (odd.clone(), even.clone()));
        let next = steps.append(&pair, true).unwrap();
        prop_assert_eq!(next.k, 15);
        prop_assert_eq!((number(width, &next.before), number(width, &next.this)), (even.clone(), odd + even));
    }
}

/// With nines alone every coefficient is the largest possible, here at the largest number of digits
/// that a width is chosen for. That of five is left out: such products have 10⁹ digits.
#[test]
fn the_largest_limbs_do_not_overflow() {
    for (width, products) in [(Width::Seven, 3), (Width::Seven, 5), (Width::Six, 3)] {
        let digits = largest(width, products);
        let nines = vec![10u32.pow(width as u32) - 1; digits / width as usize];
        let len = nines.len();
        let pair = Pair {
            k: 1,
            width,
            before: nines.clone(),
            this: nines,
        };
        let cancel = Cancel::new();
        let mut steps = Steps::new(&cancel);
        if products == 3 {
            let even = steps.finish(&pair, true).unwrap();
            assert!(even == times_square_of_nines(width, len, 3), "{width:?}");
        } else {
            let next = steps.append(&pair, true).unwrap();
            assert!(next.before == times_square_of_nines(width, len, 3));
            assert!(next.this == times_square_of_nines(width, len, 5));
        }
    }
}

/// The largest number of digits, a multiple of the width, with which `width` is chosen.
fn largest(width: Width, products: u64) -> usize {
    let chosen = |limbs: u64| Width::of(limbs * width as u64, products) as u64 >= width as u64;
    let mut limbs = 0;
    for bit in (0..40).rev() {
        if chosen(limbs | 1 << bit) {
            limbs |= 1 << bit;
        }
    }
    usize::try_from(limbs).unwrap() * width as usize
}

/// f (bᵐ − 1)² = f b²ᵐ − 2 f bᵐ + f, for a base b and m limbs.
fn times_square_of_nines(width: Width, m: usize, f: u32) -> Vec<u32> {
    let base = 10u32.pow(width as u32);
    let mut limbs = vec![0; 2 * m + 1];
    limbs[0] = f;
    limbs[m] = base - 2 * f;
    limbs[m + 1..2 * m].fill(base - 1);
    limbs[2 * m] = f - 1;
    limbs
}

#[test]
fn five_digits_are_enough_for_all_that_can_be_verified() {
    // Six would not be.
    let half = max_digits(super::super::check::MAX_N / 2);
    assert_eq!(Width::of(half, 3), Width::Five);
    assert!(Width::Five.fits(half, 5));
    assert_eq!(Width::of(max_digits(40_000_000), 3), Width::Six);
    assert_eq!(Width::of(max_digits(500_000), 3), Width::Seven);
    assert!(2 * (half / 5 + 1) < 1 << 28);
}

#[test]
fn a_second_call_starts_where_the_first_one_passed() {
    let (memo, cancel) = (Memo::new(1 << 20), Cancel::new());
    let first = memoized(1000, &memo, &cancel).unwrap();
    let held = |n| memo.longest_prefix(n, Width::Seven).map(|pair| pair.k);
    assert_eq!(held(1000), Some(1000));
    assert_eq!(held(1001), Some(500));
    assert_eq!(held(8007), Some(1000));
    assert_eq!(held(126), None);
    assert_eq!(memo.longest_prefix(1000, Width::Six), None);
    // Nothing is left to do, so not even a cancelled call looks at the flag again.
    cancel.cancel();
    assert_eq!(memoized(1000, &memo, &cancel), Ok(first));
    assert_eq!(memoized(1001, &memo, &cancel), Err(ComputeError::Cancelled));
    assert_eq!(doubling(1001, &cancel), Err(ComputeError::Cancelled));
}

#[test]
fn widths_do_not_mix_in_the_memo() {
    let (memo, cancel) = (Memo::new(8 << 20), Cancel::new());
    // The second is too large for the limbs of the first, a prefix of it.
    for n in [600_000, 1_200_001, 600_000] {
        let number = memoized(n, &memo, &cancel).unwrap();
        assert_eq!(number.as_str(), doubled(n));
    }
    let held = |width| memo.longest_prefix(600_000, width).map(|pair| pair.k);
    assert_eq!(held(Width::Seven), Some(600_000));
    assert_eq!(held(Width::Six), Some(600_000));
}
