//! The checks, their order, and which check depends on which.

use std::fmt;

/// One check of the doctor. They run in the order of [`Check::ALL`], in which a call depends on them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Check {
    /// Whether RabbitMQ's address is valid.
    AmqpUrl,
    /// Whether its host names have addresses.
    AmqpName,
    /// Whether anything listens there.
    AmqpPort,
    /// Whether the connection is encrypted, or local.
    AmqpEncryption,
    /// Whether the server is RabbitMQ, and its version.
    AmqpProtocol,
    /// Whether user and password are accepted.
    AmqpLogin,
    /// Whether the vhost exists and this user has access.
    AmqpVhost,
    /// Whether all nodes of the address answer, and see the request queue alike.
    AmqpNodes,
    /// Whether all nodes of the cluster run, and share the work and the copies of the queues. Left out if one
    /// address is given, and no management API.
    AmqpCluster,
    /// Whether this user may publish requests.
    AmqpRights,
    /// Whether the request queue exists, and how it is declared.
    Queue,
    /// Whether the request queue has consumers, and how many requests wait in it.
    Consumers,
    /// Whether workers answer requests that the broker dead-letters.
    DeadLetters,
    /// Whether Redis' address is valid.
    RedisUrl,
    /// Whether its host name has addresses.
    RedisName,
    /// Whether anything listens there.
    RedisPort,
    /// Whether the connection is encrypted, or local.
    RedisEncryption,
    /// Whether the server is Redis.
    RedisProtocol,
    /// Whether user and password are accepted.
    RedisLogin,
    /// Whether its version is supported.
    RedisVersion,
    /// Whether this user has the rights of clients and workers, and the server is a writable single shard.
    RedisRights,
    /// Whether its memory is limited, and its eviction policy.
    RedisMemory,
    /// Whether a worker answers a call correctly.
    Call,
    /// Whether an answer that a worker stores is found here.
    Hit,
}

impl Check {
    /// All of them, in order.
    pub const ALL: [Self; 24] = [
        Self::AmqpUrl,
        Self::AmqpName,
        Self::AmqpPort,
        Self::AmqpEncryption,
        Self::AmqpProtocol,
        Self::AmqpLogin,
        Self::AmqpVhost,
        Self::AmqpNodes,
        Self::AmqpCluster,
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
            Self::AmqpNodes => "amqp-nodes",
            Self::AmqpCluster => "amqp-cluster",
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

    /// The checks that must not have failed before this one runs.
    pub(super) fn needs(self) -> &'static [Self] {
        match self {
            Self::AmqpUrl | Self::RedisUrl => &[],
            // The management API may answer where the broker does not.
            Self::AmqpName | Self::AmqpCluster => &[Self::AmqpUrl],
            Self::AmqpPort => &[Self::AmqpName],
            Self::AmqpEncryption => &[Self::AmqpPort],
            Self::AmqpProtocol => &[Self::AmqpPort, Self::AmqpEncryption],
            Self::AmqpLogin => &[Self::AmqpProtocol],
            Self::AmqpVhost => &[Self::AmqpLogin],
            Self::AmqpNodes | Self::AmqpRights | Self::Queue | Self::DeadLetters => {
                &[Self::AmqpVhost]
            }
            Self::Consumers => &[Self::Queue],
            Self::RedisName => &[Self::RedisUrl],
            Self::RedisPort => &[Self::RedisName],
            Self::RedisEncryption => &[Self::RedisPort],
            Self::RedisProtocol => &[Self::RedisPort, Self::RedisEncryption],
            Self::RedisLogin => &[Self::RedisProtocol],
            Self::RedisVersion | Self::RedisRights | Self::RedisMemory => &[Self::RedisLogin],
            // Calls work without Redis.
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
    fn checks_run_after_those_they_need() {
        for (at, check) in Check::ALL.iter().enumerate() {
            for needed in check.needs() {
                assert!(Check::ALL[..at].contains(needed), "{check} before {needed}");
            }
        }
    }
}
