//! The one trait that a user implements: a named pure function.
//!
//! Workers call [`Procedure::compute`]; workers and clients alike call [`Procedure::verify`] on
//! every answer before it is believed, wherever it came from. On the wire and in Redis arguments
//! and answers are text: what [`FromStr`] reads and [`Display`] writes.

use std::fmt::Display;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A named pure function that workers serve and clients call.
///
/// ```
/// use rpcache::{Cancel, ComputeError, Procedure};
///
/// /// The smallest divisor of n that is neither 1 nor n: `divisor:91` holds `7`.
/// struct Divisor;
///
/// impl Procedure for Divisor {
///     type Argument = u64;
///     type Answer = u64;
///     const NAME: &'static str = "divisor";
///
///     fn compute(&self, &n: &u64, cancel: &Cancel) -> Result<u64, ComputeError> {
///         let mut divisor = 2;
///         while divisor <= n / divisor {
///             if n % divisor == 0 {
///                 return Ok(divisor);
///             }
///             if divisor % 1_000_000 == 0 {
///                 cancel.check()?; // so that the worker can be stopped
///             }
///             divisor += 1;
///         }
///         Err(ComputeError::BadArgument(format!("{n} has none")))
///     }
///
///     /// Tells every number that is no divisor; that a smaller one was overlooked, it does not.
///     fn verify(&self, &n: &u64, &divisor: &u64) -> bool {
///         (2..n).contains(&divisor) && n % divisor == 0
///     }
/// }
///
/// assert_eq!(Divisor.compute(&91, &Cancel::new()), Ok(7));
/// assert!(Divisor.verify(&91, &7) && !Divisor.verify(&91, &6));
/// ```
///
/// *Pure* is what makes caching right and repeating safe: the same argument has the same answer,
/// always and everywhere, and computing it twice does no harm. If the function changes, change
/// [`NAME`](Self::NAME) with it, or both the namespace (see [`crate::CacheOptions::namespace`]) and the
/// queue: old workers would answer new clients otherwise.
///
/// `examples/prime_factors.rs` is a program around one, and `examples/timetable.rs` has an argument of
/// several parts. Of a procedure that only programs in other languages serve, `verify` is all that
/// matters here: see `examples/foreign_worker.rs`.
pub trait Procedure: Send + Sync + 'static {
    /// What is asked for.
    ///
    /// `FromStr` reads untrusted text and refuses what is no argument; `Display` writes the
    /// argument's one canonical text, which is the request's body and makes the key in Redis: equal
    /// arguments are written alike, and `FromStr` accepts what `Display` writes. Integers are so by
    /// themselves (`+07` is read, `7` written); text of several parts needs one order, one spelling and
    /// one kind of separator. Two texts for one argument do no harm but that it is computed twice.
    ///
    /// A request's body has 64 KiB at most. In keys, what is longer than 200 bytes stands as its
    /// SHA-256.
    type Argument: FromStr<Err: Display> + Display + Send + Sync + 'static;

    /// What is answered. `FromStr` reads untrusted text; `Display` writes what is sent and stored.
    ///
    /// It is cloned for each of the callers who share it: what is large should share its text, as
    /// [`Decimal`](crate::fibonacci::Decimal) does. A worker sends up to
    /// [`WorkerOptions::max_reply_size`](crate::WorkerOptions::max_reply_size), 8 MiB by default.
    type Answer: FromStr<Err: Display> + Display + Clone + Send + Sync + 'static;

    /// Names the procedure: the key `NAME:ARGUMENT` and the queue `rpc_queue.NAME` are made of it.
    /// 1 to 64 of `a-z`, `0-9`, `_`, `-`, `.`: with another one it does not compile. `fib` is the built-in one.
    const NAME: &'static str;

    /// Computes the answer. Called on a thread where blocking is allowed, several at once.
    ///
    /// A computation longer than some milliseconds calls [`Cancel::check`] every few of them, so
    /// that a worker can be stopped. A panic is answered as `failed`; it costs nobody else anything.
    /// An error is told to the caller and not stored: what is to be remembered is an answer.
    fn compute(
        &self,
        argument: &Self::Argument,
        cancel: &Cancel,
    ) -> Result<Self::Answer, ComputeError>;

    /// Whether `answer` can be the answer for `argument`: the check of everything that comes from
    /// Redis or from a worker. It must be much cheaper than [`compute`](Self::compute), and what it
    /// cannot tell from a right answer will be believed. `true` where nothing can be told.
    ///
    /// It runs on an async thread, for answers above 64 KiB on a blocking one. A panic refuses the
    /// answer.
    fn verify(&self, argument: &Self::Argument, answer: &Self::Answer) -> bool;

    /// Whether [`compute`](Self::compute) takes so little for this argument, some microseconds at
    /// most, that nobody need be asked whether another worker computes it: no lease is taken, and it
    /// is called right on the async thread. A round trip to Redis takes 50 µs and more.
    fn is_cheap(&self, argument: &Self::Argument) -> bool {
        let _ = argument;
        false
    }
}

/// Why [`Procedure::compute`] has no answer. Texts reach the caller: keep them short and in lower
/// case, and put nothing secret into them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ComputeError {
    /// The argument can be read, but there is no answer for it.
    #[error("{0}")]
    BadArgument(String),
    /// The argument, or its answer, is larger than this worker's limit.
    #[error("{0}")]
    TooLarge(String),
    /// Computing was tried and failed.
    #[error("{0}")]
    Failed(String),
    /// The worker asked for the end of it, see [`Cancel`].
    #[error("cancelled")]
    Cancelled,
}

/// Tells a computation that it is to end, since its worker does. Cheap to look at: one relaxed load.
/// Tests of a procedure make their own.
#[derive(Debug, Clone, Default)]
pub struct Cancel(Arc<AtomicBool>);

impl Cancel {
    /// One that nobody has cancelled yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Cancels, for all clones of it, for ever.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// [`ComputeError::Cancelled`] once cancelled, to be used with `?`.
    pub fn check(&self) -> Result<(), ComputeError> {
        if self.0.load(Ordering::Relaxed) {
            Err(ComputeError::Cancelled)
        } else {
            Ok(())
        }
    }
}

/// Makes a procedure whose name is special in keys, patterns or queue names a failure to compile:
///
/// ```compile_fail
/// # use rpcache::{Cancel, ComputeError, Procedure, QueueName};
/// struct Shout;
///
/// impl Procedure for Shout {
///     type Argument = u64;
///     type Answer = u64;
///     const NAME: &'static str = "SHOUT";
///
///     fn compute(&self, n: &u64, _: &Cancel) -> Result<u64, ComputeError> {
///         Ok(*n)
///     }
///     fn verify(&self, n: &u64, answer: &u64) -> bool {
///         n == answer
///     }
/// }
///
/// let queue = QueueName::of::<Shout>();
/// ```
pub(crate) const fn require_name<P: Procedure>() {
    const {
        assert!(
            is_name(P::NAME),
            "Procedure::NAME is 1 to 64 of a-z, 0-9, '_', '-', '.'"
        );
    }
}

const fn is_name(name: &str) -> bool {
    let mut bytes = name.as_bytes();
    let length = bytes.len();
    while let [b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' | b'.', rest @ ..] = bytes {
        bytes = rest;
    }
    bytes.is_empty() && 1 <= length && length <= 64
}

/// Above this size an answer is checked on a blocking thread: the check is linear in the size and
/// would hold up everything else on an async one.
const CHECK_INLINE: usize = 64 * 1024;

/// The check that every answer passes before it is believed, from Redis and from a worker alike:
/// it can be read, and [`Procedure::verify`] has nothing against it. A procedure that panics over
/// hostile text has refused it.
pub(crate) async fn check<P: Procedure>(
    procedure: &Arc<P>,
    argument: &Arc<P::Argument>,
    text: Vec<u8>,
) -> Result<P::Answer, Vec<u8>> {
    if text.len() <= CHECK_INLINE {
        return check_now(&**procedure, argument, text);
    }
    let (procedure, argument) = (Arc::clone(procedure), Arc::clone(argument));
    tokio::task::spawn_blocking(move || check_now(&*procedure, &argument, text))
        .await
        // The runtime is being shut down: nobody will see the answer.
        .unwrap_or_else(|_| Err(Vec::new()))
}

fn check_now<P: Procedure>(
    procedure: &P,
    argument: &P::Argument,
    text: Vec<u8>,
) -> Result<P::Answer, Vec<u8>> {
    let verified = || {
        let answer: P::Answer = std::str::from_utf8(&text).ok()?.parse().ok()?;
        procedure.verify(argument, &answer).then_some(answer)
    };
    match catch_unwind(AssertUnwindSafe(verified)) {
        Ok(Some(answer)) => Ok(answer),
        Ok(None) | Err(_) => Err(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_short_and_plain() {
        for name in ["fib", "a", "when-let", "sum_2.0", &"x".repeat(64)] {
            assert!(is_name(name), "{name:?}");
        }
        for name in ["", "Fib", "a b", "a:b", "fib*", "größe", &"x".repeat(65)] {
            assert!(!is_name(name), "{name:?}");
        }
    }
}
