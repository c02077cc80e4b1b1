//! The processes of a run that are this program itself, as `calls role NAME`: raw clients and workers. The
//! addresses of the servers are in the environment.

use std::time::Duration;

use rpcache::{CacheOptions, Procedure, Worker, WorkerOptions};
use tokio::runtime::Builder;

use crate::echo::Echo;
use crate::prepared::{self, Prepared};
use crate::servers::Servers;
use crate::slow::Slow;
use crate::support::process::{Process, Program};
use crate::{batch, raw};

/// The prefetch of both kinds of workers.
const PREFETCH: u16 = 66;

/// Runs the role that the arguments name; returns false if they name none.
pub(crate) fn played() -> bool {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    let mut threads = match arguments[..] {
        // The threads of `rpcache call` with many arguments.
        ["role", "mget", _] => Builder::new_multi_thread(),
        // The one runtime thread of `rpcache worker`.
        _ => Builder::new_current_thread(),
    };
    let runtime = threads.enable_all().build().expect("a runtime");
    runtime.block_on(play(&arguments))
}

async fn play(arguments: &[&str]) -> bool {
    let number = |text: &str| text.parse::<u16>().expect("a number");
    match *arguments {
        ["role", "echo-worker"] => serve(Echo, |_| {}).await,
        ["role", "prepared-worker"] => serve(Prepared::default(), |_| {}).await,
        ["role", "slow-worker", queue, milliseconds, prefetch] => {
            let takes = Duration::from_millis(number(milliseconds).into());
            serve(Slow(takes), |options| {
                options.queue = Some(queue.parse().expect("a queue's name"));
                options.concurrency = 1;
                options.prefetch = Some(number(prefetch));
                // Stores on a busy machine, too.
                options.cache.budget = Duration::from_secs(1);
            })
            .await;
        }
        ["role", "raw-worker"] => raw::serve(&url("AMQP_URL"), PREFETCH, |request| request).await,
        ["role", "raw-prepared-worker"] => {
            raw::serve(&url("AMQP_URL"), PREFETCH, prepared::reply).await;
        }
        ["role", "mget", last] => {
            batch::print_all(&url("REDIS_URL"), last.parse().expect("a number")).await;
        }
        _ => return false,
    }
    true
}

/// Serves a procedure until the process is killed; `set` changes the options.
async fn serve<P: Procedure>(procedure: P, set: impl FnOnce(&mut WorkerOptions)) {
    let cache = CacheOptions::new(url("REDIS_URL").parse().expect("a URL"));
    let mut options = WorkerOptions::new(url("AMQP_URL").parse().expect("a URL"), cache);
    options.prefetch = Some(PREFETCH);
    set(&mut options);
    let worker = Worker::new(procedure, options);
    let stopped = worker.run(std::future::pending()).await;
    panic!("the worker has ended: {stopped:?}");
}

fn url(name: &str) -> String {
    std::env::var(name).expect("the servers' addresses")
}

/// Starts this program in a role.
pub(crate) fn start(servers: &Servers, arguments: &[&str]) -> Process {
    let program = std::env::current_exe().expect("this program");
    let arguments = [&["role"], arguments].concat();
    let program = Program::new(&program.to_string_lossy(), &arguments);
    servers.knowing(program).start()
}
