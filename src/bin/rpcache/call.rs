//! `rpcache call`: prints answers in the order of the arguments, up to the first failure or, with
//! `--keep-going`, to the end.

use std::io::{self, BufWriter, IsTerminal as _, Write};
use std::time::Duration;

use futures_util::{FutureExt as _, StreamExt as _};
use rpcache::{Answered, Client, Error};
use serde::Serialize;

use crate::answer::{self, AnswerJson};
use crate::args;
use crate::input::{self, Input, Inputs, Label};
use crate::interrupt;
use crate::output::Failure;
use crate::procedure::{Arguments, CalledAnswer};
use crate::progress::Progress;
use crate::stderr;
use crate::text;
use crate::timeline::{Row, Timeline};

/// Bytes that any pipe takes before they are read.
const MAX_UNREAD: usize = 4096;

/// Bytes of answers that are written together.
const BUFFER: usize = 64 * 1024;

type Ended = Result<Answered<CalledAnswer>, Error>;

pub(crate) async fn run(
    call: args::Call,
    inputs: Inputs,
    timeline: Option<Timeline>,
) -> Result<(), Failure> {
    let many = inputs.are_many();
    if call.trace && many {
        let message = "--trace shows where the time of one call goes: give it one argument";
        return Err(Failure::new(2, message));
    }
    let keep_going = call.keep_going;
    let options = call.call_options();
    let progress = Progress::new(inputs.count());
    let mut print = Print {
        form: match (call.json, many) {
            (true, _) => Form::Json,
            (false, true) => Form::Lines,
            (false, false) => Form::Answer,
        },
        out: BufWriter::with_capacity(BUFFER, io::stdout().lock()),
        progress,
        timeline,
    };
    let Inputs { called, inputs } = inputs;
    let form = called.form();
    let client = Client::new(called, call.client_options(!many));
    if many || io::stdout().is_terminal() {
        interrupt::watch_in_thread();
    }
    let print_all = async {
        if let [Input::Arguments(Arguments::One(argument))] = &inputs[..] {
            let ended = client.call_with(argument.clone(), options).await;
            let is_large =
                |found: &Answered<CalledAnswer>| found.answer.as_bytes().len() > MAX_UNREAD;
            if ended.as_ref().is_ok_and(is_large) {
                interrupt::watch_in_thread();
            }
            return print.one(&Label::Argument(argument.clone()), ended);
        }
        let arguments = input::parsed(form, inputs);
        let mut answers = std::pin::pin!(client.call_many(arguments, options));
        let mut first_failure = Ok(());
        loop {
            let next = if let Some(next) = answers.next().now_or_never() {
                next
            } else {
                print.flush()?;
                answers.next().await
            };
            let Some((label, ended)) = next else {
                break;
            };
            let printed = print.one(&label, ended);
            if printed.is_ok() {
                continue;
            }
            if !keep_going {
                print.flush()?;
                return printed;
            }
            let reported = printed.map_err(Failure::print);
            first_failure = first_failure.and(reported);
        }
        print.flush()?;
        first_failure
    };
    let ended = tokio::select! {
        ended = print_all => ended,
        // Without a handler, the signal ends the process by itself.
        Ok(()) = tokio::signal::ctrl_c() => Err(Failure::interrupted()),
    };
    drop(print);
    // Closing would wait for a server that does not answer.
    if !matches!(&ended, Err(failure) if failure.is_of_a_server()) {
        client.close().await;
    }
    ended
}

#[derive(Clone, Copy)]
enum Form {
    Answer,
    Lines,
    Json,
}

struct Print<W: Write> {
    form: Form,
    out: BufWriter<W>,
    progress: Progress,
    /// The steps of the call, with `--trace`.
    timeline: Option<Timeline>,
}

impl<W: Write> Print<W> {
    fn one(&mut self, label: &Label, ended: Ended) -> Result<(), Failure> {
        self.progress.count(&ended);
        let out = &mut self.out;
        let timeline = self.timeline.as_ref();
        match (self.form, ended) {
            (Form::Json, ended) => {
                let failure = print_json(out, label, ended, timeline)?;
                failure.map_or(Ok(()), |error| {
                    Err(Failure::of_input(label, error).without_message())
                })
            }
            (Form::Answer, Err(error)) => {
                timeline.inspect(|timeline| timeline.print());
                Err(Failure::from(error))
            }
            (Form::Lines, Err(error)) => {
                self.flush()?;
                Err(Failure::of_input(label, error))
            }
            (Form::Answer, Ok(answered)) => {
                answer::write(out, &answered.answer, io::stdout().is_terminal())?;
                self.flush()?;
                match &self.timeline {
                    Some(timeline) => timeline.print(),
                    None => print_source(&answered),
                }
                Ok(())
            }
            (Form::Lines, Ok(answered)) => {
                writeln!(out, "{label}\t{}", answer::in_a_line(&answered.answer))?;
                Ok(())
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        let out = &mut self.out;
        self.progress.suspend(|| out.flush())
    }
}

/// Prints on a terminal where the answer came from, and how long the call took.
fn print_source(answered: &Answered<CalledAnswer>) {
    if !io::stderr().is_terminal() {
        return;
    }
    let source = answered.source.as_str();
    let elapsed = text::elapsed(answered.elapsed);
    // A failure to print this does not fail the call.
    let _ = writeln!(stderr::direct(), "{source}, {elapsed}");
}

fn milliseconds(elapsed: Duration) -> f64 {
    // Rounded to microseconds: the measurement is not finer.
    (elapsed.as_secs_f64() * 1e6).round() / 1e3
}

#[derive(Serialize)]
#[serde(untagged)]
enum Line<'a> {
    Answer {
        argument: String,
        #[serde(flatten)]
        answer: AnswerJson<'a>,
        source: &'a str,
        elapsed_ms: f64,
        #[serde(skip_serializing_if = "Option::is_none")]
        trace: Option<Vec<Row>>,
    },
    Error {
        argument: String,
        error: Described<'a>,
        #[serde(skip_serializing_if = "Option::is_none")]
        trace: Option<Vec<Row>>,
    },
}

#[derive(Serialize)]
struct Described<'a> {
    code: &'a str,
    message: String,
}

fn print_json(
    out: &mut impl Write,
    label: &Label,
    ended: Ended,
    timeline: Option<&Timeline>,
) -> Result<Option<Error>, Failure> {
    let argument = label.to_argument();
    let trace = timeline.map(Timeline::rows);
    let line = match &ended {
        Ok(answered) => Line::Answer {
            argument,
            answer: AnswerJson::of(&answered.answer),
            source: answered.source.as_str(),
            elapsed_ms: milliseconds(answered.elapsed),
            trace,
        },
        Err(error) => Line::Error {
            argument,
            error: Described {
                code: error.code(),
                message: error.to_string(),
            },
            trace,
        },
    };
    serde_json::to_writer(&mut *out, &line).map_err(io::Error::from)?;
    writeln!(out)?;
    Ok(ended.err())
}
