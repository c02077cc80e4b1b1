//! Traces from the outside: the command with a collector of the test's own, which reads what is exported.
//!
//! Run by scripts/check: `cargo test --features otel --test traces`. What a call and a worker do without a
//! collector is among the end-to-end tests.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

mod collector;
mod export;
mod one_trace;
mod protobuf;
mod setup;
mod support;
