//! What an error of lapin's means.

use lapin::ErrorKind;
use lapin::protocol::{AMQPErrorKind, AMQPHardError, AMQPSoftError};

use crate::error::{Error, quote};
use crate::server_url::AmqpUrl;
use crate::transport;

/// What an error of lapin's means for whoever called.
pub(crate) fn translate(url: &AmqpUrl, error: &lapin::Error) -> Error {
    let server = url.to_string();
    let reason = describe(error);
    match passing(error) {
        Some(Passing::Limit) => {
            return Error::Overloaded {
                reason: format!("{server} has a limit: {reason}"),
            };
        }
        Some(Passing::InUse) => return Error::Unreachable { server, reason },
        None => {}
    }
    // 530 is how RabbitMQ says that there is no such vhost, or that this user may not use it.
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

/// A refusal that passes by itself, while nobody has to correct anything.
enum Passing {
    /// There are as many connections as this user, vhost or node may have.
    Limit,
    /// Another connection consumes the queue, as the only one that may.
    InUse,
}

/// Only the broker's words tell these from refusals that last.
fn passing(error: &lapin::Error) -> Option<Passing> {
    let ErrorKind::ProtocolError(said) = error.kind() else {
        return None;
    };
    let said = said.get_message().as_str();
    if soft_error(error) == Some(AMQPSoftError::ACCESSREFUSED) {
        return said.contains("in exclusive use").then_some(Passing::InUse);
    }
    let limit = said.contains("limit") && said.contains("is reached");
    let not_allowed = hard_error(error) == Some(AMQPHardError::NOTALLOWED);
    (not_allowed && limit).then_some(Passing::Limit)
}

/// Whether the broker closed the connection over something that it was sent.
pub(crate) fn is_closed_over_message(error: &lapin::Error) -> bool {
    // Forced is an operator's doing, such as stopping the broker.
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

/// What happened, for a log line or a message.
pub(crate) fn describe(error: &lapin::Error) -> String {
    match error.kind() {
        ErrorKind::IOError(error) => transport::describe(error),
        ErrorKind::ProtocolError(error) => quote(error.get_message().as_str().as_bytes()),
        ErrorKind::ParsingError(_) | ErrorKind::InvalidProtocolVersion(_) => {
            "what answers there is not RabbitMQ".to_owned()
        }
        ErrorKind::MissingHeartbeatError => "it has stopped answering".to_owned(),
        _ => quote(error.to_string().as_bytes()),
    }
}

#[cfg(test)]
mod tests {
    use lapin::protocol::AMQPError;

    use super::*;

    fn said(kind: AMQPErrorKind, said: &str) -> Error {
        let url = "amqp://localhost".parse().expect("an address");
        let error = AMQPError::new(kind, said.into());
        translate(&url, &ErrorKind::ProtocolError(error).into())
    }

    #[test]
    fn refusals_that_pass_by_themselves_are_told_from_those_that_last() {
        let not_allowed = |words| said(AMQPErrorKind::Hard(AMQPHardError::NOTALLOWED), words);
        let refused = |words| said(AMQPErrorKind::Soft(AMQPSoftError::ACCESSREFUSED), words);
        for passing in [
            not_allowed(
                "NOT_ALLOWED - access to vhost '/' refused for user 'guest': connection limit (1) is reached",
            ),
            not_allowed(
                "NOT_ALLOWED - connection refused for user 'guest': user connection limit (1) is reached",
            ),
            refused("ACCESS_REFUSED - queue 'rpc_queue' in vhost '/' in exclusive use"),
        ] {
            assert!(!passing.is_lasting(), "{passing:?}");
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
