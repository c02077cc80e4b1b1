//! The crasher: a procedure that answers most arguments, panics on some, and aborts its process on others.
//!
//! Processes of this program serve it through the library, from a queue of its own.

use std::time::Duration;

use fastrand::Rng;
use rpcache::{
    CacheOptions, Cancel, ComputeError, Procedure, ProcedureName, Stopped, Worker, WorkerOptions,
};
use tokio::signal::unix::{SignalKind, signal};

use crate::args::CrasherArgs;

/// Of a thousand arguments, how many panic and how many abort. An argument that aborts does so three times, and
/// the broker delivers again what else the worker held.
const PANIC: u64 = 50;
const ABORT: u64 = 5;

/// The number of arguments for each behaviour.
const EACH: u64 = 10_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Behaviour {
    Answers,
    Panics,
    Aborts,
}

/// What computing this argument does.
pub(crate) fn behaviour(n: u64) -> Behaviour {
    match n / EACH {
        0 => Behaviour::Answers,
        1 => Behaviour::Panics,
        _ => Behaviour::Aborts,
    }
}

/// Draws an argument.
pub(crate) fn draw(rng: &mut Rng) -> u64 {
    const ABORT_OR_PANIC: u64 = ABORT + PANIC;
    let behaviour = match rng.u64(0..1000) {
        0..ABORT => 2,
        ABORT..ABORT_OR_PANIC => 1,
        _ => 0,
    };
    behaviour * EACH + rng.u64(0..EACH)
}

/// The answer of an argument that has one.
pub(crate) fn answer(n: u64) -> String {
    format!("{} is safe", n * 3 + 1)
}

impl Behaviour {
    /// The code of the error that a call ends in.
    pub(crate) fn error(self) -> Option<&'static str> {
        match self {
            Self::Answers => None,
            Self::Panics => Some("failed"),
            Self::Aborts => Some("poison"),
        }
    }

    /// Whether this error is wrong for the argument, whatever the faults: it is the verdict on another one.
    pub(crate) fn excludes(self, code: &str) -> bool {
        const VERDICTS: [&str; 5] = [
            "failed",
            "poison",
            "bad-argument",
            "too-large",
            "wrong-answer",
        ];
        VERDICTS.contains(&code) && self.error() != Some(code)
    }
}

pub(crate) struct Crasher;

impl Procedure for Crasher {
    type Argument = u64;
    type Answer = String;

    fn name(&self) -> &ProcedureName {
        const { &ProcedureName::new("crasher") }
    }

    fn compute(&self, &n: &u64, _: &Cancel) -> Result<String, ComputeError> {
        // Slow, so that the worker holds other requests when it aborts.
        std::thread::sleep(Duration::from_millis(n % 10));
        match behaviour(n) {
            Behaviour::Answers => Ok(answer(n)),
            Behaviour::Panics => panic!("this argument panics"),
            Behaviour::Aborts => std::process::abort(),
        }
    }

    /// Accepts everything, so that the oracle sees every answer.
    fn verify(&self, _: &u64, _: &String) -> bool {
        true
    }
}

/// Serves until SIGTERM; returns whether all requests had ended by then.
pub(crate) async fn serve(args: CrasherArgs) -> bool {
    let mut cache = CacheOptions::new(args.redis_url.parse().expect("the driver's URL"));
    cache.ttl = Some(Duration::from_millis(args.ttl_ms));
    let mut options = WorkerOptions::new(args.amqp_url.parse().expect("the driver's URL"), cache);
    options.concurrency = 2;
    let mut terminate = signal(SignalKind::terminate()).expect("signals can be listened to");
    let stop = async move {
        terminate.recv().await;
    };
    let stopped = Worker::new(Crasher, options).run(stop).await;
    matches!(stopped, Ok(Stopped::Clean))
}
