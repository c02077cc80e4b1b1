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
/// *Pure* is what makes caching right and repeating safe: the same argument has the same answer,
/// always and everywhere, and computing it twice does no harm. If the function changes, change the
/// namespace (see [`crate::CacheOptions::namespace`]) with it.
///
/// `examples/prime_factors.rs` is a complete one.
pub trait Procedure: Send + Sync + 'static {
    /// What is asked for.
    ///
    /// `FromStr` reads untrusted text and refuses what is no argument; `Display` writes the
    /// argument's one canonical text, which is the request's body and makes the key in Redis: equal
    /// arguments are written alike, and `FromStr` accepts what `Display` writes.
    type Argument: FromStr<Err: Display> + Display + Send + Sync + 'static;

    /// What is answered. `FromStr` reads untrusted text; `Display` writes what is sent and stored.
    type Answer: FromStr<Err: Display> + Display + Clone + Send + Sync + 'static;

    /// Names the procedure: the key `NAME:ARGUMENT` and the queue `rpc_queue.NAME` are made of it.
    /// 1 to 64 of `a-z`, `0-9`, `_`, `-`, `.`.
    const NAME: &'static str;

    /// Computes the answer. Called on a thread where blocking is allowed, several at once.
    ///
    /// A computation longer than some milliseconds calls [`Cancel::check`] every few of them, so
    /// that a worker can be stopped. A panic is answered as `failed`; it costs nobody else anything.
    fn compute(
        &self,
        argument: &Self::Argument,
        cancel: &Cancel,
    ) -> Result<Self::Answer, ComputeError>;

    /// Whether `answer` can be the answer for `argument`: the check of everything that comes from
    /// Redis or from a worker. It must be much cheaper than [`compute`](Self::compute), and what it
    /// cannot tell from a right answer will be believed. `true` where nothing can be told.
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

/// Tells a computation that nobody waits for it any more. Cheap to look at: one relaxed load.
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
