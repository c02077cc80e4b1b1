//! `rpcache health`, as typed.

use std::net::SocketAddr;

use clap::Args as Group;

use crate::values::address;

#[derive(Debug, Group)]
#[command(after_help = "\
For health checks where there is no curl. It asks for /readyz, and needs neither
RabbitMQ nor Redis itself: a worker is healthy that takes requests. One that has
just started is not yet, and one that stops is no more.

Exit codes:
  0 it takes requests              3 nobody listens there
  1 it takes none, and why         124 no answer within 2 s")]
pub(crate) struct Health {
    /// Where the worker serves /readyz, as it was told
    #[arg(
        long,
        env = "RPCACHE_METRICS_ADDR",
        value_name = "ADDR",
        default_value = "127.0.0.1:9464",
        value_parser = address
    )]
    pub(crate) metrics_addr: SocketAddr,
}
