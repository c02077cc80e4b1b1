//! rpcache from the outside: the command as a process between a real RabbitMQ, a real Redis, and
//! peers that speak raw AMQP. Nothing here uses the library, so that the wire format, the keys and
//! the command line are frozen by tests that cannot share a mistake with it.
//!
//! The tests start their servers themselves, on free ports, and leave nothing behind:
//! `support` says how. Each test has a vhost and a Redis of its own; none waits for a guessed time.

// Without the command there is nothing to start.
#![cfg(feature = "cli")]
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

mod addresses;
mod bad_input;
mod bench;
mod cache;
mod cache_faults;
mod cache_manage;
mod cache_stats;
mod cache_verify;
mod call;
mod dead_letters;
mod direct_reply_to;
mod doctor;
mod endpoint;
mod examples;
mod fleet;
mod install;
mod lease;
mod local;
mod logs;
mod metrics;
mod passing_refusals;
mod procedures;
mod prometheus;
mod protocol;
mod provision;
mod redis_hostile;
mod redis_topology;
mod refused_messages;
mod rights;
mod secrets;
mod servers_down;
mod shutdown;
mod stampede;
mod support;

mod suspects;
mod tls;
mod top;
mod trace;
mod tutorial;
mod wire_cache_header;
mod wire_frames;
mod wire_generated;
mod wire_hostile;
mod wire_in;
mod wire_out;
mod worker_queue;
