//! A worker that stops as service managers expect it, and that calls another procedure.
//!
//!     cargo run --example graceful_shutdown
//!
//! At SIGTERM or Ctrl-C, it takes no more requests, answers those that it holds, and exits with 0, or with 1 if they
//! took longer than the grace. A second signal ends it at once. No request is lost: the broker gives requests without
//! a reply to another worker.
//!
//! It serves the sum of the decimal digits of a Fibonacci number (`digitsum:30` holds `17`), and calls the procedure
//! `fib` for that number. So it needs a worker for `fib`, such as `rpcache worker`, and the servers that `AMQP_URL` and
//! `REDIS_URL` name.

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

    /// Runs on a blocking thread, so it may block on an asynchronous call.
    fn compute(&self, &n: &N, cancel: &Cancel) -> Result<u64, ComputeError> {
        // Less than the grace, because nothing else ends this wait.
        let options = CallOptions::within(Duration::from_secs(15));
        let found = self.runtime.block_on(self.fib.call_with(n, options));
        cancel.check()?;
        let fib = found.map_err(|error| {
            eprintln!("fib {n}: {error}");
            // The text is sent to the caller, so it names none of our servers.
            ComputeError::Failed("the Fibonacci number is not available".into())
        })?;
        let digits = fib.answer.as_str().bytes();
        Ok(digits.map(|digit| u64::from(digit - b'0')).sum())
    }

    /// Casting out nines: a number and the sum of its digits have the same remainder, and F(n) modulo 9 has the
    /// period 24. It detects 8 of 9 wrong answers.
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
    // A little less than the time after which the service manager kills the process.
    options.grace = Duration::from_secs(20);
    let digit_sum = DigitSum {
        fib: fib.clone(),
        runtime: Handle::current(),
    };
    let worker = Worker::new(digit_sum, options);

    // Before serving, because by default a signal ends the process.
    let mut signals = [
        signal(SignalKind::terminate())?,
        signal(SignalKind::interrupt())?,
    ];
    let stop = CancellationToken::new();
    // The worker reconnects by itself when RabbitMQ or Redis is lost.
    let mut running = std::pin::pin!(worker.run(stop.clone().cancelled_owned()));
    let stopped = loop {
        tokio::select! {
            ended = &mut running => break ended?,
            () = any(&mut signals) => {
                if stop.is_cancelled() {
                    eprintln!("stopped at once");
                    std::process::exit(130);
                }
                eprintln!("stopping: answering the requests that are held");
                stop.cancel();
            }
        }
    };
    // Last, because the computations needed it.
    fib.close().await;
    // Not by returning: a computation that does not check `cancel` would block the end of the runtime.
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
