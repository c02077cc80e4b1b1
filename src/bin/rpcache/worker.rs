//! `rpcache worker`: serve until a signal says to stop; a second one ends it at once.

use rpcache::{Stopped, Worker};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::args;
use crate::output::Failure;

pub(crate) async fn run(args: args::Worker) -> Result<(), Failure> {
    let no_signals = |error| Failure::new(1, format!("cannot listen for signals: {error}"));
    let mut terminate = signal(SignalKind::terminate()).map_err(no_signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(no_signals)?;

    let stop = CancellationToken::new();
    let worker = Worker::new(args.procedure(), args.options());
    let mut running = std::pin::pin!(worker.run(stop.clone().cancelled_owned()));
    loop {
        tokio::select! {
            ended = &mut running => return match ended? {
                Stopped::Clean => Ok(()),
                Stopped::Abandoned => Err(Failure::new(1, "stopped before everything was answered")),
            },
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        if stop.is_cancelled() {
            return Err(Failure::interrupted());
        }
        stop.cancel();
    }
}
