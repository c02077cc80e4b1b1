//! Sets up the log on stderr: its format, its levels, and the last line of a command that fails.
//!
//! Log lines go through the queue of [`stderr`]. A [`Failure`] is printed as plain text, and as a log line if the log
//! is JSON, so that every line can be parsed.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::ffi::OsString;
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

/// Added before `RUST_LOG`. It limits lapin to errors, unless `RUST_LOG` names lapin: at lower levels lapin logs
/// whole messages of peers. Panics and the count of dropped lines are always logged. Without `RUST_LOG`, lapin logs
/// nothing, because it logs an error at every clean close.
const ALWAYS: &str = "lapin=error,rpcache::log=error,rpcache::stderr=warn";

/// The crates in this program that log.
const CRATES: [&str; 11] = [
    "rpcache",
    "amq_protocol",
    "h2",
    "hyper",
    "hyper_util",
    "lapin",
    "mio",
    "opentelemetry",
    "rustls",
    "tokio",
    "ureq",
];

type Boxed = Box<dyn Layer<Registry> + Send + Sync>;

/// The chosen format of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Text,
    Json,
}

/// The log. Dropping it writes the queued lines, within a second.
#[derive(Debug)]
pub(crate) struct Log {
    format: Format,
    is_worker: bool,
}

impl Log {
    /// Installs the subscriber: log lines go to stderr, spans to `others`.
    pub(crate) fn start(args: &Args, mut others: Vec<Boxed>) -> Self {
        // One that prints a single answer is a command like any other.
        let is_worker =
            matches!(&args.command, Command::Worker(worker) if worker.try_argument.is_none());
        let format = Format::chosen(args.log_format, is_worker, io::stderr().is_terminal());
        let (filter, problem) = filter_of(std::env::var_os("RUST_LOG"));
        let lines = format.lines(is_worker);
        others.push(match filter {
            // Log lines would spoil the screen.
            _ if draws_on_stderr(&args.command) => lines.with_filter(LevelFilter::OFF).boxed(),
            Some(filter) => lines.with_filter(filter.and(upper_limit())).boxed(),
            None => lines
                .with_filter(default_filter(&args.command, args.verbose))
                .boxed(),
        });
        tracing_subscriber::registry().with(others).init();
        if format == Format::Json || is_worker {
            std::panic::set_hook(Box::new(move |panic| log_panic(panic, format)));
        }
        if let Some(problem) = problem {
            error!("{problem}");
        }
        Self { format, is_worker }
    }

    /// Prints or logs why the command fails, and returns its exit code.
    pub(crate) fn report(self, failure: Failure) -> ExitCode {
        match failure.message() {
            Some(message) if self.format == Format::Json => error!("{message}"),
            // Queued, not written directly: a stalled reader of the log must not keep a worker from ending.
            Some(message) if self.is_worker => stderr::push_last(&format!("rpcache: {message}\n")),
            _ => return failure.report(),
        }
        failure.without_message().report()
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        stderr::flush();
    }
}

impl Format {
    /// `auto` is JSON for a worker whose stderr is not a terminal.
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
            // Short-lived commands write a line or two: a time stamp adds nothing.
            text.without_time().boxed()
        }
    }
}

/// Logs a panic. It replaces the standard hook, which writes to stderr directly and may block.
fn log_panic(panic: &PanicHookInfo<'_>, format: Format) {
    // Empty unless RUST_BACKTRACE is set.
    let backtrace = Backtrace::capture();
    let backtrace = (backtrace.status() == BacktraceStatus::Captured).then(|| display(&backtrace));
    match format {
        Format::Json => error!(%panic, backtrace, "a panic"),
        // As Debug, so that line breaks and control characters in the message are escaped.
        Format::Text => error!(panic = ?panic.to_string(), backtrace, "a panic"),
    }
}

/// Whether `rpcache top` draws on the terminal that stderr writes to.
fn draws_on_stderr(command: &Command) -> bool {
    matches!(command, Command::Top(top) if top.shows_screen()) && io::stderr().is_terminal()
}

/// The filter that `RUST_LOG` sets, and what is wrong with it.
fn filter_of(variable: Option<OsString>) -> (Option<Targets>, Option<String>) {
    let Some(directives) = variable.filter(|value| !value.is_empty()) else {
        return (None, None);
    };
    let Ok(directives) = directives.into_string() else {
        return (
            None,
            Some("RUST_LOG is not UTF-8 and is ignored".to_owned()),
        );
    };
    match format!("{ALWAYS},{directives}").parse::<Targets>() {
        Ok(filter) => (Some(filter), unknown_target(&directives)),
        Err(error) => {
            let problem =
                format!("RUST_LOG {directives:?} cannot be parsed and is ignored: {error}");
            (None, Some(problem))
        }
    }
}

/// The problem of a directive that selects nothing, such as a misspelt level, which is a valid name of a target.
fn unknown_target(directives: &str) -> Option<String> {
    let is_level = |directive: &str| directive.parse::<LevelFilter>().is_ok();
    let is_known = |directive: &str| {
        let target = directive.split(['=', '[']).next().unwrap_or_default();
        // Targets are matched by their beginning.
        CRATES.iter().any(|name| {
            let rest = target.strip_prefix(name);
            name.starts_with(target)
                || rest.is_some_and(|rest| rest.starts_with("::") || rest.starts_with('_'))
        })
    };
    let unknown = directives
        .split(',')
        .find(|directive| !is_level(directive) && !is_known(directive))?;
    Some(format!(
        "RUST_LOG: {unknown:?} is neither a level nor a target of this program; \
         valid are, for example, debug and rpcache::worker=debug"
    ))
}

/// The levels that `RUST_LOG` cannot exceed: at trace, lapin logs its login with the password.
fn upper_limit() -> Targets {
    Targets::new()
        .with_default(LevelFilter::TRACE)
        .with_target("lapin", LevelFilter::DEBUG)
}

/// The levels without `RUST_LOG`. A worker logs at INFO. Calls log warnings of the cache only; other failures end up
/// in their own messages.
fn default_filter(command: &Command, verbose: u8) -> Targets {
    let (all, cache) = match (verbose, command) {
        (0, Command::Worker(_)) => (LevelFilter::INFO, LevelFilter::INFO),
        (0, Command::Call(_) | Command::Warm(_) | Command::Bench(_)) => {
            (LevelFilter::ERROR, LevelFilter::WARN)
        }
        // These commands print what they find.
        (0, _) => (LevelFilter::ERROR, LevelFilter::ERROR),
        (1, _) => (LevelFilter::DEBUG, LevelFilter::DEBUG),
        _ => (LevelFilter::TRACE, LevelFilter::TRACE),
    };
    // Every command warns of plain text to another machine, but for the doctor: it has a check for that.
    let transport = match command {
        Command::Doctor(_) => all,
        _ => all.max(LevelFilter::WARN),
    };
    Targets::new()
        .with_target("rpcache", all)
        // Spans are for `--trace` and the collector; here they would precede every line.
        .with_target(SPANS, LevelFilter::OFF)
        .with_target("rpcache::transport", transport)
        .with_target("rpcache::stderr", all.max(LevelFilter::WARN))
        .with_target("rpcache::cache", cache)
        // A warning that no traces are sent.
        .with_target("rpcache::telemetry", all.max(LevelFilter::WARN))
        // A warning that clients keep copies of removed answers.
        .with_target("rpcache::cache::invalidation", cache.max(LevelFilter::WARN))
        .with_target(
            "rpcache::cache::redis::listener",
            cache.max(LevelFilter::WARN),
        )
        // A warning that a key of a worker holds something else.
        .with_target("rpcache::cache::workers", cache.max(LevelFilter::WARN))
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStringExt as _;

    use super::*;

    #[test]
    fn auto_is_json_for_a_worker_without_a_terminal() {
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
    fn a_level_for_all_targets_excludes_lapin() {
        let (filter, problem) = filter_of(Some("debug".into()));
        assert_eq!(problem, None);
        let filter = filter.unwrap().to_string();
        assert!(
            filter.contains("lapin=error") && filter.contains("debug"),
            "{filter}"
        );
        let (filter, _) = filter_of(Some("debug,lapin=trace".into()));
        assert!(filter.unwrap().to_string().contains("lapin=trace"));
    }

    #[test]
    fn a_directive_that_selects_nothing_is_reported() {
        let problem = |directives: &str| filter_of(Some(directives.into())).1;
        for valid in [
            "",
            "warn",
            "3",
            "info,rpcache::worker=debug",
            "rpcache",
            "lapin=off",
            "opentelemetry_sdk=warn",
        ] {
            assert_eq!(problem(valid), None, "{valid}");
        }
        for (directives, expected) in [
            ("rpcache=loud", "\"rpcache=loud\" cannot be parsed"),
            ("inof", "\"inof\" is neither a level nor a target"),
            (
                "info,rpcache:worker=debug",
                "\"rpcache:worker=debug\" is neither",
            ),
        ] {
            let problem = problem(directives).expect("it is reported");
            assert!(problem.contains(expected), "{problem}");
        }
        let (filter, problem) = filter_of(Some(OsString::from_vec(vec![0xff])));
        assert!(filter.is_none() && problem.is_some());
    }
}
