//! The options of `rpcache worker`.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::time::Duration;

use clap::{Args as Group, ValueEnum};
use rpcache::fibonacci::{self, Fibonacci};
use rpcache::program::{Program, ProgramError, ProgramOptions};
use rpcache::{Declare, ReplyPattern, WorkerOptions};

use super::{Broker, Caching, Target};
use crate::values::{address, duration, positive_size, variable};

#[derive(Debug, Group)]
#[command(after_help = "\
Any program serves a procedure: a process for each answer, and never a shell.

  rpcache worker --procedure sha -- sha256sum
  rpcache worker --procedure thumb --argument json -- ./thumb.py
  rpcache worker --procedure resize -- convert -- {} -resize 64 png:-

The program reads the argument and a newline from stdin. With {} in the command, the
argument is put there instead, where the list of processes shows it. What the program
writes to stdout is the answer, less one final newline. Exit code 0: answered; 64 or 65:
bad-argument; anything else: failed, with the last line of stderr as message. It gets
PATH, HOME, LANG, LC_*, TZ, TMPDIR and what --env names, and no address or password.
Answers are not checked: who can write to Redis or serve the queue can forge them.

Ctrl-C or SIGTERM stops the worker: it takes no more requests, answers those that it
holds, and ends within 10 s. A second signal ends it at once. The broker gives
requests that were not answered to other workers.

The worker tries servers that are down again, without end. /readyz is 503 while it
takes no requests, and says why; without Redis it is 200 and says \"degraded\".

The log goes to stderr; -v adds a line for each request. RUST_LOG sets the levels:
RUST_LOG=warn, RUST_LOG=rpcache::worker=debug.

Exit codes:
  0 stopped, all requests answered  2 the command line is invalid, or its program not there
  1 stopped, requests were left;    3 refused at the start: login, vhost, metrics address
    with --try: no answer           130 ended by a second signal")]
pub(crate) struct Worker {
    #[command(flatten)]
    pub(crate) broker: Broker,

    #[command(flatten)]
    pub(crate) caching: Caching,

    #[command(flatten)]
    pub(crate) target: Target,

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

    /// Time limit for one answer of COMMAND. Then its processes get SIGTERM, and SIGKILL 2 s later. The time
    /// that is left of a request is a limit, too
    #[arg(long, value_name = "DURATION", value_parser = duration, requires = "command", help_heading = PROGRAM)]
    #[arg(default_value = "60s")]
    exec_timeout: Duration,

    /// Give COMMAND this variable of rpcache's own environment
    #[arg(long = "env", value_name = "NAME", value_parser = variable, requires = "command", help_heading = PROGRAM)]
    environment: Vec<String>,

    /// Print the answer of COMMAND for this argument, and end. Needs no server
    #[arg(
        long = "try",
        value_name = "ARGUMENT",
        requires = "command",
        allow_hyphen_values = true,
        help_heading = PROGRAM
    )]
    pub(crate) try_argument: Option<String>,

    /// The program that computes, and its words; {} stands for the argument [default: Fibonacci numbers]
    #[arg(last = true, value_name = "COMMAND", help_heading = PROGRAM)]
    command: Vec<OsString>,
}

const PROGRAM: &str = "Programs in any language";

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
    /// The program that computes; `None` for the built-in procedure.
    pub(crate) fn program(&self) -> Result<Option<Program>, ProgramError> {
        if self.command.is_empty() {
            return Ok(None);
        }
        let mut options = ProgramOptions::default();
        options.timeout = self.exec_timeout;
        options.environment.clone_from(&self.environment);
        Program::new(&self.command, options).map(Some)
    }

    pub(crate) fn fibonacci(&self) -> Fibonacci {
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
