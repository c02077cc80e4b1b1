//! What is looked at, in which order, and what makes no sense without what.

use std::fmt;

/// One thing that is looked at. [`Check::ALL`] is the order: that in which a call meets them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Check {
    /// Whether RabbitMQ's address can be read.
    AmqpUrl,
    /// Whether its host names have addresses.
    AmqpName,
    /// Whether anything listens there.
    AmqpPort,
    /// Whether others can read what is sent there.
    AmqpEncryption,
    /// Whether what listens is RabbitMQ, and which.
    AmqpProtocol,
    /// Whether user and password are let in.
    AmqpLogin,
    /// Whether the vhost is there, for this user.
    AmqpVhost,
    /// Whether this user may publish requests.
    AmqpRights,
    /// Whether the request queue is there, and how it is declared.
    Queue,
    /// Whether anybody serves it, and how much waits in it.
    Consumers,
    /// Whether somebody answers for what the broker gives up.
    DeadLetters,
    /// Whether Redis' address can be read.
    RedisUrl,
    /// Whether its host name has addresses.
    RedisName,
    /// Whether anything listens there.
    RedisPort,
    /// Whether others can read what is sent there.
    RedisEncryption,
    /// Whether what listens is Redis.
    RedisProtocol,
    /// Whether user and password are let in.
    RedisLogin,
    /// Whether it is recent enough.
    RedisVersion,
    /// Whether this user may do what clients and workers do, on a server that can do it.
    RedisRights,
    /// Whether its memory is bounded, and what it does at the bound.
    RedisMemory,
    /// Whether a worker answers, and rightly.
    Call,
    /// Whether what a worker stores is found here.
    Hit,
}

impl Check {
    /// All of them, in order.
    pub const ALL: [Self; 22] = [
        Self::AmqpUrl,
        Self::AmqpName,
        Self::AmqpPort,
        Self::AmqpEncryption,
        Self::AmqpProtocol,
        Self::AmqpLogin,
        Self::AmqpVhost,
        Self::AmqpRights,
        Self::Queue,
        Self::Consumers,
        Self::DeadLetters,
        Self::RedisUrl,
        Self::RedisName,
        Self::RedisPort,
        Self::RedisEncryption,
        Self::RedisProtocol,
        Self::RedisLogin,
        Self::RedisVersion,
        Self::RedisRights,
        Self::RedisMemory,
        Self::Call,
        Self::Hit,
    ];

    /// A short stable name, for people and programs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AmqpUrl => "amqp-url",
            Self::AmqpName => "amqp-name",
            Self::AmqpPort => "amqp-port",
            Self::AmqpEncryption => "amqp-encryption",
            Self::AmqpProtocol => "amqp-protocol",
            Self::AmqpLogin => "amqp-login",
            Self::AmqpVhost => "amqp-vhost",
            Self::AmqpRights => "amqp-rights",
            Self::Queue => "queue",
            Self::Consumers => "consumers",
            Self::DeadLetters => "dead-letters",
            Self::RedisUrl => "redis-url",
            Self::RedisName => "redis-name",
            Self::RedisPort => "redis-port",
            Self::RedisEncryption => "redis-encryption",
            Self::RedisProtocol => "redis-protocol",
            Self::RedisLogin => "redis-login",
            Self::RedisVersion => "redis-version",
            Self::RedisRights => "redis-rights",
            Self::RedisMemory => "redis-memory",
            Self::Call => "call",
            Self::Hit => "hit",
        }
    }

    /// What must not have failed, so that this makes sense.
    pub(super) fn needs(self) -> &'static [Self] {
        match self {
            Self::AmqpUrl | Self::RedisUrl => &[],
            Self::AmqpName => &[Self::AmqpUrl],
            Self::AmqpPort => &[Self::AmqpName],
            Self::AmqpEncryption => &[Self::AmqpPort],
            Self::AmqpProtocol => &[Self::AmqpPort, Self::AmqpEncryption],
            Self::AmqpLogin => &[Self::AmqpProtocol],
            Self::AmqpVhost => &[Self::AmqpLogin],
            Self::AmqpRights | Self::Queue | Self::DeadLetters => &[Self::AmqpVhost],
            Self::Consumers => &[Self::Queue],
            Self::RedisName => &[Self::RedisUrl],
            Self::RedisPort => &[Self::RedisName],
            Self::RedisEncryption => &[Self::RedisPort],
            Self::RedisProtocol => &[Self::RedisPort, Self::RedisEncryption],
            Self::RedisLogin => &[Self::RedisProtocol],
            Self::RedisVersion | Self::RedisRights | Self::RedisMemory => &[Self::RedisLogin],
            // Calls go on without Redis.
            Self::Call => &[Self::AmqpRights, Self::Consumers],
            Self::Hit => &[Self::Call, Self::RedisLogin, Self::RedisRights],
        }
    }
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_check_needs_comes_before_it() {
        for (at, check) in Check::ALL.iter().enumerate() {
            for needed in check.needs() {
                assert!(Check::ALL[..at].contains(needed), "{check} before {needed}");
            }
        }
    }
}
