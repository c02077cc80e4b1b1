//! The options of `rpcache top`.

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
up, down, page up, page down: scroll the workers; p pause.

The figures come from the broker (queue lengths), from Redis (INFO), and from the
workers, which announce themselves in Redis every two seconds. A server that is down
is shown as such and tried again; figures that this login may not read are shown as
\"not permitted\". The Redis user needs +info, and +mget on rpcache:worker:*. Rates of
Redis are those of the last interval, rates of a worker those between its last two
announcements. Latencies come from buckets, and are right within a factor of 2.5.

No worker sees the hits of clients. So the hottest keys are those that workers are
asked for most often, counted by Space-Saving with a half-life of 5 s; the rates are
lower bounds, and a flood of new keys has no hottest one. The share of hits is that of
all lookups in this Redis, by all its users. The slowest keys are those of the last
half minute to minute, the failed ones those of the last ten minutes.

While requests wait and nothing is answered, the line \"stopped\" says why, as far as
the figures show it.

Without a terminal, with --once and with --json, top prints one snapshot, taken within
one interval. With --json it is one object; unknown values are null:
  queue, namespace, interval_ms
  broker     state, error; requests and dead_letters: state, ready, consumers
  redis      state, error; version, memory, memory_limit, clients, hit_share (0
             to 1), per_second: commands, hits, misses, evicted, expired
  fleet      state, error; workers, other_workers (of other queues), slots,
             under_way, held, per_second: answered, computed, cache, shared,
             failed, poison; request_ms and compute_ms: p50, p99
  standstill why nothing is answered though requests wait, else null
  workers    each: id, host, pid, version, uptime_s, silent_s, and as fleet
  computing  key, ms, worker; the longest first
  hottest    key, per_second (at least), at_most
  slowest    key, ms, ago_s, worker
  failed     key (null: not a valid argument), code, times, ago_s,
             worker
A state is ok, missing (a queue), not-permitted, or down, with an error.

Exit codes: 0; 2 cannot be parsed; 3 both servers are down; 130 interrupted.")]
pub(crate) struct Top {
    #[command(flatten)]
    target: Target,

    /// Time between two polls of the servers: 500ms, 2s, 1m; a bare number is seconds
    #[arg(long, value_name = "DURATION", default_value = "2s", value_parser = interval)]
    pub(crate) interval: Duration,

    /// Print one snapshot as text, on a terminal, too
    #[arg(long)]
    once: bool,

    /// Print one snapshot as a JSON object
    #[arg(long)]
    pub(crate) json: bool,

    #[command(flatten)]
    broker: Broker,

    #[command(flatten)]
    redis: Redis,
}

impl Top {
    /// Whether to show the live screen; otherwise one snapshot is printed.
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

    /// Opens Redis and the watch of the queue.
    pub(crate) fn open(self) -> (Cache, QueueWatch) {
        let queue = self.queue_name();
        let amqp_url = self.broker.amqp_url;
        let cache = Cache::open(self.redis.options());
        (cache, QueueWatch::new(amqp_url, queue, "top"))
    }
}
