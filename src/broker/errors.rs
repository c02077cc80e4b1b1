//! Translates lapin's errors.

use lapin::ErrorKind;
use lapin::protocol::{AMQPErrorKind, AMQPHardError, AMQPSoftError};

use crate::error::{Error, quote};
use crate::server_url::AmqpUrl;
use crate::transport;

/// Translates an error of lapin's to the caller's.
pub(crate) fn translate(url: &AmqpUrl, error: &lapin::Error) -> Error {
    let server = url.to_string();
    let reason = describe(error);
    match temporary_refusal(error) {
        Some(TemporaryRefusal::Limit) => {
            return Error::Overloaded {
                reason: format!("{server} has a limit: {reason}"),
            };
        }
        Some(TemporaryRefusal::InUse) => return Error::Unreachable { server, reason },
        None => {}
    }
    // RabbitMQ's 530 (not allowed): the vhost does not exist, or this user has no access to it.
    let refused = hard_error(error) == Some(AMQPHardError::NOTALLOWED)
        || soft_error(error) == Some(AMQPSoftError::ACCESSREFUSED)
        || matches!(error.kind(), ErrorKind::AuthProviderError(_));
    if refused {
        Error::Refused { server, reason }
    } else {
        Error::Unreachable { server, reason }
    }
}

/// Whether a queue is exclusive to another connection.
pub(crate) fn is_locked(error: &lapin::Error) -> bool {
    soft_error(error) == Some(AMQPSoftError::RESOURCELOCKED)
}

/// Whether the login lacks a right.
pub(super) fn is_access_refused(error: &lapin::Error) -> bool {
    soft_error(error) == Some(AMQPSoftError::ACCESSREFUSED)
}

/// A refusal that ends without a change of the configuration.
enum TemporaryRefusal {
    /// The user, vhost or node has reached its limit of connections.
    Limit,
    /// Another connection is the queue's exclusive consumer.
    InUse,
}

/// Recognizes temporary refusals by the broker's message: their codes are those of lasting ones.
fn temporary_refusal(error: &lapin::Error) -> Option<TemporaryRefusal> {
    let ErrorKind::ProtocolError(error_of_broker) = error.kind() else {
        return None;
    };
    let message = error_of_broker.get_message().as_str();
    if soft_error(error) == Some(AMQPSoftError::ACCESSREFUSED) {
        return message
            .contains("in exclusive use")
            .then_some(TemporaryRefusal::InUse);
    }
    let limit = message.contains("limit") && message.contains("is reached");
    let not_allowed = hard_error(error) == Some(AMQPHardError::NOTALLOWED);
    (not_allowed && limit).then_some(TemporaryRefusal::Limit)
}

/// Whether the broker closed the connection because of a message that it received.
pub(crate) fn is_closed_over_message(error: &lapin::Error) -> bool {
    // `CONNECTION_FORCED` is an operator's action, such as stopping the broker.
    hard_error(error).is_some_and(|error| error != AMQPHardError::CONNECTIONFORCED)
}

pub(crate) fn unreachable(url: &AmqpUrl, reason: &str) -> Error {
    Error::Unreachable {
        server: url.to_string(),
        reason: reason.to_owned(),
    }
}

pub(super) fn soft_error(error: &lapin::Error) -> Option<AMQPSoftError> {
    match error.kind() {
        ErrorKind::ProtocolError(error) => match error.kind() {
            AMQPErrorKind::Soft(error) => Some(error.clone()),
            AMQPErrorKind::Hard(_) => None,
        },
        _ => None,
    }
}

pub(super) fn hard_error(error: &lapin::Error) -> Option<AMQPHardError> {
    match error.kind() {
        ErrorKind::ProtocolError(error) => match error.kind() {
            AMQPErrorKind::Hard(error) => Some(error.clone()),
            AMQPErrorKind::Soft(_) => None,
        },
        _ => None,
    }
}

/// Describes an error, for a log line or a message.
pub(crate) fn describe(error: &lapin::Error) -> String {
    match error.kind() {
        ErrorKind::IOError(error) => transport::describe(error),
        ErrorKind::ProtocolError(error) => quote(error.get_message().as_str().as_bytes()),
        ErrorKind::ParsingError(_) | ErrorKind::InvalidProtocolVersion(_) => {
            "what answers there is not RabbitMQ".to_owned()
        }
        ErrorKind::MissingHeartbeatError => "it has stopped answering heartbeats".to_owned(),
        // lapin's error of a call on a connection that ended before: it does not keep the reason.
        ErrorKind::InvalidConnectionState(_) => "the connection is closed".to_owned(),
        _ => quote(error.to_string().as_bytes()),
    }
}

#[cfg(test)]
mod tests {
    use lapin::protocol::AMQPError;

    use super::*;

    fn translated(kind: AMQPErrorKind, message: &str) -> Error {
        let url = "amqp://localhost".parse().expect("an address");
        let error = AMQPError::new(kind, message.into());
        translate(&url, &ErrorKind::ProtocolError(error).into())
    }

    #[test]
    fn temporary_refusals_are_not_lasting() {
        let not_allowed =
            |message| translated(AMQPErrorKind::Hard(AMQPHardError::NOTALLOWED), message);
        let refused =
            |message| translated(AMQPErrorKind::Soft(AMQPSoftError::ACCESSREFUSED), message);
        for temporary in [
            not_allowed(
                "NOT_ALLOWED - access to vhost '/' refused for user 'guest': connection limit (1) is reached",
            ),
            not_allowed(
                "NOT_ALLOWED - connection refused for user 'guest': user connection limit (1) is reached",
            ),
            refused("ACCESS_REFUSED - queue 'rpc_queue' in vhost '/' in exclusive use"),
        ] {
            assert!(!temporary.is_lasting(), "{temporary:?}");
        }
        for lasting in [
            not_allowed("NOT_ALLOWED - vhost nowhere not found"),
            not_allowed("NOT_ALLOWED - access to vhost '/' refused for user 'guest'"),
            refused(
                "ACCESS_REFUSED - access to exchange 'amq.default' in vhost '/' refused for user 'mute'",
            ),
        ] {
            assert!(lasting.is_lasting(), "{lasting:?}");
        }
    }
}
