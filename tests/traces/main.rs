//! Traces: the command exports to a collector of the test, which decodes and compares the spans.
//!
//! Run by scripts/check: `cargo test --features otel --test traces`. The end-to-end tests cover calls and
//! workers without a collector.

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
