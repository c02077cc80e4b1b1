//! Verifies that a text is F(n): the check of every answer, from Redis or from a worker.
//!
//! Up to n = 186 the text is compared with a table. Above, its number of digits is checked first, then its
//! value modulo the secret prime of this process (`modulus.rs`). That takes nanoseconds, and 0.1 ms for the
//! 209 kB of n = 10⁶, which take 50 ms to compute. No text causes a panic, and no length makes the check slow:
//! a text with a wrong number of digits is refused before it is read.

use super::modulus::Modulus;

/// The largest n whose answer can be verified: what the constants of [`digits`] are exact for. Its
/// answer has 9 · 10⁸ digits, more than a Redis value can hold.
pub(super) const MAX_N: u64 = u32::MAX as u64;

/// F(0) to F(186): all that fit into 128 bits.
pub(super) static FIRST: [u128; 187] = {
    let mut first = [0; 187];
    first[1] = 1;
    let mut n = 2;
    while n < first.len() {
        first[n] = first[n - 1] + first[n - 2];
        n += 1;
    }
    first
};

/// Whether `text`, which is canonical, can be F(n). `false` above [`MAX_N`].
pub(super) fn is_fibonacci(n: u64, text: &str) -> bool {
    if let Some(&number) = usize::try_from(n).ok().and_then(|n| FIRST.get(n)) {
        return text.parse() == Ok(number);
    }
    let secret = Modulus::secret();
    digits(n) == Some(text.len()) && secret.decimal(text) == secret.fibonacci(n)
}

/// The number of digits of F(n), for n from 2 to [`MAX_N`].
///
/// F(n) is φⁿ / √5, rounded, so it has ⌊n log₁₀ φ − log₁₀ √5⌋ + 1 digits. With both logarithms to
/// 96 binary places the difference is off by less than 2⁻⁶⁴. It is never that close to a whole
/// number: for 186 < n < 2³² the least distance is 2.9 · 10⁻¹¹, at n = 3,316,234,264 (the ignored
/// test goes through them all), and below 2 · 10⁴ a test compares with the numbers themselves.
fn digits(n: u64) -> Option<usize> {
    const LOG_PHI: u128 = 0x3580_36c8_2451_b7f3_65d3_db24;
    const LOG_SQRT_5: u128 = 0x5977_d95e_c10c_0219_dc1d_a995;
    if !(2..=MAX_N).contains(&n) {
        return None;
    }
    // Below 2³² · 2⁹⁴; and 2 log₁₀ φ is more than log₁₀ √5.
    let log = u128::from(n) * LOG_PHI - LOG_SQRT_5;
    usize::try_from((log >> 96) + 1).ok()
}

#[cfg(test)]
mod tests {
    use num_bigint::BigUint;

    use super::*;

    #[test]
    fn the_table_is_right_at_its_end() {
        assert_eq!(FIRST[30], 832_040);
        assert_eq!(FIRST[93], 12_200_160_415_121_876_738);
        assert_eq!(
            FIRST[186],
            332_825_110_087_067_562_321_196_029_789_634_457_848
        );
        assert_eq!(FIRST[185].checked_add(FIRST[186]), None);
    }

    #[test]
    fn counts_digits_as_the_numbers_do() {
        let (mut this, mut next) = (BigUint::from(1u8), BigUint::from(2u8));
        let (mut power, mut len) = (BigUint::from(10u8), 1);
        for n in 2..=20_000 {
            if this >= power {
                power *= 10u8;
                len += 1;
            }
            assert_eq!(digits(n), Some(len), "F({n})");
            let sum = this + &next;
            (this, next) = (next, sum);
        }
        assert_eq!(len, 4180);
    }

    #[test]
    fn counts_digits_of_large_ones() {
        // By Python's `decimal` with 80 places. From 39,625,924 on each is the closest call so far.
        for (n, len) in [
            (100_000, 20_899),
            (1_000_000, 208_988),
            (10_000_000, 2_089_877),
            (1_000_000_000, 208_987_640),
            (MAX_N, 897_595_080),
            (39_625_924, 8_281_328),
            (103_534_579, 21_637_448),
            (519_112_806, 108_488_160),
            (3_316_234_263, 693_051_973),
            (3_316_234_264, 693_051_974),
        ] {
            assert_eq!(digits(n), Some(len), "F({n})");
        }
        for n in [0, 1, MAX_N + 1, u64::MAX] {
            assert_eq!(digits(n), None);
        }
    }

    #[test]
    fn refuses_other_lengths_even_from_one_who_knows_the_prime() {
        let secret = Modulus::secret();
        let residue = |n| BigUint::from(secret.fibonacci(n));
        // 10ᵏ p or a little more: congruent to F(n), and of 19 + k digits.
        let forged = |n, k| BigUint::from(10u8).pow(k) * secret.p + residue(n);
        let mut believed = 0;
        for n in [200, 1000, 5000] {
            for k in 0..1100 {
                let text = forged(n, k).to_string();
                assert!(secret.decimal(&text) == secret.fibonacci(n));
                if is_fibonacci(n, &text) {
                    assert_eq!(digits(n), Some(text.len()));
                    believed += 1;
                }
            }
        }
        // Of the right length they are what the check cannot tell: why the prime is secret.
        assert!(believed > 0);
        for n in [MAX_N + 1, u64::MAX] {
            assert!(!is_fibonacci(n, &residue(n).to_string()));
        }
    }

    #[test]
    #[ignore = "2³² steps take ten seconds in a release build"]
    fn no_number_of_digits_is_a_close_call() {
        // log₁₀ φ and log₁₀ √5 modulo 1, to 128 binary places.
        const LOG_PHI: u128 = 0x3580_36c8_2451_b7f3_65d3_db23_8455_99f5;
        const LOG_SQRT_5: u128 = 0x5977_d95e_c10c_0219_dc1d_a994_fd20_dba1;
        let mut log = LOG_SQRT_5.wrapping_neg();
        let mut least = (u128::MAX, 0);
        for n in 0..=MAX_N {
            let distance = log.min(log.wrapping_neg());
            if n > 186 && distance < least.0 {
                least = (distance, n);
            }
            log = log.wrapping_add(LOG_PHI);
        }
        assert_eq!(least.1, 3_316_234_264);
        assert!(least.0 >> 64 > 1 << 28, "closer than 2⁻³⁶: {:x}", least.0);
    }
}
