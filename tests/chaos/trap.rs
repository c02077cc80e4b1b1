//! A procedure with traps: most arguments have an answer, some make it panic, some end its process.
//!
//! It is served by this program in a role of its own, through the library, from a queue of its own.

use std::time::Duration;

use fastrand::Rng;
use rpcache::{
    CacheOptions, Cancel, ComputeError, Procedure, ProcedureName, Stopped, Worker, WorkerOptions,
};
use tokio::signal::unix::{SignalKind, signal};

use crate::args::TrapArgs;

/// Of a thousand arguments, how many are of which nature; the others are ordinary. Each that kills
/// does so three times, and whatever else its worker holds is delivered again.
const PANIC: u64 = 50;
const KILL: u64 = 5;

/// As many arguments of each nature.
const EACH: u64 = 10_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Nature {
    Ordinary,
    Panics,
    Kills,
}

/// What a call for the argument comes to.
pub(crate) fn nature(n: u64) -> Nature {
    match n / EACH {
        0 => Nature::Ordinary,
        1 => Nature::Panics,
        _ => Nature::Kills,
    }
}

pub(crate) fn draw(rng: &mut Rng) -> u64 {
    const KILL_OR_PANIC: u64 = KILL + PANIC;
    let nature = match rng.u64(0..1000) {
        0..KILL => 2,
        KILL..KILL_OR_PANIC => 1,
        _ => 0,
    };
    nature * EACH + rng.u64(0..EACH)
}

/// The answer of an ordinary one.
pub(crate) fn answer(n: u64) -> String {
    format!("{} is safe", n * 3 + 1)
}

impl Nature {
    /// The code of the error that it must end in.
    pub(crate) fn ends_in(self) -> Option<&'static str> {
        match self {
            Self::Ordinary => None,
            Self::Panics => Some("failed"),
            Self::Kills => Some("poison"),
        }
    }

    /// Whether it must never end so, whatever else is wrong: it would take one for another.
    pub(crate) fn never_ends_in(self, code: &str) -> bool {
        const TELLING: [&str; 5] = [
            "failed",
            "poison",
            "bad-argument",
            "too-large",
            "wrong-answer",
        ];
        TELLING.contains(&code) && self.ends_in() != Some(code)
    }
}

pub(crate) struct Trap;

impl Procedure for Trap {
    type Argument = u64;
    type Answer = String;

    fn name(&self) -> &ProcedureName {
        const { &ProcedureName::new("trap") }
    }

    fn compute(&self, &n: &u64, _: &Cancel) -> Result<String, ComputeError> {
        // So that an ordinary one is in the same hands when the process ends.
        std::thread::sleep(Duration::from_millis(n % 10));
        match nature(n) {
            Nature::Ordinary => Ok(answer(n)),
            Nature::Panics => panic!("a trap"),
            Nature::Kills => std::process::abort(),
        }
    }

    /// Nothing is refused: the oracle shall see whatever is answered.
    fn verify(&self, _: &u64, _: &String) -> bool {
        true
    }
}

/// Serves until SIGTERM; whether it ended with nothing left.
pub(crate) async fn serve(args: TrapArgs) -> bool {
    let mut cache = CacheOptions::new(args.redis_url.parse().expect("the driver's URL"));
    cache.ttl = Some(Duration::from_millis(args.ttl_ms));
    let mut options = WorkerOptions::new(args.amqp_url.parse().expect("the driver's URL"), cache);
    options.concurrency = 2;
    let mut terminate = signal(SignalKind::terminate()).expect("signals can be listened to");
    let stop = async move {
        terminate.recv().await;
    };
    let stopped = Worker::new(Trap, options).run(stop).await;
    matches!(stopped, Ok(Stopped::Clean))
}
