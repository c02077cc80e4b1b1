//! `rpcache worker`: serves until a signal; a second signal ends the process at once.

use rpcache::fibonacci::Fibonacci;
use rpcache::{Stopped, Worker};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::args;
use crate::endpoint::{Endpoint, Pages};
use crate::output::Failure;

pub(crate) async fn run(args: args::Worker) -> Result<(), Failure> {
    let metrics_addr = args.metrics_addr;
    let worker = Worker::new(args.procedure(), args.options());
    // Before connecting: the endpoint reports servers that cannot be reached.
    let endpoint = match metrics_addr {
        Some(address) => Some(Endpoint::bind(address, Pages::of(&worker)).await?),
        None => None,
    };
    let end = CancellationToken::new();
    let _ends = end.clone().drop_guard();
    let serving = endpoint.map(|endpoint| tokio::spawn(endpoint.serve(end.clone())));
    let stopped = until_stopped(worker).await?;
    end.cancel();
    if let Some(serving) = serving {
        // It ends within its own time limit, and a panic in it does not change the exit code.
        let _ = serving.await;
    }
    match stopped {
        Stopped::Clean => Ok(()),
        Stopped::Abandoned => Err(Failure::new(1, "stopped before all requests were answered")),
    }
}

async fn until_stopped(worker: Worker<Fibonacci>) -> Result<Stopped, Failure> {
    let no_signals = |error| Failure::new(1, format!("cannot listen for signals: {error}"));
    let mut terminate = signal(SignalKind::terminate()).map_err(no_signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(no_signals)?;
    let stop = CancellationToken::new();
    let mut running = std::pin::pin!(worker.run(stop.clone().cancelled_owned()));
    loop {
        tokio::select! {
            ended = &mut running => return Ok(ended?),
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        if stop.is_cancelled() {
            return Err(Failure::interrupted());
        }
        stop.cancel();
    }
}
