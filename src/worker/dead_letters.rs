//! Answering for the dead: requests that the broker has given up.
//!
//! Where a policy sends expired, poisonous or overflowing requests to `QUEUE.dead`, their callers
//! would never hear of it. Workers consume that queue and reply with the failure that the broker
//! names in `x-death`; so even a caller in another language learns what became of its request.

use lapin::BasicProperties;
use lapin::types::AMQPValue;

use crate::error::ErrorCode;
use crate::message::Failure;

/// What to tell the caller of a dead-lettered request; `None` if it is none: anybody may publish to
/// that queue.
pub(super) fn failure(properties: &BasicProperties) -> Option<Failure> {
    let deaths = properties.headers().as_ref()?.inner().get("x-death")?;
    let AMQPValue::FieldArray(deaths) = deaths else {
        return None;
    };
    // The latest comes first.
    let AMQPValue::FieldTable(death) = deaths.as_slice().first()? else {
        return None;
    };
    let AMQPValue::LongString(reason) = death.inner().get("reason")? else {
        return None;
    };
    let (code, message) = match reason.as_bytes() {
        b"expired" => (
            ErrorCode::Expired,
            "the request's time ran out in the queue",
        ),
        b"delivery_limit" => (ErrorCode::Poison, "the request was delivered too often"),
        b"maxlen" => (ErrorCode::Overloaded, "the queue is full"),
        _ => (ErrorCode::Failed, "the broker gave the request up"),
    };
    Some(Failure {
        code,
        message: message.to_owned(),
    })
}
