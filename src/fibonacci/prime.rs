//! Drawing a 61-bit prime at random, once per process, for `modulus.rs`.

use std::hash::{BuildHasher, RandomState};

use super::modulus::Modulus;

/// A prime from 2⁶⁰ to 2⁶¹, each about as likely as any other.
///
/// The randomness is the standard library's: `SipHash` of a counter, under a 128-bit key from the
/// operating system. No peer sees a hash of it, the 60 bits are needed once per process, and unlike
/// reading random bytes it cannot fail.
pub(super) fn random_prime() -> u64 {
    let hasher = RandomState::new();
    // Every 21st odd number of that size is a prime, so the default is never reached.
    (0u32..100_000)
        .map(|counter| (hasher.hash_one(counter) >> 4) | 1 << 60 | 1)
        .find(|&candidate| is_prime(candidate))
        .unwrap_or((1 << 61) - 1)
}

/// The Miller–Rabin test of an odd number from 2⁶⁰ to 2⁶¹. With the first twelve primes as bases it
/// is a proof up to 3.18 · 10²³ (Sorenson and Webster, "Strong pseudoprimes to twelve prime bases",
/// 2017).
fn is_prime(candidate: u64) -> bool {
    let modulus = Modulus::new(candidate);
    let one = modulus.montgomery(1);
    let minus_one = candidate - one;
    let twos = (candidate - 1).trailing_zeros();
    [2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37]
        .into_iter()
        .all(|base| {
            let mut power = modulus.power(modulus.montgomery(base), (candidate - 1) >> twos);
            power == one
                || (0..twos).any(|_| {
                    let found = power == minus_one;
                    power = modulus.product(power, power);
                    found
                })
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_primes() {
        let first: Vec<u64> = (0..200)
            .map(|i| (1 << 60) + 1 + 2 * i)
            .filter(|&n| is_prime(n))
            .collect();
        let offsets = [
            33, 91, 105, 147, 151, 213, 225, 253, 277, 315, 325, 333, 387,
        ];
        assert_eq!(first, offsets.map(|offset| (1 << 60) + offset));
        assert!(is_prime((1 << 61) - 1));
        for composite in [
            // A square and a product of two primes.
            1_152_921_511_049_297_929,
            1_729_382_267_110_817_807,
            // Carmichael numbers.
            1_154_558_595_724_288_849,
            1_163_545_076_159_797_321,
            // Strong pseudoprimes to the bases 2, 3 and 5.
            1_297_396_440_731_137_321,
            1_297_916_277_379_106_941,
            1_297_996_707_670_484_221,
        ] {
            assert!(!is_prime(composite), "{composite}");
        }
    }

    #[test]
    fn draws_another_prime_each_time() {
        let mut primes: Vec<u64> = (0..50).map(|_| random_prime()).collect();
        assert!(
            primes
                .iter()
                .all(|&p| p >> 60 == 1 && is_prime(p) && p != (1 << 61) - 1)
        );
        primes.sort_unstable();
        primes.dedup();
        assert_eq!(primes.len(), 50);
    }
}
