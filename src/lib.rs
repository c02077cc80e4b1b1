//! RPC over RabbitMQ with a Redis-backed result cache in front of the workers.
//!
//! A caller looks in Redis first; only a miss becomes an RPC; the worker that computes the answer
//! stores it. Answers are plain strings under plain keys (`fib:30` holds `832040`), requests and
//! replies are those of RabbitMQ's RPC tutorial, so that redis-cli and programs in any language work
//! with both. What is served is anyone's pure function: a [`Procedure`].
//!
//! ```no_run
//! use rpcache::fibonacci::{Fibonacci, N};
//! use rpcache::{CacheOptions, Client, ClientOptions, Worker, WorkerOptions};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let amqp: rpcache::AmqpUrl = "amqp://localhost".parse()?;
//! let cache = CacheOptions::new("redis://localhost".parse()?);
//!
//! // Somewhere, as often as wanted: a worker, until the future that it is given resolves.
//! let worker = Worker::new(Fibonacci::default(), WorkerOptions::new(amqp.clone(), cache.clone()));
//! tokio::spawn(worker.run(std::future::pending()));
//!
//! // Elsewhere: one client for the whole process.
//! let client = Client::new(Fibonacci::default(), ClientOptions::new(amqp, cache));
//! let answered = client.call(N(30)).await?;
//! assert_eq!(answered.answer.as_str(), "832040");
//! # Ok(())
//! # }
//! ```
//!
//! # One call, step by step
//!
//! The files are listed below in the order in which a call meets them.
//!
//! 1. The [`client`] turns the argument into its one canonical text and the key `fib:30`
//!    ([`cache::Key`]). With a local tier ([`ClientOptions::local`], off by default), a copy in the
//!    process's own memory is the answer; what is removed from Redis is purged there, too.
//! 2. It looks in Redis ([`cache`]), together with whoever else looks at that moment
//!    (`cache/lookups.rs`), within a budget of 50 ms. A hit that passes
//!    [`Procedure::verify`] is the answer: RabbitMQ is not even connected to. Behind a lost or
//!    frozen Redis, the look costs nothing and misses.
//! 3. On a miss, callers of one key in one process share one flight ([`single_flight`]).
//! 4. The [`requester`] publishes to `rpc_queue`, mandatory and confirmed, with `reply_to`, a random
//!    `correlation_id`, and what is left of the deadline as `expiration` ([`message`]), over a
//!    connection that is replaced when it is lost ([`broker`]), encrypted where the address says so
//!    ([`transport`], [`tls`]).
//! 5. A [`worker`] takes the delivery, checks it, and in one round trip tries for the key's lease and
//!    looks in Redis once more. With the lease it computes, on a thread of its own ([`procedure`],
//!    [`fibonacci`]); without, another worker does, and it waits for that one's answer. Requests for
//!    one key in one worker share a flight as callers do. What a procedure calls cheap is computed on
//!    the spot, without a lease.
//! 6. It fills the cache and releases the lease, publishes the reply, waits for the confirm, acks. In this order: whoever
//!    has seen an answer finds it in the cache, a lost reply is still cached, and the delivery of a
//!    killed worker goes to the next one.
//! 7. The requester matches the reply by its correlation id; the client verifies the answer and
//!    wakes all who share the flight.
//!
//! Every call ends in an answer or one typed [`Error`], by its deadline. No fault of Redis fails or
//! falsifies a call. What stands in the cache and what a worker answers is checked before it is
//! believed.
//!
//! # Watching it
//!
//! What happens is told by `tracing`: a line for each loss, recovery and refusal, at debug one for each
//! call. [`Worker::health`] says whether a worker takes requests. With the feature `metrics`,
//! `Client::metrics` and `Worker::metrics` give what is counted to Prometheus and its kin.

// In the order of the steps, one group each: rustfmt sorts within a group only.
mod client;

mod cache;

mod single_flight;

mod requester;

mod message;

mod broker;
mod queue;
mod server_url;
mod tls;
mod transport;

mod worker;

mod procedure;

pub mod fibonacci;

mod counts;
mod error;
#[cfg(feature = "metrics")]
mod metrics;
mod seldom;

// No part of a call: it looks at what a call needs.
pub mod doctor;

#[cfg(test)]
mod interleavings;

pub use broker::Declare;
pub use cache::{
    Cache, CacheOptions, Count, Entry, Explained, Holder, KeyPattern, KeyPatternError, LeaseHeld,
    Lives, Namespace, NamespaceError, Precision, Scan, ServerStats, Stored, StoredKey, Survey,
    Verified, Wrong, WrongEntry,
};
pub use client::{Answered, CallOptions, Client, ClientOptions, LocalOptions};
pub use error::{Error, ErrorCode};
pub use message::{CacheUse, ReplyPattern, ReplyPatternError, Source};
#[cfg(feature = "metrics")]
pub use metrics::{Metrics, MetricsFormat};
pub use procedure::{Cancel, ComputeError, Procedure};
pub use queue::{QueueName, QueueNameError};
pub use server_url::{AmqpUrl, RedisUrl, UrlError};
pub use tls::TlsFault;
#[cfg(feature = "tls")]
pub use tls::{Tls, TlsIdentity, TlsOptions, TlsOptionsError};
pub use worker::{
    Computing, Readiness, Stopped, Worker, WorkerCounts, WorkerHealth, WorkerOptions, WorkerStatus,
};
