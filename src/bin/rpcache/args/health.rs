//! The options of `rpcache health`.

use std::net::SocketAddr;

use clap::Args as Group;

use crate::values::address;

#[derive(Debug, Group)]
#[command(after_help = "\
Fetches /readyz from a worker: for health checks without curl. A worker is healthy
while it takes requests: not yet when it has just started, and not while it stops.

Exit codes:
  0 the worker takes requests      3 nothing listens at the address
  1 it takes none, and why         124 no answer within 2 s")]
pub(crate) struct Health {
    /// Address at which the worker serves /readyz, as in its own option
    #[arg(
        long,
        env = "RPCACHE_METRICS_ADDR",
        value_name = "ADDR",
        default_value = "127.0.0.1:9464",
        value_parser = address
    )]
    pub(crate) metrics_addr: SocketAddr,
}
