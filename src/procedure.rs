//! The one trait that a user implements: a named pure function.
//!
//! Workers call [`Procedure::compute`]. Workers and clients call [`Procedure::verify`] on every
//! answer before they use it, whether it came from the store or from a worker. On the wire and in
//! the store, an argument is the text that [`Display`] writes, and an answer is bytes ([`Answer`]).

mod answer;
mod argument_form;
mod check;
mod json;
mod text;

use std::fmt::Display;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

pub use self::answer::{Answer, AnswerBytes};
pub use self::argument_form::{ArgumentForm, ArgumentFormError};
pub(crate) use self::check::check;
pub use self::text::Text;
use crate::procedure_name::ProcedureName;
use crate::queue::QueueName;

/// A named pure function that workers serve and clients call.
///
/// ```
/// use rpcache::{Cancel, ComputeError, Procedure, ProcedureName};
///
/// /// The smallest divisor of n that is neither 1 nor n: `divisor:91` holds `7`.
/// struct Divisor;
///
/// impl Procedure for Divisor {
///     type Argument = u64;
///     type Answer = u64;
///
///     fn name(&self) -> &ProcedureName {
///         const { &ProcedureName::new("divisor") }
///     }
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
///     /// Refuses every number that is no divisor. It cannot notice that a smaller one was overlooked.
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
/// always and everywhere, and computing it twice does no harm. If the function changes, change its
/// [name](Self::name), or both the namespace (see [`crate::CacheOptions::namespace`]) and the queue:
/// otherwise old workers answer new clients.
///
/// `examples/prime_factors.rs` is a program around one, and `examples/timetable.rs` has an argument of
/// several parts. For a procedure that only programs in other languages serve, use [`Text`], or a type
/// of your own whose `verify` checks their answers: see `examples/foreign_worker.rs`.
pub trait Procedure: Send + Sync + 'static {
    /// The argument's type.
    ///
    /// `FromStr` reads untrusted text and refuses what is no argument. `Display` writes the argument's
    /// one canonical text, which is the request's body and part of the key: equal arguments are written
    /// alike, and `FromStr` accepts what `Display` writes. Integers satisfy this as they are (`+07` is
    /// read, `7` written); text of several parts needs one order, one spelling and one separator. Two
    /// texts for one argument are computed and stored twice, and do no other harm.
    ///
    /// A request's body has 64 KiB at most. In a key, a text longer than 200 bytes is replaced by its
    /// SHA-256.
    type Argument: FromStr<Err: Display> + Display + Send + Sync + 'static;

    /// The answer's type: any that has `FromStr`, `Display` and `Clone`, or [`AnswerBytes`]; see
    /// [`Answer`].
    ///
    /// It is cloned for each caller that shares it, so a large answer should share its text, as
    /// [`Decimal`](crate::fibonacci::Decimal) does. A worker sends up to
    /// [`WorkerOptions::max_reply_size`](crate::WorkerOptions::max_reply_size), 8 MiB by default.
    type Answer: Answer;

    /// The procedure's name, from which the key `NAME:ARGUMENT` and the queue `rpc_queue.NAME` are made.
    /// It must not change during the procedure's life. `fib` is the built-in [`Fibonacci`].
    ///
    /// [`Fibonacci`]: crate::fibonacci::Fibonacci
    fn name(&self) -> &ProcedureName;

    /// The request queue that clients and workers use unless their options name another one:
    /// `rpc_queue` for `fib`, `rpc_queue.NAME` for any other.
    fn queue(&self) -> QueueName {
        QueueName::of(self.name())
    }

    /// Reads an argument from a request or a key: untrusted text. By [`FromStr`], unless how it is read
    /// depends on the value, as in [`Text`]. The error is the message that the caller is sent.
    fn parse_argument(&self, text: &str) -> Result<Self::Argument, String> {
        text.parse()
            .map_err(|error: <Self::Argument as FromStr>::Err| error.to_string())
    }

    /// Reads an answer from the store or from a reply: untrusted bytes. `None` if they are no answer. By
    /// [`Answer::from_bytes`], unless how it is read depends on the value.
    fn parse_answer(&self, bytes: &[u8]) -> Option<Self::Answer> {
        Self::Answer::from_bytes(bytes)
    }

    /// Computes the answer. Called on a thread where blocking is allowed, several at once.
    ///
    /// A computation longer than some milliseconds calls [`Cancel::check`] every few of them, so
    /// that a worker can be stopped. A panic is answered as `failed` and affects no other request. An
    /// error is sent to the caller and not stored.
    fn compute(
        &self,
        argument: &Self::Argument,
        cancel: &Cancel,
    ) -> Result<Self::Answer, ComputeError>;

    /// Whether `answer` can be the answer for `argument`. Every answer from the store or from a worker
    /// is checked by it, and is used if it returns `true`. It must be much cheaper than
    /// [`compute`](Self::compute). Return `true` where an answer cannot be checked.
    ///
    /// It runs on an async thread, for answers above 64 KiB on a blocking one. A panic refuses the
    /// answer.
    fn verify(&self, argument: &Self::Argument, answer: &Self::Answer) -> bool;

    /// Whether [`compute`](Self::compute) takes some microseconds at most for this argument. Then the
    /// worker takes no lease and computes on the async thread: a round trip to Redis takes longer, 50 µs
    /// and more.
    fn is_cheap(&self, argument: &Self::Argument) -> bool {
        let _ = argument;
        false
    }
}

/// Why [`Procedure::compute`] has no answer. The text is sent to the caller: keep it short, in lower
/// case, and free of secrets.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ComputeError {
    /// The argument is readable, but has no answer.
    #[error("{0}")]
    BadArgument(String),
    /// The argument, or its answer, is larger than this worker's limit.
    #[error("{0}")]
    TooLarge(String),
    /// The computation failed.
    #[error("{0}")]
    Failed(String),
    /// The worker is shutting down, see [`Cancel`].
    #[error("cancelled")]
    Cancelled,
}

/// Cancellation flag of a computation, set when the worker shuts down. Checking it costs one relaxed
/// load. Tests of a procedure make their own.
#[derive(Debug, Clone, Default)]
pub struct Cancel(Arc<AtomicBool>);

impl Cancel {
    /// A flag that is not set.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the flag, for all clones, for ever.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Returns [`ComputeError::Cancelled`] once the flag is set, for use with `?`.
    pub fn check(&self) -> Result<(), ComputeError> {
        if self.0.load(Ordering::Relaxed) {
            Err(ComputeError::Cancelled)
        } else {
            Ok(())
        }
    }
}
