//! `rpcache top`, as typed.

use std::time::Duration;

use clap::Args as Group;
use rpcache::inspect::QueueWatch;
use rpcache::{Cache, QueueName};

use super::{Broker, Redis, Target};
use crate::output::has_a_screen;
use crate::values::interval;

#[derive(Debug, Group)]
#[command(after_help = "\
Keys: q quit; s sort workers by requests, longest computation, failures, host;
up, down, page up, page down: further workers; p pause.

Nothing has to be set up for it. The broker tells how many messages wait, Redis
tells of itself, and workers tell of themselves, every two seconds, in Redis. A
server that is down is named in its place and looked for again; what this login
may not see is \"not permitted\" there. In Redis that takes +info, and +mget on
rpcache:worker:*. Redis' rates are those of the last interval, a worker's those
between its last two announcements. Latencies come from buckets: right within a
factor of 2.5.

What a client finds in the cache does not come to any worker. So the hottest
keys are those that workers are asked for most often, counted by Space-Saving
with a half-life of 5 s; their rates are at least so high, and in a flood of ever
new keys there is none. How large the share of hits is, Redis alone knows: of all
lookups, whoever made them. The slowest keys took longest to compute in the last
half minute to minute; failed are those of the last ten minutes.

Without a terminal, with --once and with --json it is one snapshot, of two looks
an interval apart. With --json one object; what is not known is null:
  queue, namespace, interval_ms
  broker     state, error; requests and dead_letters: state, ready, consumers
  redis      state, error; version, memory, memory_limit, clients, hit_share (0
             to 1), per_second: commands, hits, misses, evicted, expired
  fleet      state, error; workers, other_workers (of other queues), slots,
             under_way, held, per_second: answered, computed, cache, shared,
             failed, poison; request_ms and compute_ms: p50, p99
  workers    each: id, host, pid, version, uptime_s, silent_s, and as fleet
  computing  key, ms, worker; the longest first
  hottest    key, per_second (at least), at_most
  slowest    key, ms, ago_s, worker
  failed     key (null: what was asked for is no argument), code, times, ago_s,
             worker
A state is ok, missing (a queue), not-permitted, or down, with an error.

Exit codes: 0; 2 cannot be parsed; 3 neither server is there; 130 interrupted.")]
pub(crate) struct Top {
    #[command(flatten)]
    target: Target,

    /// How often to look: 500ms, 2s, 1m; a bare number is seconds
    #[arg(long, value_name = "DURATION", default_value = "2s", value_parser = interval)]
    pub(crate) interval: Duration,

    /// One snapshot as text, in a terminal, too
    #[arg(long)]
    once: bool,

    /// One snapshot as a JSON object
    #[arg(long)]
    pub(crate) json: bool,

    #[command(flatten)]
    broker: Broker,

    #[command(flatten)]
    redis: Redis,
}

impl Top {
    /// Else it is one snapshot.
    pub(crate) fn shows_screen(&self) -> bool {
        !self.once && !self.json && has_a_screen()
    }

    fn queue_name(&self) -> QueueName {
        let queue = self.broker.queue.clone();
        queue.unwrap_or_else(|| QueueName::of(&self.target.procedure))
    }

    pub(crate) fn queue(&self) -> String {
        self.queue_name().to_string()
    }

    pub(crate) fn namespace(&self) -> Option<String> {
        self.redis.namespace.as_ref().map(ToString::to_string)
    }

    /// Where to look.
    pub(crate) fn open(self) -> (Cache, QueueWatch) {
        let queue = self.queue_name();
        let amqp_url = self.broker.amqp_url;
        let cache = Cache::open(self.redis.options());
        (cache, QueueWatch::new(amqp_url, queue, "top"))
    }
}
