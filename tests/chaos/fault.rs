//! The list of faults: the name, target, frequency, duration and description of each.

use std::fmt;
use std::str::FromStr;

use clap::ValueEnum;

/// The target of a fault. No server and no worker is under two faults at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope {
    Worker,
    /// The one broker, and the one Redis.
    Broker,
    Redis,
    /// The nodes of a RabbitMQ cluster, and the servers of a Redis Cluster or behind Sentinels.
    BrokerNode,
    RedisNode,
}

/// The servers of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Topology {
    /// One broker and one Redis.
    #[value(skip)]
    Single,
    /// Three RabbitMQ nodes, three Redis primaries with a replica each.
    Cluster,
    /// Three RabbitMQ nodes, a Redis primary with two replicas, three Sentinels.
    Sentinel,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Fault {
    WorkerKill,
    WorkerStop,
    WorkerTerm,
    KillBeforeCompute,
    KillInCompute,
    KillAfterFill,
    KillAfterReply,
    KillBeforeAck,
    LogPipeStalled,
    BrokerKill,
    BrokerClose,
    BrokerAlarm,
    CallbackDelete,
    QueueDelete,
    AmqpStall,
    AmqpCut,
    AmqpDelay,
    AmqpRefuse,
    AmqpNodeDown,
    FirstAddressDead,
    ReplyRefused,
    HostilePublisher,
    RedisKill,
    RedisFreeze,
    RedisPause,
    RedisFull,
    RedisReadonly,
    RedisPassword,
    RedisWrongtype,
    RedisFlush,
    RedisGarbage,
    RedisStall,
    RedisCut,
    RedisDelay,
    RedisRefuse,
    RedisLoading,
    RedisEvicting,
    RedisReadonlyForGood,
    RedisIdleClose,
    NodeKill,
    NodeFreeze,
    NodeCut,
    NodeRestarts,
    PrimaryKill,
    PrimaryFreeze,
    PrimaryCut,
    PrimarySwitch,
    SlotsMove,
    ReplicaKill,
    RedisRestarts,
    SentinelFreeze,
}

/// Why a planned fault was not injected.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Skipped {
    /// The moment that it waits for did not come, or its target did not exist.
    NoOpportunity,
    /// The driver failed to inject it, and why.
    Failed(String),
}

impl From<String> for Skipped {
    fn from(reason: String) -> Self {
        Self::Failed(reason)
    }
}

/// The properties of a fault that do not depend on the run.
pub(crate) struct About {
    pub(crate) fault: Fault,
    pub(crate) name: &'static str,
    pub(crate) scope: Scope,
    /// How often it is drawn, relative to the other faults of its scope.
    pub(crate) weight: u64,
    /// Shortest and longest duration, in milliseconds: most draws are near the shortest.
    pub(crate) lasts: (u64, u64),
    /// How long its repair takes, in milliseconds: the plan leaves that time free.
    pub(crate) repair: u64,
    pub(crate) what: &'static str,
}

/// All faults, in the order of [`Fault`].
#[rustfmt::skip]
pub(crate) const FAULTS: [About; 51] = {
    use Fault as F;
    use Scope::{Broker, BrokerNode, Redis, RedisNode, Worker};
    const fn about(fault: Fault, name: &'static str, scope: Scope, weight: u64, lasts: (u64, u64), repair: u64, what: &'static str) -> About {
        About { fault, name, scope, weight, lasts, repair, what }
    }
    [
        about(F::WorkerKill, "worker-kill", Worker, 12, (0, 400), 0, "SIGKILL, then another worker in its place"),
        about(F::WorkerStop, "worker-stop", Worker, 2, (50, 20_000), 0, "SIGSTOP, SIGCONT"),
        about(F::WorkerTerm, "worker-term", Worker, 2, (0, 200), 300, "SIGTERM, then another worker in its place"),
        about(F::KillBeforeCompute, "kill-before-compute", Worker, 2, (0, 400), 0, "SIGKILL after a request is delivered, before its lookup"),
        about(F::KillInCompute, "kill-in-compute", Worker, 2, (0, 400), 0, "SIGKILL after the lookup for a request missed"),
        about(F::KillAfterFill, "kill-after-fill", Worker, 2, (0, 400), 0, "SIGKILL after an answer is stored, before its reply"),
        about(F::KillAfterReply, "kill-after-reply", Worker, 2, (0, 400), 0, "SIGKILL after a reply is published, before its confirm"),
        about(F::KillBeforeAck, "kill-before-ack", Worker, 2, (0, 400), 0, "SIGKILL after a reply is confirmed, before the ack"),
        about(F::LogPipeStalled, "log-pipe-stalled", Worker, 1, (5000, 9000), 800, "a worker with -v writes to a full pipe that is not read"),
        about(F::BrokerKill, "broker-kill", Broker, 1, (0, 1000), 8000, "SIGKILL, restart with its data"),
        about(F::BrokerClose, "broker-close", Broker, 2, (0, 0), 500, "the broker closes every connection"),
        about(F::BrokerAlarm, "broker-alarm", Broker, 1, (500, 4000), 1000, "a memory alarm blocks publishers"),
        about(F::CallbackDelete, "callback-delete", Broker, 2, (0, 0), 500, "the clients' callback queues are deleted"),
        about(F::QueueDelete, "queue-delete", Broker, 1, (0, 0), 500, "the request queue is deleted"),
        about(F::AmqpStall, "amqp-stall", Broker, 2, (100, 20_000), 0, "links to the broker pass no data and stay open"),
        about(F::AmqpCut, "amqp-cut", Broker, 2, (0, 0), 0, "links to the broker are reset"),
        about(F::AmqpDelay, "amqp-delay", Broker, 1, (500, 4000), 0, "links to the broker are 50 ms slower in each direction"),
        about(F::AmqpRefuse, "amqp-refuse", Broker, 1, (200, 3000), 0, "links to the broker are reset, and new connections, too"),
        about(F::AmqpNodeDown, "amqp-node-down", Broker, 2, (500, 5000), 0, "one of the broker's two addresses resets all connections"),
        about(F::FirstAddressDead, "first-address-dead", Broker, 2, (1000, 4000), 300, "connections are reset, and the broker's first address drops packets"),
        about(F::ReplyRefused, "reply-refused", Broker, 2, (500, 3000), 2000, "max_message_size is lower than some replies"),
        about(F::HostilePublisher, "hostile-publisher", Broker, 2, (2000, 6000), 500, "a peer sends invalid or extreme properties, headers, bodies and reply-to names"),
        about(F::RedisKill, "redis-kill", Redis, 2, (0, 1500), 100, "SIGKILL, restart without data"),
        about(F::RedisFreeze, "redis-freeze", Redis, 2, (50, 5000), 0, "SIGSTOP, SIGCONT"),
        about(F::RedisPause, "redis-pause", Redis, 1, (50, 2000), 0, "CLIENT PAUSE"),
        about(F::RedisFull, "redis-full", Redis, 1, (200, 2000), 0, "maxmemory reached, noeviction"),
        about(F::RedisReadonly, "redis-readonly", Redis, 1, (200, 2000), 0, "becomes a replica of a dead host"),
        about(F::RedisPassword, "redis-password", Redis, 1, (200, 2000), 0, "requires a password that no client has"),
        about(F::RedisWrongtype, "redis-wrongtype", Redis, 2, (0, 0), 0, "lists under hot keys"),
        about(F::RedisFlush, "redis-flush", Redis, 2, (0, 0), 0, "FLUSHALL"),
        about(F::RedisGarbage, "redis-garbage", Redis, 6, (0, 0), 0, "garbage, truncated, swapped or well-formed wrong answers under hot keys"),
        about(F::RedisStall, "redis-stall", Redis, 2, (50, 5000), 0, "links to Redis pass no data and stay open"),
        about(F::RedisCut, "redis-cut", Redis, 2, (0, 0), 0, "links to Redis are reset"),
        about(F::RedisDelay, "redis-delay", Redis, 1, (200, 3000), 0, "links to Redis are 50 ms slower in each direction"),
        about(F::RedisRefuse, "redis-refuse", Redis, 1, (100, 2000), 0, "links to Redis are reset, and new connections, too"),
        about(F::RedisLoading, "redis-loading", Redis, 1, (200, 3000), 500, "SIGKILL, restart that loads the saved data slowly"),
        about(F::RedisEvicting, "redis-evicting", Redis, 1, (200, 3000), 0, "maxmemory below the memory in use: answers are evicted"),
        about(F::RedisReadonlyForGood, "redis-readonly-for-good", Redis, 2, (0, 1000), 700, "another server takes over its address; it stays up as a read-only replica"),
        about(F::RedisIdleClose, "redis-idle-close", Redis, 2, (3500, 5000), 500, "Redis closes idle connections while a client pauses"),
        about(F::NodeKill, "node-kill", BrokerNode, 3, (0, 10_000), 12_000, "SIGKILL of a RabbitMQ node, restart with its data"),
        about(F::NodeFreeze, "node-freeze", BrokerNode, 3, (500, 20_000), 5000, "SIGSTOP of a RabbitMQ node, SIGCONT"),
        about(F::NodeCut, "node-cut", BrokerNode, 3, (500, 20_000), 5000, "what a RabbitMQ node sends to the others is dropped"),
        about(F::NodeRestarts, "node-restarts", BrokerNode, 1, (0, 0), 40_000, "SIGTERM and restart of each RabbitMQ node in turn"),
        about(F::PrimaryKill, "primary-kill", RedisNode, 3, (0, 6000), 3000, "SIGKILL of a Redis primary, restart without data"),
        about(F::PrimaryFreeze, "primary-freeze", RedisNode, 3, (50, 8000), 3000, "SIGSTOP of a Redis primary, SIGCONT"),
        about(F::PrimaryCut, "primary-cut", RedisNode, 2, (50, 8000), 3000, "all that a Redis primary sends is dropped"),
        about(F::PrimarySwitch, "primary-switch", RedisNode, 3, (0, 0), 3000, "CLUSTER FAILOVER, or SENTINEL FAILOVER"),
        about(F::SlotsMove, "slots-move", RedisNode, 3, (0, 0), 2000, "200 slots move to another primary of the cluster"),
        about(F::ReplicaKill, "replica-kill", RedisNode, 1, (0, 3000), 2000, "SIGKILL of a Redis replica, restart"),
        about(F::RedisRestarts, "redis-restarts", RedisNode, 1, (0, 0), 25_000, "each replica restarts, is promoted, and then the primaries of before restart"),
        about(F::SentinelFreeze, "sentinel-freeze", RedisNode, 1, (500, 8000), 0, "SIGSTOP of a Sentinel, SIGCONT"),
    ]
};

impl Fault {
    pub(crate) fn about(self) -> &'static About {
        &FAULTS[self as usize]
    }

    /// Whether it is injected into these servers, or into workers beside them.
    pub(crate) fn is_of(self, topology: Topology) -> bool {
        let is_single = topology == Topology::Single;
        match (self, self.about().scope) {
            (Self::SlotsMove, _) => topology == Topology::Cluster,
            (Self::SentinelFreeze, _) => topology == Topology::Sentinel,
            // Several servers of Redis announce addresses of their own, so no link is tapped for the other points.
            (
                Self::WorkerKill
                | Self::WorkerStop
                | Self::WorkerTerm
                | Self::KillAfterReply
                | Self::KillBeforeAck,
                _,
            ) => true,
            (_, Scope::Worker | Scope::Broker | Scope::Redis) => is_single,
            (_, Scope::BrokerNode | Scope::RedisNode) => !is_single,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.about().name)
    }
}

/// The faults of one run, as `--faults` names them.
#[derive(Debug, Clone)]
pub(crate) struct Selection(pub(crate) Vec<Fault>);

impl Selection {
    /// Those that are injected into these servers.
    pub(crate) fn of(&self, topology: Topology) -> Vec<Fault> {
        let faults = self.0.iter().copied();
        faults.filter(|fault| fault.is_of(topology)).collect()
    }
}

impl FromStr for Selection {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let of = |scopes: &'static [Scope]| {
            let faults = FAULTS.iter();
            faults
                .filter(move |about| scopes.contains(&about.scope))
                .collect()
        };
        let named = |name: &str| -> Result<Vec<&About>, String> {
            Ok(match name {
                "all" => FAULTS.iter().collect(),
                "none" => Vec::new(),
                "workers" => of(&[Scope::Worker]),
                "broker" => of(&[Scope::Broker, Scope::BrokerNode]),
                "redis" => of(&[Scope::Redis, Scope::RedisNode]),
                name => {
                    let found = FAULTS.iter().find(|about| about.name == name);
                    vec![found.ok_or_else(|| format!("there is no fault {name:?}"))?]
                }
            })
        };
        let lists = text.split(',').map(named).collect::<Result<Vec<_>, _>>()?;
        let mut faults: Vec<Fault> = lists
            .into_iter()
            .flatten()
            .map(|about| about.fault)
            .collect();
        // In the order of the table: the order of the list must not change the plan.
        faults.sort();
        faults.dedup();
        Ok(Self(faults))
    }
}

impl fmt::Display for Selection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.0.iter().map(|fault| fault.about().name).collect();
        f.write_str(match names.len() {
            0 => "none",
            all if all == FAULTS.len() => "all",
            _ => return f.write_str(&names.join(",")),
        })
    }
}
