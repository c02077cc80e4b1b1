//! `rpcache call`: ask, print in the order asked, stop at the first failure.

use std::io::{self, IsTerminal as _, Write as _};
use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use rpcache::fibonacci::{Decimal, Fibonacci, N};
use rpcache::{Answered, Client, Error};
use serde::Serialize;

use crate::args;
use crate::output::Failure;
use crate::values::Asked;

/// Calls under way at once when many are asked for.
const IN_FLIGHT: usize = 64;

pub(crate) async fn run(call: args::Call) -> Result<(), Failure> {
    let many = call.is_many();
    let asked = call.asked.clone();
    let options = call.call_options();
    let print = match (call.json, many) {
        (true, _) => Print::Json,
        (false, true) => Print::Lines,
        (false, false) => Print::Answer,
    };
    let client = Client::new(Fibonacci::default(), call.client_options(!many));
    let answers = stream::iter(asked.into_iter().flat_map(Asked::numbers))
        .map(|n| {
            let call = client.call_with(n, options);
            async move { (n, call.await) }
        })
        .buffered(IN_FLIGHT);
    let print_all = async {
        let mut answers = std::pin::pin!(answers);
        while let Some((n, ended)) = answers.next().await {
            print.one(n, ended)?;
        }
        Ok(())
    };
    let ended = tokio::select! {
        ended = print_all => ended,
        // Without a handler, the signal ends the process by itself.
        Ok(()) = tokio::signal::ctrl_c() => Err(Failure::interrupted()),
    };
    client.close().await;
    ended
}

#[derive(Clone, Copy)]
enum Print {
    Answer,
    Lines,
    Json,
}

impl Print {
    fn one(self, n: N, ended: Result<Answered<Decimal>, Error>) -> Result<(), Failure> {
        let mut stdout = io::stdout().lock();
        match (self, ended) {
            (Self::Json, ended) => {
                let failure = print_json(&mut stdout, n, ended)?;
                failure.map_or(Ok(()), |error| Err(Failure::from(error).told()))
            }
            (Self::Answer, Err(error)) => Err(Failure::from(error)),
            (Self::Lines, Err(error)) => Err(Failure::from(error).of(n)),
            (Self::Answer, Ok(answered)) => {
                writeln!(stdout, "{}", answered.answer)?;
                tell_source(None, &answered);
                Ok(())
            }
            (Self::Lines, Ok(answered)) => {
                writeln!(stdout, "{n}\t{}", answered.answer)?;
                tell_source(Some(n), &answered);
                Ok(())
            }
        }
    }
}

/// Where the answer came from, for a person who watches.
fn tell_source(n: Option<N>, answered: &Answered<Decimal>) {
    let mut stderr = io::stderr().lock();
    if !stderr.is_terminal() {
        return;
    }
    let argument = n.map_or(String::new(), |n| format!("{n}: "));
    let source = answered.source.as_str();
    // The answer is what counts.
    let _ = writeln!(
        stderr,
        "{argument}{source}, {:.1} ms",
        milliseconds(answered.elapsed)
    );
}

fn milliseconds(elapsed: Duration) -> f64 {
    // Microseconds are as fine as this can be measured.
    (elapsed.as_secs_f64() * 1e6).round() / 1e3
}

#[derive(Serialize)]
#[serde(untagged)]
enum Line<'a> {
    Answer {
        argument: String,
        answer: &'a str,
        source: &'a str,
        elapsed_ms: f64,
    },
    Error {
        argument: String,
        error: Described<'a>,
    },
}

#[derive(Serialize)]
struct Described<'a> {
    code: &'a str,
    message: String,
}

fn print_json(
    out: &mut impl io::Write,
    n: N,
    ended: Result<Answered<Decimal>, Error>,
) -> Result<Option<Error>, Failure> {
    let argument = n.to_string();
    let line = match &ended {
        Ok(answered) => Line::Answer {
            argument,
            answer: answered.answer.as_str(),
            source: answered.source.as_str(),
            elapsed_ms: milliseconds(answered.elapsed),
        },
        Err(error) => Line::Error {
            argument,
            error: Described {
                code: error.code(),
                message: error.to_string(),
            },
        },
    };
    serde_json::to_writer(&mut *out, &line).map_err(io::Error::from)?;
    writeln!(out)?;
    Ok(ended.err())
}
