//! A procedure with answers like that of `fib` at n = 10⁶, of 209 kB, for any number of arguments. The answers are
//! prepared; text, check and lease are those of `fib`.

use std::sync::LazyLock;

use rpcache::fibonacci::{Decimal, Fibonacci, N};
use rpcache::{Cancel, ComputeError, Procedure, ProcedureName};

/// The number of different answers, used in turn, so that a swapped one is noticed.
const DIFFERENT: u64 = 16;

static ANSWERS: LazyLock<Vec<Decimal>> = LazyLock::new(|| {
    let answer = |argument| {
        let computed = Fibonacci::default().compute(&n(argument), &Cancel::new());
        computed.expect("within the limit")
    };
    (0..DIFFERENT).map(answer).collect()
});

#[derive(Default)]
pub(crate) struct Prepared(Fibonacci);

impl Procedure for Prepared {
    type Argument = u64;
    type Answer = Decimal;

    fn name(&self) -> &ProcedureName {
        const { &ProcedureName::new("prepared") }
    }

    fn compute(&self, argument: &u64, _cancel: &Cancel) -> Result<Decimal, ComputeError> {
        Ok(answer(*argument).clone())
    }

    fn verify(&self, argument: &u64, answer: &Decimal) -> bool {
        self.0.verify(&n(*argument), answer)
    }
}

/// The answer for this argument.
pub(crate) fn answer(argument: u64) -> &'static Decimal {
    let place = usize::try_from(argument % DIFFERENT).expect("a small number");
    &ANSWERS[place]
}

/// The answer to the body of a request.
#[expect(clippy::needless_pass_by_value, reason = "as an echo takes it")]
pub(crate) fn reply(request: Vec<u8>) -> &'static [u8] {
    let text = String::from_utf8_lossy(&request);
    answer(text.parse().expect("a number")).as_str().as_bytes()
}

/// The limit of `fib` for inline computing.
fn n(argument: u64) -> N {
    N(Fibonacci::DEFAULT_MAX_N - argument % DIFFERENT)
}
