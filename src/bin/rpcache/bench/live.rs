//! Shows the progress of a run in a line on stderr, if that is a terminal.

use std::fmt::Write as _;
use std::io::{self, IsTerminal as _};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use super::Run;
use crate::{progress, stderr};

const EVERY: Duration = Duration::from_millis(200);

pub(super) struct Live(ProgressBar);

impl Live {
    /// Updates the line until the future is dropped.
    pub(super) async fn show(run: &Run) {
        if !io::stderr().is_terminal() {
            return std::future::pending().await;
        }
        let line = ProgressBar::with_draw_target(None, progress::on_stderr());
        if let Ok(style) = ProgressStyle::with_template("{spinner} {msg}") {
            line.set_style(style);
        }
        let line = Self(line);
        let mut before = (Duration::ZERO, 0);
        loop {
            tokio::time::sleep(EVERY).await;
            let now = (run.pace.elapsed(), run.tally.answered());
            line.0.set_message(message(run, now, before));
            line.0.tick();
            before = now;
        }
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.0.finish_and_clear();
        // The line must be cleared before the report is printed.
        stderr::flush();
    }
}

/// The text of the line; the rate is that since the last update.
#[expect(clippy::cast_precision_loss, reason = "for display")]
fn message(run: &Run, now: (Duration, u64), before: (Duration, u64)) -> String {
    let answered = now.1;
    let per_second = (answered - before.1) as f64 / now.0.saturating_sub(before.0).as_secs_f64();
    let mut line = format!(
        "{:.1} s  {answered} answered  {per_second:.0}/s",
        now.0.as_secs_f64()
    );
    let failed = run
        .tally
        .by_task()
        .iter()
        .sum::<u64>()
        .saturating_sub(answered);
    for (count, what) in [(failed, "failed"), (run.pace.not_started(), "waiting")] {
        if count > 0 {
            // Writing to a String cannot fail.
            let _ = write!(line, "  {count} {what}");
        }
    }
    line
}
