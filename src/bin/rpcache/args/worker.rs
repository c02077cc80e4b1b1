//! `rpcache worker`, as typed.

use std::net::SocketAddr;

use clap::{Args as Group, ValueEnum};
use rpcache::fibonacci::{self, Fibonacci};
use rpcache::{Declare, ReplyPattern, WorkerOptions};

use super::{Broker, Caching};
use crate::values::{address, size};

#[derive(Debug, Group)]
#[command(after_help = "\
Stop it with Ctrl-C or SIGTERM: it takes no more, finishes and answers what it
holds, and ends within 10 s. A second signal ends it at once. What is left then,
the broker gives to other workers.

Servers that are down are tried again for ever. /readyz is 503 while no requests
are taken, and says why; without Redis it is 200 and says \"degraded\".

The log goes to stderr: a line for whatever happens, with -v one for each request.
RUST_LOG chooses otherwise: RUST_LOG=warn, RUST_LOG=rpcache::worker=debug.

Exit codes:
  0 stopped, everything answered   3 refused at the start: login, vhost, metrics address
  1 stopped, something was left    130 ended by a second signal")]
pub(crate) struct Worker {
    #[command(flatten)]
    pub(crate) broker: Broker,

    #[command(flatten)]
    pub(crate) caching: Caching,

    /// Computations at once [default: as many as there are cores]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) concurrency: Option<u16>,

    /// Requests held at once, those being computed included [default: 64 more than computations]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) prefetch: Option<u16>,

    /// The largest answer that is sent, such as 64kB or 8MB; a larger one is refused as too-large, and so is
    /// one that is too large for the broker [default: 8388608]
    #[arg(long, value_name = "SIZE", value_parser = size)]
    max_reply_size: Option<usize>,

    /// How F(n) is computed
    #[arg(long, value_enum, default_value_t = Algorithm::Doubling)]
    algorithm: Algorithm,

    /// The largest n that is computed
    #[arg(long, value_name = "N", default_value_t = Fibonacci::DEFAULT_MAX_N)]
    max_n: u64,

    /// How the queue is created where it is missing; one that exists is used as it is
    #[arg(long, value_enum, default_value_t = DeclareAs::Quorum)]
    declare: DeclareAs,

    /// Allow replies to this queue, or with a * at the end to all that begin so; callback queues as
    /// RabbitMQ names them are always allowed, and queues that are exclusive to another connection, where
    /// this login may look at them
    #[arg(long, value_name = "PATTERN")]
    reply_to: Vec<ReplyPattern>,

    /// Serve /metrics (Prometheus), /healthz and /readyz here, such as 127.0.0.1:9464; 0.0.0.0 is for
    /// everybody, and nobody is asked for a password [default: not at all]
    #[arg(long, env = "RPCACHE_METRICS_ADDR", value_name = "ADDR", value_parser = address)]
    pub(crate) metrics_addr: Option<SocketAddr>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Algorithm {
    /// Fast doubling: the fastest
    Doubling,
    /// n additions
    Iterative,
    /// Fast doubling that remembers what it passed, up to 64 MiB
    Memoized,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum DeclareAs {
    /// A durable quorum queue, as RabbitMQ's tutorials do now
    Quorum,
    /// A classic queue that is not durable, as older tutorials do
    Classic,
    /// Not at all: wait until somebody has created it
    Never,
}

impl Worker {
    pub(crate) fn procedure(&self) -> Fibonacci {
        let algorithm = match self.algorithm {
            Algorithm::Doubling => fibonacci::Algorithm::Doubling,
            Algorithm::Iterative => fibonacci::Algorithm::Iterative,
            Algorithm::Memoized => fibonacci::Algorithm::Memoized,
        };
        Fibonacci::new(algorithm).max_n(self.max_n)
    }

    pub(crate) fn options(self) -> WorkerOptions {
        let mut options = WorkerOptions::new(self.broker.amqp_url, self.caching.options());
        options.queue = self.broker.queue;
        options.concurrency = self.concurrency.unwrap_or(options.concurrency);
        options.prefetch = self.prefetch;
        options.max_reply_size = self.max_reply_size.unwrap_or(options.max_reply_size);
        options.declare = match self.declare {
            DeclareAs::Quorum => Declare::Quorum,
            DeclareAs::Classic => Declare::Classic,
            DeclareAs::Never => Declare::Never,
        };
        options.reply_to.extend(self.reply_to);
        options
    }
}
