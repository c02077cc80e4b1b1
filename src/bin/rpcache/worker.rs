//! `rpcache worker`: serves until a signal; a second signal ends the process at once.

use std::io::{self, IsTerminal as _};

use rpcache::program::Program;
use rpcache::{Answer as _, ComputeError, Procedure, Stopped, Worker};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::endpoint::{Endpoint, Pages};
use crate::output::{Failure, misuse};
use crate::procedure::{Called, CalledAnswer};
use crate::{answer, args, guard};

pub(crate) async fn run(args: args::Worker) -> Result<(), Failure> {
    let called = args.target.called()?;
    let program = args.program().map_err(|error| misuse(&error.to_string()))?;
    let Some(program) = program else {
        return match called {
            Called::Fibonacci(_) => serve(args.fibonacci(), None, args).await,
            Called::Text(text) => Err(misuse(&no_program(text.name().as_str()))),
        };
    };
    if let Some(argument) = args.try_argument.clone() {
        guard::watch(|| std::process::exit(130))?;
        let max_size = args.options().max_reply_size;
        return print_answer(&called, &program, &argument, max_size);
    }
    match called {
        Called::Fibonacci(fibonacci) => serve(fibonacci, Some(program), args).await,
        Called::Text(text) => serve(text, Some(program), args).await,
    }
}

fn no_program(procedure: &str) -> String {
    format!(
        "what computes {procedure}? Write its program behind --: rpcache worker --procedure {procedure} -- COMMAND; \
         without one, the worker serves fib only"
    )
}

/// Computes one answer without any server.
fn print_answer(
    called: &Called,
    program: &Program,
    typed: &str,
    max_size: usize,
) -> Result<(), Failure> {
    let argument = called.parse_argument(typed);
    let argument = argument.map_err(|message| misuse(&message))?;
    let computed = program.compute(&argument, max_size);
    let bytes = computed.map_err(|error| {
        let code = match &error {
            ComputeError::BadArgument(_) => "bad-argument",
            ComputeError::TooLarge(_) => "too-large",
            _ => "failed",
        };
        let message = answer::escaped(&error.to_string()).into_owned();
        Failure::new(1, format!("{code}: {message}"))
    })?;
    let Some(answer) = called.parse_answer(&bytes) else {
        let shown = CalledAnswer::from_bytes(&bytes);
        let shown = shown.map(|answer| answer::in_a_line(&answer).into_owned());
        let shown = shown.unwrap_or_default();
        return Err(Failure::new(
            1,
            format!("\"{shown}\" is no answer of {}", called.name()),
        ));
    };
    let mut out = io::stdout().lock();
    answer::write(&mut out, &answer, io::stdout().is_terminal())?;
    Ok(())
}

async fn serve<P: Procedure>(
    procedure: P,
    program: Option<Program>,
    args: args::Worker,
) -> Result<(), Failure> {
    let metrics_addr = args.metrics_addr;
    let worker = Worker::new(procedure, args.options());
    let (worker, requests) = match program {
        Some(program) => {
            let (stop, requests) = mpsc::channel(2);
            // More than two say nothing new.
            let on_stop = move || {
                let _ = stop.try_send(());
            };
            guard::watch(on_stop)?;
            info!("computing by {}", program.executable().display());
            (worker.with_program(program), Some(requests))
        }
        None => (worker, None),
    };
    // Before connecting: the endpoint reports servers that cannot be reached.
    let endpoint = match metrics_addr {
        Some(address) => Some(Endpoint::bind(address, Pages::of(&worker)).await?),
        None => None,
    };
    let end = CancellationToken::new();
    let _ends = end.clone().drop_guard();
    let serving = endpoint.map(|endpoint| tokio::spawn(endpoint.serve(end.clone())));
    let stopped = until_stopped(worker, requests).await?;
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

/// Runs the worker until a signal. With `requests`, which the [`guard`] sends for its own signals, only they count as first
/// and second: a terminal and systemd send one signal to both processes.
async fn until_stopped<P: Procedure>(
    worker: Worker<P>,
    mut requests: Option<mpsc::Receiver<()>>,
) -> Result<Stopped, Failure> {
    let no_signals = |error| Failure::new(1, format!("cannot listen for signals: {error}"));
    let mut terminate = signal(SignalKind::terminate()).map_err(no_signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(no_signals)?;
    let is_guarded = requests.is_some();
    let mut requested = async || match &mut requests {
        Some(requests) => requests.recv().await,
        None => std::future::pending().await,
    };
    let stop = CancellationToken::new();
    let mut running = std::pin::pin!(worker.run(stop.clone().cancelled_owned()));
    let mut asked = false;
    loop {
        let counts = tokio::select! {
            ended = &mut running => return Ok(ended?),
            _ = terminate.recv() => !is_guarded,
            _ = interrupt.recv() => !is_guarded,
            Some(()) = requested() => true,
        };
        stop.cancel();
        if counts && asked {
            return Err(Failure::interrupted());
        }
        asked |= counts;
    }
}
