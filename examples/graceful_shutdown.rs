//! A worker of one's own that stops as service managers expect it, and a client beside it.
//!
//!     cargo run --example graceful_shutdown
//!
//! SIGTERM or Ctrl-C: it takes no more requests, finishes and answers those that it holds, and exits with
//! 0; with 1 if they took longer than the grace. A second signal ends it at once. Nothing is lost either
//! way: what was not answered goes from the broker to another worker.
//!
//! It serves the sum of the decimal digits of a Fibonacci number (key `digitsum:30`, `17`), which takes
//! that number: a procedure that calls another. So it needs a worker for `fib`, as `rpcache worker` is
//! one, and the servers that `AMQP_URL` and `REDIS_URL` name.

use std::time::Duration;

use rpcache::fibonacci::{Fibonacci, N};
use rpcache::{CacheOptions, CallOptions, Cancel, Client, ClientOptions, ComputeError};
use rpcache::{Procedure, ProcedureName, Stopped, Worker, WorkerOptions};
use tokio::runtime::Handle;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

struct DigitSum {
    fib: Client<Fibonacci>,
    runtime: Handle,
}

impl Procedure for DigitSum {
    type Argument = N;
    type Answer = u64;

    fn name(&self) -> &ProcedureName {
        const { &ProcedureName::new("digitsum") }
    }

    /// Runs on a thread where blocking is allowed, so that it can wait for an asynchronous call.
    fn compute(&self, &n: &N, cancel: &Cancel) -> Result<u64, ComputeError> {
        // Less than the grace: nothing else ends this wait.
        let options = CallOptions::within(Duration::from_secs(15));
        let found = self.runtime.block_on(self.fib.call_with(n, options));
        cancel.check()?;
        let fib = found.map_err(|error| {
            eprintln!("fib {n}: {error}");
            // This text goes to whoever asked, so it names none of our servers.
            ComputeError::Failed("the Fibonacci number is not to be had".into())
        })?;
        let digits = fib.answer.as_str().bytes();
        Ok(digits.map(|digit| u64::from(digit - b'0')).sum())
    }

    /// Casting out nines: a number and the sum of its digits leave the same rest, and F(n) modulo 9
    /// repeats after 24. It finds 8 of 9 wrong answers; the ninth would be believed.
    fn verify(&self, &N(n): &N, &sum: &u64) -> bool {
        let step = |(this, next): (u64, u64), _| (next, (this + next) % 9);
        let (fib_modulo_9, _) = (0..n % 24).fold((0, 1), step);
        sum % 9 == fib_modulo_9
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let url = |name, local: &str| std::env::var(name).unwrap_or(local.into());
    let amqp: rpcache::AmqpUrl = url("AMQP_URL", "amqp://localhost").parse()?;
    let cache = CacheOptions::new(url("REDIS_URL", "redis://localhost").parse()?);
    let fib = Client::new(
        Fibonacci::default(),
        ClientOptions::new(amqp.clone(), cache.clone()),
    );

    let mut options = WorkerOptions::new(amqp, cache);
    // A little less than what the service manager waits before it kills.
    options.grace = Duration::from_secs(20);
    let digit_sum = DigitSum {
        fib: fib.clone(),
        runtime: Handle::current(),
    };
    let worker = Worker::new(digit_sum, options);

    // Listen for signals before serving: none must end the process by its default.
    let mut signals = [
        signal(SignalKind::terminate())?,
        signal(SignalKind::interrupt())?,
    ];
    let stop = CancellationToken::new();
    // The one place where it runs: a lost broker or Redis does not end it, they are connected to again.
    let mut running = std::pin::pin!(worker.run(stop.clone().cancelled_owned()));
    let stopped = loop {
        tokio::select! {
            ended = &mut running => break ended?,
            () = any(&mut signals) => {
                if stop.is_cancelled() {
                    eprintln!("stopped at once");
                    std::process::exit(130);
                }
                eprintln!("stopping: what is held is finished first");
                stop.cancel();
            }
        }
    };
    // Last: what was being finished needed it.
    fib.close().await;
    // Not by returning: a computation that does not look at `cancel` would keep the runtime alive.
    std::process::exit(match stopped {
        Stopped::Clean => 0,
        Stopped::Abandoned => 1,
    })
}

async fn any([terminate, interrupt]: &mut [Signal; 2]) {
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}
