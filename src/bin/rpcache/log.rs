//! The log on stderr: what happens, for a person or for a program that collects it.
//!
//! Log lines go through the queue of [`stderr`]. What ends a command is no log line but its last word, see
//! [`Failure`]; only where the log is JSON that is one, too, so that every line can be parsed.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::io::{self, IsTerminal as _};
use std::panic::PanicHookInfo;
use std::process::ExitCode;

use tracing::error;
use tracing::field::display;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::{FilterExt as _, Targets};
use tracing_subscriber::fmt;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Layer, Registry};

use crate::args::{Args, Command, LogFormat};
use crate::output::Failure;
use crate::stderr;
use crate::timeline::SPANS;

/// What lapin may say when `RUST_LOG` names a level for all, and not lapin: it logs whole messages of
/// peers below. Otherwise it says nothing: what is an error to it is part of every polite close. A panic and
/// the number of lines that were dropped are always logged.
const ALWAYS: &str = "lapin=error,rpcache::log=error,rpcache::stderr=warn";

type Boxed = Box<dyn Layer<Registry> + Send + Sync>;

/// How the log is written, decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Text,
    Json,
}

/// The log, until it is dropped: what is queued then is written, within a second.
#[derive(Debug)]
pub(crate) struct Log {
    format: Format,
    is_worker: bool,
}

impl Log {
    /// Sends the log to stderr from now on, and spans to `others`.
    pub(crate) fn start(args: &Args, mut others: Vec<Boxed>) -> Self {
        let is_worker = matches!(args.command, Command::Worker(_));
        let format = Format::chosen(args.log_format, is_worker, io::stderr().is_terminal());
        let (filter, wrong) = match std::env::var("RUST_LOG") {
            Ok(directives) if !directives.is_empty() => asked_for(&directives),
            _ => (None, None),
        };
        let lines = format.lines(is_worker);
        others.push(match filter {
            // Lines would tear the screen apart.
            _ if has_the_screen(&args.command) => lines.with_filter(LevelFilter::OFF).boxed(),
            Some(filter) => lines.with_filter(filter.and(never())).boxed(),
            None => lines
                .with_filter(usual(&args.command, args.verbose))
                .boxed(),
        });
        tracing_subscriber::registry().with(others).init();
        if format == Format::Json || is_worker {
            std::panic::set_hook(Box::new(move |panic| log_panic(panic, format)));
        }
        if let Some(wrong) = wrong {
            error!("RUST_LOG is not understood and left aside: {wrong}");
        }
        Self { format, is_worker }
    }

    /// Says why the command ends, and becomes its exit code.
    pub(crate) fn last_word(self, failure: Failure) -> ExitCode {
        match failure.message() {
            Some(message) if self.format == Format::Json => error!("{message}"),
            // Where nobody reads the log, nobody waits for the worker's end either.
            Some(message) if self.is_worker => stderr::push_last(&format!("rpcache: {message}\n")),
            _ => return failure.report(),
        }
        failure.told().report()
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        stderr::flush();
    }
}

impl Format {
    /// `auto` is JSON for what runs long and is read by a program.
    fn chosen(format: LogFormat, is_worker: bool, on_terminal: bool) -> Self {
        let is_json = match format {
            LogFormat::Json => true,
            LogFormat::Text => false,
            LogFormat::Auto => is_worker && !on_terminal,
        };
        if is_json { Self::Json } else { Self::Text }
    }

    fn lines(self, is_worker: bool) -> Boxed {
        let lines = fmt::layer().with_writer(stderr::Lines);
        if self == Self::Json {
            let flat = lines.json().flatten_event(true);
            return flat.with_current_span(false).with_span_list(false).boxed();
        }
        let on_terminal = io::stderr().is_terminal();
        let text = lines.with_ansi(on_terminal).with_target(false);
        if is_worker {
            text.boxed()
        } else {
            // A line or two at most: when they were written is known.
            text.without_time().boxed()
        }
    }
}

/// Instead of the standard hook, which writes to stderr and waits for its reader.
fn log_panic(panic: &PanicHookInfo<'_>, format: Format) {
    // Captured where RUST_BACKTRACE says so.
    let backtrace = Backtrace::capture();
    let backtrace = (backtrace.status() == BacktraceStatus::Captured).then(|| display(&backtrace));
    match format {
        Format::Json => error!(%panic, backtrace, "a panic"),
        // One line of plain characters, whatever the message is made of.
        Format::Text => error!(panic = ?panic.to_string(), backtrace, "a panic"),
    }
}

/// The terminal that stderr is shows something else.
fn has_the_screen(command: &Command) -> bool {
    matches!(command, Command::Top(top) if top.shows_screen()) && io::stderr().is_terminal()
}

/// What `RUST_LOG` asks for, or what is wrong with it.
fn asked_for(directives: &str) -> (Option<Targets>, Option<String>) {
    match format!("{ALWAYS},{directives}").parse::<Targets>() {
        Ok(filter) => (Some(filter), None),
        Err(wrong) => (None, Some(wrong.to_string())),
    }
}

/// Whatever is asked for: at trace, lapin logs its login with the password.
fn never() -> Targets {
    Targets::new()
        .with_default(LevelFilter::TRACE)
        .with_target("lapin", LevelFilter::DEBUG)
}

/// A worker tells what happens. A call tells why it does without the cache; all else ends up in its
/// own words.
fn usual(command: &Command, verbose: u8) -> Targets {
    let (all, cache) = match (verbose, command) {
        (0, Command::Worker(_)) => (LevelFilter::INFO, LevelFilter::INFO),
        (0, Command::Call(_) | Command::Warm(_) | Command::Bench(_)) => {
            (LevelFilter::ERROR, LevelFilter::WARN)
        }
        // What they find out is said in their own words.
        (0, _) => (LevelFilter::ERROR, LevelFilter::ERROR),
        (1, _) => (LevelFilter::DEBUG, LevelFilter::DEBUG),
        _ => (LevelFilter::TRACE, LevelFilter::TRACE),
    };
    // That others can read what is sent is told by whatever sends it; the doctor has words of its own.
    let transport = match command {
        Command::Doctor(_) => all,
        _ => all.max(LevelFilter::WARN),
    };
    Targets::new()
        .with_target("rpcache", all)
        // Steps of calls are for whoever follows calls, and would stand in front of every line.
        .with_target(SPANS, LevelFilter::OFF)
        .with_target("rpcache::transport", transport)
        .with_target("rpcache::stderr", all.max(LevelFilter::WARN))
        .with_target("rpcache::cache", cache)
        // Whoever wants traces is told if there will be none.
        .with_target("rpcache::telemetry", all.max(LevelFilter::WARN))
        // Commands that remove answers warn if clients keep their copies.
        .with_target("rpcache::cache::invalidation", cache.max(LevelFilter::WARN))
        .with_target(
            "rpcache::cache::redis::listener",
            cache.max(LevelFilter::WARN),
        )
        // Whoever looks at the workers is told what stands in their place.
        .with_target("rpcache::cache::workers", cache.max(LevelFilter::WARN))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_worker_that_nobody_watches_logs_json_by_itself() {
        for (format, is_worker, on_terminal, expected) in [
            (LogFormat::Auto, true, true, Format::Text),
            (LogFormat::Auto, true, false, Format::Json),
            (LogFormat::Auto, false, true, Format::Text),
            (LogFormat::Auto, false, false, Format::Text),
            (LogFormat::Json, false, true, Format::Json),
            (LogFormat::Text, true, false, Format::Text),
        ] {
            assert_eq!(
                Format::chosen(format, is_worker, on_terminal),
                expected,
                "{format:?} {is_worker} {on_terminal}"
            );
        }
    }

    #[test]
    fn a_level_for_all_is_none_for_lapin() {
        let (filter, wrong) = asked_for("debug");
        assert_eq!(wrong, None);
        let filter = filter.unwrap().to_string();
        assert!(
            filter.contains("lapin=error") && filter.contains("debug"),
            "{filter}"
        );
        let (filter, _) = asked_for("debug,lapin=trace");
        assert!(filter.unwrap().to_string().contains("lapin=trace"));
    }

    #[test]
    fn what_is_no_directive_is_told() {
        let (filter, wrong) = asked_for("rpcache=loud");
        assert!(filter.is_none());
        assert!(wrong.is_some());
    }
}
