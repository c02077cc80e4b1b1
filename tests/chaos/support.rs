//! Modules of the end-to-end tests that the campaign uses, too.

#![expect(dead_code, reason = "shared with the end-to-end tests")]
#![expect(clippy::unwrap_used, reason = "as tests may")]

#[path = "../end_to_end/support/isolated.rs"]
pub(crate) mod isolated;
#[path = "../end_to_end/support/lifetime.rs"]
pub(crate) mod lifetime;
#[path = "../end_to_end/support/ports.rs"]
pub(crate) mod ports;
#[path = "../end_to_end/support/process.rs"]
pub(crate) mod process;
#[path = "../end_to_end/support/rabbit_cluster.rs"]
pub(crate) mod rabbit_cluster;
#[path = "../end_to_end/support/rabbitmq.rs"]
pub(crate) mod rabbitmq;
#[path = "../end_to_end/support/redis.rs"]
pub(crate) mod redis;
#[path = "../end_to_end/support/redis_cluster.rs"]
pub(crate) mod redis_cluster;
#[path = "../end_to_end/support/sentinel_set.rs"]
pub(crate) mod sentinel_set;
#[path = "../end_to_end/support/wait.rs"]
pub(crate) mod wait;
#[path = "../end_to_end/support/wire.rs"]
pub(crate) mod wire;

/// Further listeners in the broker's configuration: none.
pub(crate) fn further_listeners(_: u16) -> String {
    String::new()
}
