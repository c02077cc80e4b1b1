//! RPC over RabbitMQ with a Redis-backed result cache in front of the workers.
//!
//! A caller looks in Redis first; only a miss becomes an RPC; the worker that computes the answer
//! stores it. Answers are plain strings under plain keys (`fib:30` holds `832040`), and requests and
//! replies are those of RabbitMQ's RPC tutorial. So redis-cli and programs in any language work with
//! both.
//!
//! # Quick start
//!
//! A [`Procedure`] is a pure function with a name. This one computes whole square roots.
//!
//! ```no_run
//! use rpcache::{AmqpUrl, CacheOptions, Cancel, Client, ClientOptions, ComputeError};
//! use rpcache::{Procedure, ProcedureName, Worker, WorkerOptions};
//!
//! struct SquareRoot;
//!
//! impl Procedure for SquareRoot {
//!     type Argument = u64;
//!     type Answer = u64;
//!
//!     // The key isqrt:10, the queue rpc_queue.isqrt.
//!     fn name(&self) -> &ProcedureName {
//!         const { &ProcedureName::new("isqrt") }
//!     }
//!
//!     fn compute(&self, n: &u64, _: &Cancel) -> Result<u64, ComputeError> {
//!         Ok(n.isqrt())
//!     }
//!
//!     // Checks every answer of Redis and of workers before it is used.
//!     fn verify(&self, &n: &u64, &root: &u64) -> bool {
//!         let (n, root) = (u128::from(n), u128::from(root));
//!         root * root <= n && n < (root + 1) * (root + 1)
//!     }
//! }
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let amqp: AmqpUrl = "amqp://localhost".parse()?;
//! let cache = CacheOptions::new("redis://localhost".parse()?);
//!
//! // A worker, until Ctrl-C. Any number of them can run, on any number of machines.
//! let worker = Worker::new(SquareRoot, WorkerOptions::new(amqp.clone(), cache.clone()));
//! tokio::spawn(worker.run(async { tokio::signal::ctrl_c().await.unwrap_or(()) }));
//!
//! // In another program: one client for the whole process.
//! let client = Client::new(SquareRoot, ClientOptions::new(amqp, cache));
//! let found = client.call(10).await?;
//! assert_eq!(found.answer, 3);
//! println!("{} ({})", found.answer, found.source); // 3 (computed), and the next time 3 (cache)
//! # Ok(())
//! # }
//! ```
//!
//! The folder `examples` has complete programs: a procedure in the fewest lines (`prime_factors`), an
//! argument of several parts and its canonical text (`timetable`), a client in an axum handler
//! (`axum_handler`), a worker that stops gracefully (`graceful_shutdown`), a worker in Python
//! (`foreign_worker`, `python_worker.py`), metrics (`client_metrics`).
//!
//! # Which type for what
//!
//! | to | there is |
//! | --- | --- |
//! | define a procedure: name, argument, answer, how to compute and to verify it | [`Procedure`], [`ProcedureName`] |
//! | call a procedure known by its name only | [`Text`], [`ArgumentForm`] |
//! | call it | [`Client`] with [`ClientOptions`]; [`CallOptions`] for one call |
//! | call it for many arguments, in order and with bounded memory | [`Client::call_many`] |
//! | know where an answer came from | [`Answered::source`], a [`Source`] |
//! | handle errors | [`Error`], [`ErrorCode`] |
//! | serve it | [`Worker`] with [`WorkerOptions`] |
//! | serve a program in any language | `Worker::with_program`, `program::Program` (feature `programs`) |
//! | answer a health check | [`Worker::health`], [`Readiness`] |
//! | configure Redis | [`CacheOptions`], [`RedisUrl`], [`Namespace`] |
//! | configure RabbitMQ and the queue | [`AmqpUrl`], [`QueueName`], [`Declare`] |
//! | keep copies of answers in the process | [`LocalOptions`] |
//! | list, verify and remove stored answers | [`Cache`], [`inspect`] |
//! | list the workers | [`Cache::workers`], [`fleet`] |
//! | check a deployment | [`doctor::Doctor`] |
//! | use a built-in procedure | [`fibonacci::Fibonacci`] |
//! | export metrics to Prometheus | `Metrics` (feature `metrics`) |
//!
//! # What holds everywhere
//!
//! - **Options**: `new` takes the values without a default; the others are fields.
//! - **Time-outs** are durations on a monotonic clock, sizes are bytes. Each is documented with its
//!   default.
//! - **Cancellation**: every future may be dropped at any time. Each documents the effect, which is never a
//!   wrong answer, a leak or a lost request.
//! - **Panics**: this crate panics only outside of a Tokio runtime. A panic of a [`Procedure`] is caught: in
//!   `compute` it is answered as [`ErrorCode::Failed`], in `verify` it refuses the answer.
//! - **Threads**: all types are `Send` and `Sync`, and so are the futures of calls.
//! - **Secrets**: no `Debug`, `Display`, error or log line shows a password.
//! - **Runtime**: Tokio, with time and I/O enabled. Clients, workers and caches start tasks, which end
//!   with their owner.
//!
//! # Features
//!
//! | feature | default | adds |
//! | --- | --- | --- |
//! | `cli` | yes | the command `rpcache`, with `fibonacci`, `management`, `metrics`, `programs` and `tls`; a library needs `default-features = false` |
//! | `fibonacci` | with `cli` | the procedure [`fibonacci::Fibonacci`] |
//! | `tls` | with `cli` | `amqps://` and `rediss://`, with rustls; without it they are refused |
//! | `metrics` | with `cli` | `Client::metrics`, `Worker::metrics`, with prometheus-client |
//! | `management` | with `cli` | the [`doctor`] asks RabbitMQ's management API about the cluster, with hyper |
//! | `programs` | with `cli` | `Worker::with_program`: programs in any language as procedures, on Linux, with rustix |
//! | `trace-context` | no | traces that continue in workers, through tracing-opentelemetry |
//! | `otel` | no | the command sends its traces to a collector |
//!
//! Types of other crates are part of this interface in three places only: `Stream` of futures-core 0.3
//! in [`Client::call_many`]; serde 1's traits on types that are shown as JSON, such as [`fleet::WorkerStatus`];
//! and prometheus-client's `Collector` for `Metrics`. The minimum Rust version is 1.90; only a new minor
//! version raises it.
//!
//! # One call, step by step
//!
//! The modules are listed below in the order in which a call meets them; ARCHITECTURE.md has the file of each
//! step, eight for a hit and fifteen more for a miss.
//!
//! 1. The [`client`] turns the argument into its one canonical text and the key `fib:30`
//!    ([`cache::Key`]). With a near cache ([`ClientOptions::local`], off by default), a copy in the
//!    process's own memory is the answer; an invalidation drops copies of removed answers.
//! 2. It looks in Redis ([`cache`]), in one round trip with other lookups of that moment
//!    (`cache/redis/batcher.rs`), within a budget of 50 ms. A hit that passes
//!    [`Procedure::verify`] is the answer: RabbitMQ is not even connected to. While Redis is
//!    known to be down or frozen, the lookup is a miss at once.
//! 3. On a miss, the client asks a worker (`client/ask_worker.rs`): callers of one key in one process share one
//!    flight ([`single_flight`]).
//! 4. The [`requester`] publishes to `rpc_queue`, mandatory and confirmed, with `reply_to`, a random
//!    `correlation_id`, and what is left of the deadline as `expiration` ([`message`]), over a
//!    connection that is replaced when it is lost ([`broker`]), encrypted if the address says so
//!    ([`transport`], [`tls`]).
//! 5. A [`worker`] takes the delivery, checks it, and in one round trip tries for the key's lease and
//!    looks in Redis once more. With the lease it computes, on a blocking thread ([`procedure`],
//!    [`fibonacci`]) or by a process of a program ([`program`]); otherwise another worker computes, and
//!    it waits for that worker's answer. Requests for one key in one worker share a flight as callers
//!    do. A cheap argument, such as `fib` up to 1000, is computed at once, without a lease.
//! 6. It fills the cache and releases the lease, publishes the reply, waits for the confirm, acks. Because
//!    of this order, an answer that was returned is in the cache, an answer whose reply is lost is stored,
//!    and the broker gives the request of a killed worker to another one.
//! 7. The requester matches the reply by its correlation id; the client verifies the answer and
//!    wakes all who share the flight.
//!
//! Every call ends in an answer or one typed [`Error`], by its deadline. No fault of Redis fails or
//! falsifies a call. Every answer of the cache and of a worker is verified before it is returned.
//!
//! # Watching it
//!
//! Events of `tracing` report each loss, recovery and refusal, and at debug each call. Set `lapin=off` in your
//! filter: lapin itself logs whole messages of peers, and at trace its login with the password.
//! [`Worker::health`] says whether a worker takes requests. With the feature `metrics`, `Client::metrics` and
//! `Worker::metrics` have the numbers for Prometheus.
//!
//! Each step of a call is a `tracing` span with the target `rpcache::trace` and the level TRACE, named
//! after OpenTelemetry's conventions; a filter such as `info,rpcache::trace=trace` turns them on; otherwise
//! they cost almost nothing. With the feature `trace-context` and a layer of `tracing-opentelemetry`
//! on both sides, a call is one trace: W3C's `traceparent` travels with the request. While the target
//! `rpcache::trace::told` is on, workers report how long their steps took, and the client repeats the
//! reports as events.

// In the order of the steps, one group each: rustfmt sorts within a group only.
mod client;

mod cache;

mod single_flight;

mod requester;

mod cache_use;
mod message;
mod source;

mod broker;
mod queue;
mod server_url;
pub mod tls;
mod transport;

mod worker;

mod procedure;
mod procedure_name;

#[cfg(feature = "fibonacci")]
pub mod fibonacci;

#[cfg(feature = "programs")]
pub mod program;

mod counts;
mod error;
mod log_throttle;
#[cfg(feature = "metrics")]
mod metrics;
mod text;
mod trace;

// No part of a call: the doctor, the workers' announcements, what a person looks into the cache with.
pub mod doctor;
pub mod fleet;
pub mod inspect;

#[cfg(test)]
mod interleavings;

/// Longer times mean for ever, and would overflow the clock: a hundred years.
const FOR_EVER: std::time::Duration = std::time::Duration::from_secs(100 * 365 * 24 * 60 * 60);

pub use broker::Declare;
pub use cache::{Cache, CacheOptions, Namespace};
pub use cache_use::CacheUse;
pub use client::{Answered, CallOptions, Client, ClientOptions, LocalOptions};
pub use error::{Error, ErrorCode};
#[cfg(feature = "metrics")]
pub use metrics::{Metrics, MetricsFormat};
pub use procedure::{Answer, AnswerBytes, ArgumentForm, Cancel, ComputeError, Procedure, Text};
pub use procedure_name::ProcedureName;
pub use queue::QueueName;
pub use server_url::{AmqpUrl, RedisUrl};
pub use source::Source;
pub use worker::{Readiness, ReplyPattern, Stopped, Worker, WorkerHealth, WorkerOptions};

/// Why a text is no name, pattern or address.
pub mod errors {
    pub use crate::cache::NamespaceError;
    pub use crate::error::ErrorCodeError;
    pub use crate::procedure::ArgumentFormError;
    pub use crate::procedure_name::ProcedureNameError;
    pub use crate::queue::QueueNameError;
    pub use crate::server_url::UrlError;
    pub use crate::worker::ReplyPatternError;
}
