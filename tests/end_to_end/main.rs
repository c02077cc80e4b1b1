//! End-to-end tests of the command, as a process between a real RabbitMQ, a real Redis, and peers that
//! speak raw AMQP. They do not use the library, so that they freeze the wire format, the keys and the
//! command line without sharing its mistakes.
//!
//! The tests start their servers themselves, on free ports, and leave nothing behind: see `support`. Each
//! test has a vhost and a Redis of its own; none waits for a guessed time.

// The tests start the command, which needs this feature.
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
mod logs;
mod metrics;
mod near_cache;
mod preferred_node;
mod procedures;
mod programs;
mod prometheus;
mod protocol;
mod provision;
mod rabbit_cluster;
mod redelivered;
mod redis_cluster;
mod redis_hostile;
mod redis_sentinel;
mod redis_topology;
mod refused_messages;
mod rights;
mod secrets;
mod servers_down;
mod shutdown;
mod stampede;
mod support;
mod temporary_refusals;
mod tls;
mod top;
mod trace;
mod tutorial;
mod wire_cache_header;
mod wire_client;
mod wire_frames;
mod wire_generated;
mod wire_hostile;
mod wire_worker;
mod worker_queue;
