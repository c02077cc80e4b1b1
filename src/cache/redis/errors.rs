//! Redis' errors in the store's words.

use redis::{ErrorKind, RedisError};

use super::resp;
use crate::cache::store::{Refusal, RefusalKind, StoreError};
use crate::error::{Error, quote};
use crate::server_url::RedisUrl;

/// Why a command has no result, with what redis-rs knows of it.
#[derive(Debug, Clone)]
pub(super) enum CommandError {
    /// There is no connection, or it was lost, or the time ran out.
    Unavailable,
    /// Redis answered with an error, or with something that cannot be read.
    Refused(RedisError),
}

impl From<CommandError> for StoreError {
    fn from(error: CommandError) -> Self {
        match error {
            CommandError::Unavailable => Self::Unavailable,
            CommandError::Refused(error) => Self::Refused(error.into()),
        }
    }
}

impl From<RedisError> for Refusal {
    fn from(error: RedisError) -> Self {
        let kind = match error.code() {
            Some("WRONGTYPE") => RefusalKind::WrongType,
            Some(resp::TOO_BIG) => RefusalKind::TooLarge,
            Some("NOPERM") => RefusalKind::NotPermitted,
            _ => RefusalKind::Other,
        };
        Self {
            kind,
            reason: describe(&error),
        }
    }
}

/// The store's word on one command of several.
pub(super) fn refused(error: RedisError) -> StoreError {
    StoreError::Refused(error.into())
}

pub(super) fn is_wrong_type(error: &RedisError) -> bool {
    error.code() == Some("WRONGTYPE")
}

/// What Redis said, or what happened to the connection, for a log line.
pub(super) fn describe(error: &RedisError) -> String {
    if error.is_connection_refusal() {
        return "nothing is listening there".to_owned();
    }
    if error.is_timeout() {
        return "it answers too late to be of use".to_owned();
    }
    if error.kind() == ErrorKind::Parse {
        return "what answers there is not Redis".to_owned();
    }
    if error.kind() == ErrorKind::UnexpectedReturnType {
        let detail = quote(error.detail().unwrap_or_default().as_bytes());
        return format!("its answer cannot be read: {detail}");
    }
    let text = match (error.code(), error.detail()) {
        (Some(code), Some(detail)) => format!("{code} {detail}"),
        (Some(code), None) => code.to_owned(),
        (None, _) => error.to_string(),
    };
    quote(text.as_bytes())
}

pub(super) fn unreachable(url: &RedisUrl, reason: String) -> Error {
    Error::Unreachable {
        server: url.to_string(),
        reason,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use redis::ServerErrorKind;

    #[test]
    fn refusals_are_told_apart_by_their_code() {
        let kind = |code: &str| {
            let line = format!("-{code} something\r\n");
            let value = redis::parse_redis_value(line.as_bytes()).unwrap();
            let error = value.extract_error().unwrap_err();
            Refusal::from(error).kind
        };
        assert_eq!(kind("WRONGTYPE"), RefusalKind::WrongType);
        assert_eq!(kind(resp::TOO_BIG), RefusalKind::TooLarge);
        assert_eq!(kind("NOPERM"), RefusalKind::NotPermitted);
        assert_eq!(kind("OOM"), RefusalKind::Other);
    }

    #[test]
    fn a_refusal_says_what_redis_said_escaped() {
        let error = RedisError::from((
            ErrorKind::Server(ServerErrorKind::NoPerm),
            "refused",
            "this user \x1b[2J".to_owned(),
        ));
        let refusal = Refusal::from(error);
        assert!(refusal.reason.contains("\\u{1b}"), "{}", refusal.reason);
    }
}
