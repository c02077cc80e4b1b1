//! This program as a process of its own runs: `calls role NAME`, the servers' addresses in the
//! environment.

use rpcache::{CacheOptions, Worker, WorkerOptions};

use crate::echo::Echo;
use crate::servers::Servers;
use crate::support::process::{Process, Program};
use crate::{batch, raw};

/// Requests that a worker of either kind holds at once.
const PREFETCH: u16 = 66;

/// Plays the role that the arguments name; `false` when they name none.
pub(crate) async fn played() -> bool {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    let url = |name| std::env::var(name).expect("the servers' addresses");
    match arguments[..] {
        ["role", "echo-worker"] => {
            let cache = CacheOptions::new(url("REDIS_URL").parse().expect("a URL"));
            let mut options = WorkerOptions::new(url("AMQP_URL").parse().expect("a URL"), cache);
            options.prefetch = Some(PREFETCH);
            let stopped = Worker::new(Echo, options).run(std::future::pending()).await;
            panic!("the worker has ended: {stopped:?}");
        }
        ["role", "raw-worker"] => raw::serve(&url("AMQP_URL"), PREFETCH).await,
        ["role", "mget", last] => {
            batch::print_all(&url("REDIS_URL"), last.parse().expect("a number")).await;
        }
        _ => return false,
    }
    true
}

/// Starts this program in a role.
pub(crate) fn start(servers: &Servers, arguments: &[&str]) -> Process {
    let program = std::env::current_exe().expect("this program");
    let arguments = [&["role"], arguments].concat();
    let program = Program::new(&program.to_string_lossy(), &arguments);
    servers.knowing(program).start()
}
