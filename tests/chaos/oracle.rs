//! What every answer must be, and when: F(n) by decimal additions, sharing no code with the product, kept as
//! one hash for each argument in use.

use std::hash::{DefaultHasher, Hasher};
use std::io;
use std::path::Path;
use std::time::Duration;

use crate::record::{Asked, Outcome};
use crate::trap;

/// What a call may take beyond its deadline.
const BOUND: Duration = Duration::from_millis(50);

/// What a call may wait for the cache; and a stall of a process that may have cost a hit within it.
pub(crate) const BUDGET: Duration = Duration::from_millis(50);
pub(crate) const COSTS_A_HIT: Duration = Duration::from_millis(25);

/// Arguments 0 to this, of which most calls ask.
pub(crate) const COMMON: u64 = 20_000;
/// And these, which are dear to compute.
const DEAR: u64 = 100_000;
const DEAR_ONES: u64 = 64;
/// The first so many of [`hot`] are asked for again and again.
const HOT: u64 = 500;

/// The n-th most wanted argument.
pub(crate) fn hot(rank: u64) -> u64 {
    rank * 7919 % COMMON
}

/// The next argument: `hits` of a hundred calls ask for a hot one, the hotter the more often; of a
/// hundred others one asks for a dear one.
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
        0 => DEAR + rng.u64(0..DEAR_ONES),
        _ => rng.u64(0..COMMON),
    }
}

/// The answers of all others are shorter than this, in bytes, and of these longer.
pub(crate) const LARGE: u64 = 10_000;

/// Some of those.
pub(crate) fn large(draw: u64) -> impl Iterator<Item = u64> {
    (0..4).map(move |n| DEAR + (draw % DEAR_ONES + n * 7) % DEAR_ONES)
}

pub(crate) fn is_large(n: u64) -> bool {
    n >= DEAR
}

pub(crate) struct Oracle(Vec<u64>);

impl Oracle {
    /// A second or so of additions.
    pub(crate) fn compute() -> Self {
        let mut hashes = Vec::new();
        each_fibonacci(DEAR + DEAR_ONES, |n, limbs| {
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

    /// What an answer from there is.
    pub(crate) fn judge(&self, asked: Asked, source: &str, answer: &str) -> Outcome {
        let right = match asked {
            Asked::Fib(n) => position(n).is_some_and(|at| self.0[at] == hash(answer.as_bytes())),
            Asked::Trap(n) => {
                trap::nature(n) == trap::Nature::Ordinary && answer == trap::answer(n)
            }
        };
        if right {
            Outcome::Answered(source.to_owned())
        } else {
            Outcome::Wrong
        }
    }
}

/// By how much a call is late that took so long, this process's own stalls allowed for.
pub(crate) fn late(took: Duration, patience: Duration, stalls: Duration) -> Duration {
    took.saturating_sub(patience + BOUND + stalls)
}

/// Where the hash of F(n) stands.
fn position(n: u64) -> Option<usize> {
    let at = match n {
        0..COMMON => n,
        DEAR.. if n < DEAR + DEAR_ONES => COMMON + n - DEAR,
        _ => return None,
    };
    usize::try_from(at).ok()
}

fn hash(text: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(text);
    hasher.finish()
}

/// 18 decimal digits a limb, the lowest first.
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

/// The nth Fibonacci number in decimal, for what is to be written where another answer belongs.
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
        write!(text, "{limb:018}").expect("strings take everything");
    }
    text
}
