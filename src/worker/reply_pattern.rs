//! Names of queues that a worker may reply to.

use std::fmt;
use std::str::FromStr;

/// A queue name, or the beginning of one followed by `*`, that a worker may reply to.
///
/// A client can name any queue in `reply_to`, and the worker publishes there with its own rights: so it allows
/// names of callback queues only. 1 to 255 bytes, the `*` not counted.
///
/// ```
/// use rpcache::ReplyPattern;
///
/// let mut allowed = ReplyPattern::defaults();
/// allowed.push("replies.of.billing.*".parse().unwrap());
/// assert!("replies.*.billing".parse::<ReplyPattern>().is_err());
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ReplyPattern(String);

impl fmt::Display for ReplyPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for ReplyPattern {
    type Err = ReplyPatternError;

    fn from_str(text: &str) -> Result<Self, ReplyPatternError> {
        let name = text.strip_suffix('*').unwrap_or(text);
        if name.is_empty() || name.contains('*') || name.len() > 255 {
            return Err(ReplyPatternError);
        }
        Ok(Self(text.to_owned()))
    }
}

/// Why a text is no [`ReplyPattern`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected a queue's name, or the beginning of one followed by '*'")]
#[non_exhaustive]
pub struct ReplyPatternError;

impl ReplyPattern {
    /// The names that RabbitMQ gives callback queues and direct reply-to, and the C++ tutorial's prefix.
    #[must_use]
    pub fn defaults() -> Vec<Self> {
        ["amq.gen-*", "amq.rabbitmq.reply-to.*", "rpc.reply.*"]
            .map(|text| Self(text.to_owned()))
            .to_vec()
    }

    pub(crate) fn matches(&self, name: &str) -> bool {
        match self.0.strip_suffix('*') {
            Some(beginning) => name.starts_with(beginning),
            None => name == self.0,
        }
    }
}
