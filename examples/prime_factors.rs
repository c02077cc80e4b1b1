//! A procedure of your own: the prime factors of a number. `cargo run --example prime_factors serve`
//! serves it, `cargo run --example prime_factors call 360 97` calls it.

use std::num::NonZeroU64;

use rpcache::{CacheOptions, Cancel, Client, ClientOptions, ComputeError};
use rpcache::{Procedure, ProcedureName, Worker, WorkerOptions};

struct PrimeFactors;

impl Procedure for PrimeFactors {
    type Argument = NonZeroU64;
    type Answer = String; // "2 2 2 3 3 5"

    fn name(&self) -> &ProcedureName {
        const { &ProcedureName::new("factors") }
    }

    fn compute(&self, n: &NonZeroU64, cancel: &Cancel) -> Result<String, ComputeError> {
        let (mut rest, mut divisor, mut factors) = (n.get(), 2, Vec::new());
        while divisor <= rest / divisor {
            if rest % divisor == 0 {
                factors.push(divisor.to_string());
                rest /= divisor;
            } else {
                divisor += 1;
                cancel.check()?; // one relaxed load
            }
        }
        factors.extend((rest > 1).then(|| rest.to_string()));
        Ok(factors.join(" "))
    }

    fn verify(&self, n: &NonZeroU64, answer: &String) -> bool {
        let multiply = |n: u64, factor: &str| n.checked_mul(factor.parse().ok()?);
        answer.split_whitespace().try_fold(1, multiply) == Some(n.get())
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let url = |name, local: &str| std::env::var(name).unwrap_or(local.into());
    let amqp = url("AMQP_URL", "amqp://localhost").parse()?;
    let mut cache = CacheOptions::new(url("REDIS_URL", "redis://localhost").parse()?);
    if std::env::args().nth(1).as_deref() == Some("call") {
        cache.wait_for_connection = true;
        let client = Client::new(PrimeFactors, ClientOptions::new(amqp, cache));
        for n in std::env::args().skip(2) {
            let found = client.call(n.parse()?).await?;
            println!("{n}: {} ({})", found.answer, found.source);
        }
    } else {
        let stop = async { tokio::signal::ctrl_c().await.unwrap_or(()) };
        let worker = Worker::new(PrimeFactors, WorkerOptions::new(amqp, cache));
        worker.run(stop).await?;
    }
    Ok(())
}
