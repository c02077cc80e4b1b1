//! `rpcache doctor`: prints each check of the library's doctor with its remedy, in 80 columns, as soon as it is done.

mod remedy;

use std::io::{self, Write};

use rpcache::doctor::{Doctor, Finding, Severity};
use serde::Serialize;

use self::remedy::Remedies;
use crate::args;
use crate::output::{Failure, is_coloured};

/// The largest default argument for fib: workers in any language compute it correctly and within a millisecond.
const MAX_PROBE: u64 = 30;

/// Limit of the number of arguments.
const MAX_PROBES: usize = 1000;

const COLUMNS: usize = 80;

/// Column of the message, after the state and the name of the check.
const MESSAGE_AT: usize = 27;

/// Column of a remedy. It is small, so that long commands fit one line and can be copied.
const REMEDY_AT: usize = 9;

#[derive(Serialize)]
struct Line<'a> {
    check: &'a str,
    state: &'a str,
    message: String,
    remedy: Option<String>,
}

/// Number of checks by state.
#[derive(Default)]
struct Counts {
    ok: usize,
    warnings: usize,
    failures: usize,
    skipped: usize,
}

pub(crate) async fn run(args: args::Doctor) -> Result<(), Failure> {
    let mut remedies = Remedies::new(&args);
    let (called, arguments) = args.target.read(&args.arguments)?;
    let mut probes: Vec<String> = arguments.into_iter().flatten().take(MAX_PROBES).collect();
    if probes.is_empty() && called.is_fibonacci() {
        probes = (0..=MAX_PROBE).rev().map(|n| n.to_string()).collect();
    }
    let mut doctor = Doctor::new(called, probes, args.options()?);
    let mut print = Print {
        json: args.json,
        coloured: is_coloured(),
        out: io::stdout().lock(),
    };
    let mut counts = Counts::default();
    let examine = async {
        while let Some(finding) = doctor.next().await {
            counts.count(finding.severity);
            print.finding(&finding, remedies.of(&finding))?;
        }
        print.counts(&counts)
    };
    tokio::select! {
        examined = examine => examined?,
        // Without a handler, the signal ends the process by itself.
        Ok(()) = tokio::signal::ctrl_c() => return Err(Failure::interrupted()),
    }
    if counts.failures > 0 {
        return Err(Failure::new(3, ""));
    }
    Ok(())
}

impl Counts {
    fn count(&mut self, severity: Severity) {
        *match severity {
            Severity::Ok => &mut self.ok,
            Severity::Warning => &mut self.warnings,
            Severity::Failure => &mut self.failures,
            Severity::Skipped => &mut self.skipped,
        } += 1;
    }
}

struct Print<W: Write> {
    json: bool,
    coloured: bool,
    out: W,
}

impl<W: Write> Print<W> {
    fn finding(&mut self, finding: &Finding, remedy: Option<String>) -> io::Result<()> {
        let (check, message) = (finding.check.as_str(), finding.found.to_string());
        if self.json {
            let state = finding.severity.as_str();
            let line = Line {
                check,
                state,
                message,
                remedy,
            };
            serde_json::to_writer(&mut self.out, &line)?;
            return writeln!(self.out);
        }
        let (word, colour) = match finding.severity {
            Severity::Ok => ("ok", 32),
            Severity::Warning => ("WARNING", 33),
            Severity::Failure => ("FAILURE", 31),
            Severity::Skipped => ("skipped", 2),
        };
        // Escape sequences take no columns, so the padding is added separately.
        let padding = " ".repeat(REMEDY_AT - word.len());
        let state = if self.coloured {
            format!("\x1b[{colour}m{word}\x1b[0m{padding}")
        } else {
            format!("{word}{padding}")
        };
        let name = format!("{check:<width$}", width = MESSAGE_AT - REMEDY_AT);
        self.lines(&format!("{state}{name}"), MESSAGE_AT, &message)?;
        if let Some(remedy) = remedy {
            let indent = " ".repeat(REMEDY_AT);
            for step in remedy.lines() {
                let arrow = if step.starts_with(' ') { "   " } else { "-> " };
                self.lines(&format!("{indent}{arrow}"), REMEDY_AT + 3, step)?;
            }
        }
        self.out.flush()
    }

    /// Prints wrapped text from a column on.
    fn lines(&mut self, head: &str, at: usize, text: &str) -> io::Result<()> {
        let mut head = head.to_owned();
        for line in wrapped(text, COLUMNS - at) {
            writeln!(self.out, "{head}{line}")?;
            head = " ".repeat(at);
        }
        Ok(())
    }

    fn counts(&mut self, counts: &Counts) -> io::Result<()> {
        if self.json {
            return Ok(());
        }
        let some = |count: usize, what: &str| {
            let plural = if count == 1 { "" } else { "s" };
            format!("{count} {what}{plural}")
        };
        let Counts {
            ok,
            warnings,
            failures,
            skipped,
        } = counts;
        let (warnings, failures) = (some(*warnings, "warning"), some(*failures, "failure"));
        writeln!(
            self.out,
            "{ok} ok, {warnings}, {failures}, {skipped} skipped"
        )
    }
}

/// Breaks text into lines at spaces, and within words that are longer than a line.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    let mut length = 0;
    for word in text.split(' ') {
        let count = word.chars().count();
        if length > 0 && length + 1 + count > width {
            lines.push(String::new());
            length = 0;
        } else if length > 0 {
            push(&mut lines, ' ');
            length += 1;
        }
        for c in word.chars() {
            if length == width {
                lines.push(String::new());
                length = 0;
            }
            push(&mut lines, c);
            length += 1;
        }
    }
    lines
}

fn push(lines: &mut [String], c: char) {
    if let Some(line) = lines.last_mut() {
        line.push(c);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_broken_at_spaces_if_possible() {
        assert_eq!(wrapped("to be or not", 5), ["to be", "or", "not"]);
        assert_eq!(wrapped("a 1234567 b", 5), ["a", "12345", "67 b"]);
        assert_eq!(wrapped("", 5), [""]);
    }
}
