//! The options of `rpcache worker`.

use std::net::SocketAddr;

use clap::{Args as Group, ValueEnum};
use rpcache::fibonacci::{self, Fibonacci};
use rpcache::{Declare, ReplyPattern, WorkerOptions};

use super::{Broker, Caching};
use crate::values::{address, positive_size};

#[derive(Debug, Group)]
#[command(after_help = "\
Ctrl-C or SIGTERM stops the worker: it takes no more requests, answers those that it
holds, and ends within 10 s. A second signal ends it at once. The broker gives
requests that were not answered to other workers.

The worker tries servers that are down again, without end. /readyz is 503 while it
takes no requests, and says why; without Redis it is 200 and says \"degraded\".

The log goes to stderr; -v adds a line for each request. RUST_LOG sets the levels:
RUST_LOG=warn, RUST_LOG=rpcache::worker=debug.

Exit codes:
  0 stopped, all requests answered  3 refused at the start: login, vhost, metrics address
  1 stopped, requests were left     130 ended by a second signal")]
pub(crate) struct Worker {
    #[command(flatten)]
    pub(crate) broker: Broker,

    #[command(flatten)]
    pub(crate) caching: Caching,

    /// Number of computations at once [default: the number of cores]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) concurrency: Option<u16>,

    /// Number of requests held at once, those being computed included [default: --concurrency + 64]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) prefetch: Option<u16>,

    /// Size of the largest answer that is sent: 64kB, 8MB; a bare number is bytes. A larger answer, and one
    /// that is too large for the broker, fails as too-large [default: 8388608]
    #[arg(long, value_name = "SIZE", value_parser = positive_size)]
    max_reply_size: Option<usize>,

    /// Algorithm for F(n)
    #[arg(long, value_enum, default_value_t = Algorithm::Doubling)]
    algorithm: Algorithm,

    /// Largest n that is computed; a larger one fails as too-large
    #[arg(long, value_name = "N", default_value_t = Fibonacci::DEFAULT_MAX_N)]
    max_n: u64,

    /// Kind of queue to create if it is missing; an existing queue is used as it is
    #[arg(long, value_enum, default_value_t = DeclareAs::Quorum)]
    declare: DeclareAs,

    /// Allow replies to the queue of this name, or with a * at the end to all that begin so. Callback
    /// queues that RabbitMQ named are always allowed, and so are queues that are exclusive to another
    /// connection, if this login may declare them passively
    #[arg(long, value_name = "PATTERN")]
    reply_to: Vec<ReplyPattern>,

    /// Serve /metrics (Prometheus), /healthz and /readyz at this address, such as 127.0.0.1:9464, without
    /// a password; 0.0.0.0 listens on all interfaces [default: no endpoint]
    #[arg(long, env = "RPCACHE_METRICS_ADDR", value_name = "ADDR", value_parser = address)]
    pub(crate) metrics_addr: Option<SocketAddr>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Algorithm {
    /// Fast doubling: the fastest
    Doubling,
    /// n additions
    Iterative,
    /// Fast doubling with a memo of earlier results, up to 64 MiB
    Memoized,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum DeclareAs {
    /// A durable quorum queue, as in today's RabbitMQ tutorials
    Quorum,
    /// A classic queue that is not durable, as in older tutorials
    Classic,
    /// Do not create it: wait until it exists
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
