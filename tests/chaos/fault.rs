//! The faults by name: what each is, what it strikes, how often and how long.

use std::fmt;
use std::str::FromStr;

/// What a fault strikes. No server and no worker is under two faults at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope {
    Worker,
    Broker,
    Redis,
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
}

/// Why a fault that was to strike did not.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Miss {
    /// What it waits for did not happen, or there was nothing to strike.
    NoChance,
    /// The driver could not do it, and why.
    Problem(String),
}

impl From<String> for Miss {
    fn from(problem: String) -> Self {
        Self::Problem(problem)
    }
}

/// What is known of a fault before it strikes.
pub(crate) struct About {
    pub(crate) fault: Fault,
    pub(crate) name: &'static str,
    pub(crate) scope: Scope,
    /// How often it is drawn, relative to the others of its scope.
    pub(crate) weight: u64,
    /// How long it lasts, in milliseconds: most draws are near the first.
    pub(crate) lasts: (u64, u64),
    /// What its repair takes beside, in milliseconds, as far as the schedule reckons with it.
    pub(crate) repair: u64,
    pub(crate) what: &'static str,
}

/// Every fault there is, in the order of [`Fault`].
#[rustfmt::skip]
pub(crate) const FAULTS: [About; 39] = {
    use Fault as F;
    use Scope::{Broker, Redis, Worker};
    const fn about(fault: Fault, name: &'static str, scope: Scope, weight: u64, lasts: (u64, u64), repair: u64, what: &'static str) -> About {
        About { fault, name, scope, weight, lasts, repair, what }
    }
    [
        about(F::WorkerKill, "worker-kill", Worker, 12, (0, 400), 0, "SIGKILL, then another one in its place"),
        about(F::WorkerStop, "worker-stop", Worker, 2, (50, 20_000), 0, "SIGSTOP, SIGCONT"),
        about(F::WorkerTerm, "worker-term", Worker, 2, (0, 200), 300, "SIGTERM, then another one in its place"),
        about(F::KillBeforeCompute, "kill-before-compute", Worker, 2, (0, 400), 0, "SIGKILL when a request was delivered and is not looked up yet"),
        about(F::KillInCompute, "kill-in-compute", Worker, 2, (0, 400), 0, "SIGKILL when a request was looked up in vain"),
        about(F::KillAfterFill, "kill-after-fill", Worker, 2, (0, 400), 0, "SIGKILL when an answer is stored and not replied"),
        about(F::KillAfterReply, "kill-after-reply", Worker, 2, (0, 400), 0, "SIGKILL when a reply is published and not confirmed"),
        about(F::KillBeforeAck, "kill-before-ack", Worker, 2, (0, 400), 0, "SIGKILL when a reply is confirmed and its request not acked"),
        about(F::LogPipeStalled, "log-pipe-stalled", Worker, 1, (5000, 9000), 800, "a worker with -v whose stderr is a full pipe that is not read"),
        about(F::BrokerKill, "broker-kill", Broker, 1, (0, 1000), 8000, "SIGKILL, restart on the same data"),
        about(F::BrokerClose, "broker-close", Broker, 2, (0, 0), 500, "the broker closes every connection"),
        about(F::BrokerAlarm, "broker-alarm", Broker, 1, (500, 4000), 1000, "a memory alarm blocks publishers"),
        about(F::CallbackDelete, "callback-delete", Broker, 2, (0, 0), 500, "the clients' callback queues are deleted"),
        about(F::QueueDelete, "queue-delete", Broker, 1, (0, 0), 500, "the request queue is deleted"),
        about(F::AmqpStall, "amqp-stall", Broker, 2, (100, 20_000), 0, "links to the broker carry nothing, without a FIN"),
        about(F::AmqpCut, "amqp-cut", Broker, 2, (0, 0), 0, "links to the broker are reset"),
        about(F::AmqpDelay, "amqp-delay", Broker, 1, (500, 4000), 0, "links to the broker take 50 ms more each way"),
        about(F::AmqpRefuse, "amqp-refuse", Broker, 1, (200, 3000), 0, "links to the broker are reset, and new ones as well"),
        about(F::AmqpNodeDown, "amqp-node-down", Broker, 2, (500, 5000), 0, "one of the broker's two addresses is reset, and refuses"),
        about(F::FirstAddressDead, "first-address-dead", Broker, 2, (1000, 4000), 300, "the first of the broker's addresses swallows packets while connections are reset"),
        about(F::ReplyRefused, "reply-refused", Broker, 2, (500, 3000), 2000, "max_message_size is lower than some replies"),
        about(F::HostilePublisher, "hostile-publisher", Broker, 2, (2000, 6000), 500, "a peer sends properties, headers, bodies and reply-to names that no library would"),
        about(F::RedisKill, "redis-kill", Redis, 2, (0, 1500), 100, "SIGKILL, restart with nothing in it"),
        about(F::RedisFreeze, "redis-freeze", Redis, 2, (50, 5000), 0, "SIGSTOP, SIGCONT"),
        about(F::RedisPause, "redis-pause", Redis, 1, (50, 2000), 0, "CLIENT PAUSE"),
        about(F::RedisFull, "redis-full", Redis, 1, (200, 2000), 0, "maxmemory reached, noeviction"),
        about(F::RedisReadonly, "redis-readonly", Redis, 1, (200, 2000), 0, "a replica of a host that is dead"),
        about(F::RedisPassword, "redis-password", Redis, 1, (200, 2000), 0, "requires a password that nobody has"),
        about(F::RedisWrongtype, "redis-wrongtype", Redis, 2, (0, 0), 0, "lists under hot keys"),
        about(F::RedisFlush, "redis-flush", Redis, 2, (0, 0), 0, "FLUSHALL"),
        about(F::RedisGarbage, "redis-garbage", Redis, 6, (0, 0), 0, "garbage, truncated, swapped or well-formed wrong answers under hot keys"),
        about(F::RedisStall, "redis-stall", Redis, 2, (50, 5000), 0, "links to Redis carry nothing, without a FIN"),
        about(F::RedisCut, "redis-cut", Redis, 2, (0, 0), 0, "links to Redis are reset"),
        about(F::RedisDelay, "redis-delay", Redis, 1, (200, 3000), 0, "links to Redis take 50 ms more each way"),
        about(F::RedisRefuse, "redis-refuse", Redis, 1, (100, 2000), 0, "links to Redis are reset, and new ones as well"),
        about(F::RedisLoading, "redis-loading", Redis, 1, (200, 3000), 500, "SIGKILL, restart that takes its time to load what was saved"),
        about(F::RedisEvicting, "redis-evicting", Redis, 1, (200, 3000), 0, "maxmemory below what is used: answers are evicted"),
        about(F::RedisReadonlyForGood, "redis-readonly-for-good", Redis, 2, (0, 1000), 700, "its name leads to another one; the old one stays up as a read-only replica"),
        about(F::RedisIdleClose, "redis-idle-close", Redis, 2, (3500, 5000), 500, "Redis closes idle connections while a client pauses"),
    ]
};

impl Fault {
    pub(crate) fn about(self) -> &'static About {
        &FAULTS[self as usize]
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.about().name)
    }
}

/// The faults of one run, as `--faults` takes them.
#[derive(Debug, Clone)]
pub(crate) struct Selection(pub(crate) Vec<Fault>);

impl FromStr for Selection {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let of = |scope| {
            FAULTS
                .iter()
                .filter(move |about| about.scope == scope)
                .collect()
        };
        let named = |name: &str| -> Result<Vec<&About>, String> {
            Ok(match name {
                "all" => FAULTS.iter().collect(),
                "none" => Vec::new(),
                "workers" => of(Scope::Worker),
                "broker" => of(Scope::Broker),
                "redis" => of(Scope::Redis),
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
        // In the order of the table: the order of the list must not change the schedule.
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
