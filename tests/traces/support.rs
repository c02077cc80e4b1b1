//! Modules of the end-to-end tests that these tests use, too.

#![expect(dead_code, reason = "shared with the end-to-end tests")]

#[path = "../end_to_end/support/amqp.rs"]
pub(crate) mod amqp;
#[path = "../end_to_end/support/isolated.rs"]
pub(crate) mod isolated;
#[path = "../end_to_end/support/lifetime.rs"]
pub(crate) mod lifetime;
#[path = "../end_to_end/support/ports.rs"]
pub(crate) mod ports;
#[path = "../end_to_end/support/process.rs"]
pub(crate) mod process;
#[path = "../end_to_end/support/rabbitmq.rs"]
pub(crate) mod rabbitmq;
#[path = "../end_to_end/support/redis.rs"]
pub(crate) mod redis;
#[path = "../end_to_end/support/wait.rs"]
pub(crate) mod wait;

/// Further listeners in the broker's configuration: none.
pub(crate) fn further_listeners(_: u16) -> String {
    String::new()
}
