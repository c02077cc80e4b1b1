//! What the end-to-end tests stand on, as far as it is of use here.

#![expect(dead_code, reason = "shared with the end-to-end tests")]

#[path = "../../tests/end_to_end/support/amqp.rs"]
pub(crate) mod amqp;
#[path = "../../tests/end_to_end/support/lifetime.rs"]
pub(crate) mod lifetime;
#[path = "../../tests/end_to_end/support/ports.rs"]
pub(crate) mod ports;
#[path = "../../tests/end_to_end/support/process.rs"]
pub(crate) mod process;
#[path = "../../tests/end_to_end/support/rabbitmq.rs"]
pub(crate) mod rabbitmq;
#[path = "../../tests/end_to_end/support/redis.rs"]
pub(crate) mod redis;
#[path = "../../tests/end_to_end/support/wait.rs"]
pub(crate) mod wait;

/// The broker speaks in plain text only.
pub(crate) fn also_speaking(_: u16) -> String {
    String::new()
}
