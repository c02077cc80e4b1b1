//! The built-in procedure `fib`: F(0) = 0, F(1) = 1, F(n) = F(n − 1) + F(n − 2), exact for every n.
//!
//! Workers compute it by one of three [`Algorithm`]s, with `num-bigint`; clients and workers verify
//! every answer in a small part of the time that computing takes.
//!
//! | file | what it holds |
//! | --- | --- |
//! | `argument.rs` | [`N`]: reads and writes n |
//! | `doubling.rs` | the doubling and the memoized algorithm |
//! | `memo.rs` | what the memoized algorithm remembers, within 64 MiB |
//! | `additions.rs` | the iterative algorithm |
//! | `decimal.rs` | [`Decimal`]: F(n) as its text |
//! | `check.rs` | whether a text is F(n): by a table, the number of digits, and a secret prime |
//! | `modulus.rs` | F(n) and texts modulo that prime |
//! | `prime.rs` | draws the prime, once per process |
//!
//! Nothing here panics or overflows. [`Cancel`] is checked before each multiplication, each addition
//! of the iterative algorithm, and the conversion to decimal. The longest of these is the conversion:
//! 35 ms at n = 10⁶, 2 s at n = 10⁷.

use std::fmt;

use crate::procedure::{Cancel, ComputeError, Procedure};
use crate::procedure_name::ProcedureName;

mod additions;
mod argument;
mod check;
mod decimal;
mod doubling;
mod memo;
mod modulus;
mod prime;

pub use argument::{N, ParseError};
pub use decimal::Decimal;

use memo::Memo;

/// The procedure `fib`. Costs next to nothing until it is used.
///
/// Clients need only [`Fibonacci::default`]: the settings are about computing.
///
/// ```
/// use rpcache::fibonacci::{Algorithm, Fibonacci, N};
/// use rpcache::{Cancel, Procedure as _};
///
/// let fib = Fibonacci::new(Algorithm::Doubling).max_n(10_000_000);
/// let answer = fib.compute(&N(30), &Cancel::new()).unwrap();
/// assert_eq!(answer.as_str(), "832040");
/// ```
#[derive(Debug)]
pub struct Fibonacci {
    algorithm: Algorithm,
    /// The largest n computed here, at most [`check::MAX_N`].
    max_n: u64,
    /// Shared by all computations of this worker; stays empty unless they are memoized.
    memo: Memo,
}

/// How a worker computes F(n). All are exact; they differ in time only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Algorithm {
    /// Fast doubling, one step per bit of n. The fastest for a single n.
    #[default]
    Doubling,
    /// n additions. For comparison: it takes more than a hundred times as long at n = 10⁶.
    Iterative,
    /// Fast doubling that remembers, within 64 MiB, what it passed on the way.
    Memoized,
}

impl Fibonacci {
    /// The default of [`Fibonacci::max_n`].
    pub const DEFAULT_MAX_N: u64 = 1_000_000;

    /// Computes by `algorithm`, up to n = [`Self::DEFAULT_MAX_N`].
    #[must_use]
    pub fn new(algorithm: Algorithm) -> Self {
        Self {
            algorithm,
            max_n: Self::DEFAULT_MAX_N,
            memo: Memo::new(memo::LIMIT),
        }
    }

    /// The largest n to compute; a larger one is refused as `too-large`. F(n) has about 0.209 n
    /// digits, and what it takes to compute it several times that in memory. Doubling takes about
    /// 1 ms at n = 10⁵, 50 ms at n = 10⁶ and 2.5 s at n = 10⁷. Values from 2³² on count as 2³² − 1:
    /// no larger answer could be verified or stored.
    #[must_use]
    pub fn max_n(self, n: u64) -> Self {
        let max_n = n.min(check::MAX_N);
        Self { max_n, ..self }
    }
}

impl Default for Fibonacci {
    fn default() -> Self {
        Self::new(Algorithm::default())
    }
}

impl Procedure for Fibonacci {
    type Argument = N;
    type Answer = Decimal;

    fn name(&self) -> &ProcedureName {
        const { &ProcedureName::new("fib") }
    }

    fn compute(&self, &N(n): &N, cancel: &Cancel) -> Result<Decimal, ComputeError> {
        if n > self.max_n {
            let limit = self.max_n;
            return Err(ComputeError::TooLarge(format!(
                "n is limited to {limit} here"
            )));
        }
        cancel.check()?;
        match self.algorithm {
            Algorithm::Doubling => doubling::doubling(n, cancel),
            Algorithm::Iterative => additions::iterative(n, cancel),
            Algorithm::Memoized => doubling::memoized(n, &self.memo, cancel),
        }
    }

    /// Up to n = 186 by equality. Above, a wrong answer that was made without knowledge of this
    /// process's secret prime passes with a probability below 10⁻¹² at n = 10⁶.
    fn verify(&self, &N(n): &N, answer: &Decimal) -> bool {
        check::is_fibonacci(n, answer.as_str())
    }

    /// Up to n = 1000: some 2 µs by doubling, 13 µs by additions.
    fn is_cheap(&self, &N(n): &N) -> bool {
        n <= 1000
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Doubling => "doubling",
            Self::Iterative => "iterative",
            Self::Memoized => "memoized",
        })
    }
}

#[cfg(test)]
mod tests;
