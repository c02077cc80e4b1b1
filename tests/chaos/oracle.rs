//! Knows the right answer of every call, and when a call is late. F(n) is computed by decimal additions,
//! without code of the product, and kept as one hash for each argument in use.

use std::hash::{DefaultHasher, Hasher};
use std::io;
use std::path::Path;
use std::time::Duration;

use crate::call::{Argument, Outcome};
use crate::crasher::{self, Behaviour};

/// Time that a call may take beyond its deadline.
const BOUND: Duration = Duration::from_millis(50);

/// The cache budget of a call.
pub(crate) const BUDGET: Duration = Duration::from_millis(50);
/// A stall of a process within that budget that may have turned a hit into a miss.
pub(crate) const COSTS_A_HIT: Duration = Duration::from_millis(25);

/// Most calls are for arguments below this.
pub(crate) const COMMON: u64 = 20_000;
/// The first of the arguments that are expensive to compute, and their number.
const EXPENSIVE: u64 = 100_000;
const EXPENSIVE_COUNT: u64 = 64;
/// The number of hot arguments: see [`hot`].
const HOT: u64 = 500;

/// The hot argument with this rank, from 0: the lower the rank, the more calls.
pub(crate) fn hot(rank: u64) -> u64 {
    rank * 7919 % COMMON
}

/// Draws an argument: `hits` percent are hot ones, by Zipf's law; one percent of the others is expensive.
pub(crate) fn draw(rng: &mut fastrand::Rng, hits: f64) -> u64 {
    if rng.f64() * 100.0 < hits {
        // The logarithm of the rank is uniform: Zipf's law, near enough.
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "small and positive"
        )]
        return hot((HOT as f64).powf(rng.f64()) as u64 - 1);
    }
    match rng.u64(0..100) {
        0 => EXPENSIVE + rng.u64(0..EXPENSIVE_COUNT),
        _ => rng.u64(0..COMMON),
    }
}

/// Answers of expensive arguments are longer than this, in bytes; all others are shorter.
pub(crate) const LARGE: u64 = 10_000;

/// Some expensive arguments.
pub(crate) fn large(draw: u64) -> impl Iterator<Item = u64> {
    (0..4).map(move |n| EXPENSIVE + (draw % EXPENSIVE_COUNT + n * 7) % EXPENSIVE_COUNT)
}

pub(crate) fn is_large(n: u64) -> bool {
    n >= EXPENSIVE
}

pub(crate) struct Oracle(Vec<u64>);

impl Oracle {
    /// Computes all answers, in about a second.
    pub(crate) fn compute() -> Self {
        let mut hashes = Vec::new();
        each_fibonacci(EXPENSIVE + EXPENSIVE_COUNT, |n, limbs| {
            if position(n).is_some() {
                hashes.push(hash(text(limbs).as_bytes()));
            }
        });
        Self(hashes)
    }

    pub(crate) fn write(&self, path: &Path) -> io::Result<()> {
        let bytes = self.0.iter().flat_map(|hash| hash.to_le_bytes());
        std::fs::write(path, bytes.collect::<Vec<u8>>())
    }

    pub(crate) fn read(path: &Path) -> io::Result<Self> {
        let bytes = std::fs::read(path)?;
        let (hashes, _) = bytes.as_chunks::<8>();
        Ok(Self(
            hashes
                .iter()
                .map(|hash| u64::from_le_bytes(*hash))
                .collect(),
        ))
    }

    /// Whether an answer is right.
    pub(crate) fn judge(&self, argument: Argument, source: &str, answer: &str) -> Outcome {
        let right = match argument {
            Argument::Fib(n) => position(n).is_some_and(|at| self.0[at] == hash(answer.as_bytes())),
            Argument::Crasher(n) => {
                crasher::behaviour(n) == Behaviour::Answers && answer == crasher::answer(n)
            }
        };
        if right {
            Outcome::Answered(source.to_owned())
        } else {
            Outcome::Wrong
        }
    }
}

/// By how much a call is late, after the process's own stalls are subtracted.
pub(crate) fn late(took: Duration, patience: Duration, stalls: Duration) -> Duration {
    took.saturating_sub(patience + BOUND + stalls)
}

/// The index of the hash of F(n).
fn position(n: u64) -> Option<usize> {
    let at = match n {
        0..COMMON => n,
        EXPENSIVE.. if n < EXPENSIVE + EXPENSIVE_COUNT => COMMON + n - EXPENSIVE,
        _ => return None,
    };
    usize::try_from(at).ok()
}

fn hash(text: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(text);
    hasher.finish()
}

/// A limb has 18 decimal digits; the lowest limb is first.
const BASE: u64 = 1_000_000_000_000_000_000;

fn each_fibonacci(count: u64, mut visit: impl FnMut(u64, &[u64])) {
    let (mut this, mut next) = (vec![0], vec![1]);
    for n in 0..count {
        visit(n, &this);
        this.resize(next.len(), 0);
        let mut carry = 0;
        for (sum, addend) in this.iter_mut().zip(&next) {
            *sum += addend + carry;
            carry = u64::from(*sum >= BASE);
            *sum -= carry * BASE;
        }
        if carry > 0 {
            this.push(carry);
        }
        std::mem::swap(&mut this, &mut next);
    }
}

/// The nth Fibonacci number in decimal, for answers that the driver writes to Redis.
pub(crate) fn fibonacci(n: u64) -> String {
    let mut last = String::new();
    each_fibonacci(n + 1, |at, limbs| {
        if at == n {
            last = text(limbs);
        }
    });
    last
}

fn text(limbs: &[u64]) -> String {
    use std::fmt::Write as _;
    let (highest, rest) = limbs.split_last().expect("a number has a limb");
    let mut text = highest.to_string();
    for limb in rest.iter().rev() {
        write!(text, "{limb:018}").expect("a String can be written to");
    }
    text
}
