//! A client of a worker in another language: `python_worker.py`, written after RabbitMQ's tutorial six.
//!
//!     python3 examples/python_worker.py amqp://localhost &
//!     cargo run --example foreign_worker 10 340282366920938463463374607431768211455
//!
//! The worker can be a program in any language that takes a request and replies. It needs no knowledge of rpcache
//! or Redis: the client verifies its answers and stores them.

use rpcache::{
    CacheOptions, Cancel, Client, ClientOptions, ComputeError, Procedure, ProcedureName,
};

/// The square root of a whole number, rounded down: `isqrt:10` holds `3`.
struct SquareRoot;

impl Procedure for SquareRoot {
    /// `u128` parses `+10` and `010`, and writes `10`: the canonical text that keys need.
    type Argument = u128;
    type Answer = u64;

    /// The queue is `rpc_queue.isqrt`.
    fn name(&self) -> &ProcedureName {
        const { &ProcedureName::new("isqrt") }
    }

    /// Not used, because no Rust worker serves this. (`Ok(n.isqrt() as u64)` would do it.)
    fn compute(&self, _: &u128, _: &Cancel) -> Result<u64, ComputeError> {
        Err(ComputeError::Failed("computed in Python only".into()))
    }

    /// Detects wrong answers of the worker, and of another program on this queue.
    fn verify(&self, &n: &u128, &root: &u64) -> bool {
        let root = u128::from(root);
        let above = (root + 1).checked_mul(root + 1);
        root * root <= n && above.is_none_or(|above| n < above)
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let url = |name, local: &str| std::env::var(name).unwrap_or(local.into());
    let amqp = url("AMQP_URL", "amqp://localhost").parse()?;
    let mut cache = CacheOptions::new(url("REDIS_URL", "redis://localhost").parse()?);
    cache.wait_for_connection = true;
    let client = Client::new(SquareRoot, ClientOptions::new(amqp, cache));
    for n in std::env::args().skip(1) {
        let n: u128 = n.parse()?;
        let found = client.call(n).await?;
        println!("{n}: {} ({})", found.answer, found.source);
    }
    client.close().await;
    Ok(())
}
