//! What a person sees while many of something are dealt with: a line on stderr, if that is a terminal.

use std::io::{self, IsTerminal as _};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use rpcache::{Answered, Error, Source};

/// What ends sooner needs no bar.
const SHOW_AFTER: Duration = Duration::from_millis(300);

/// Refreshed so often, so that a standstill can be told from work.
const TICK: Duration = Duration::from_millis(200);

pub(crate) struct Progress {
    bar: Option<Bar>,
}

struct Bar {
    line: ProgressBar,
    started: std::time::Instant,
    shown: bool,
    done: u64,
    hits: u64,
    /// Whether answers go to the same terminal.
    beside_answers: bool,
}

impl Progress {
    /// Of so many answers, as far as it is known. One answer has none.
    pub(crate) fn new(total: Option<u64>) -> Self {
        if total == Some(1) || !io::stderr().is_terminal() {
            return Self { bar: None };
        }
        let bar = ProgressBar::with_draw_target(total, ProgressDrawTarget::hidden());
        let form = match total {
            Some(_) => "{wide_bar} {pos}/{len}  {per_sec}  {msg}  {eta} left",
            None => "{spinner} {pos}  {per_sec}  {msg}  {elapsed}",
        };
        if let Ok(style) = ProgressStyle::with_template(form) {
            bar.set_style(style);
        }
        Self {
            bar: Some(Bar {
                line: bar,
                started: std::time::Instant::now(),
                shown: false,
                done: 0,
                hits: 0,
                beside_answers: io::stdout().is_terminal(),
            }),
        }
    }

    pub(crate) fn count<A>(&mut self, ended: &Result<Answered<A>, Error>) {
        let Some(bar) = &mut self.bar else {
            return;
        };
        let is_hit =
            |answered: &Answered<A>| matches!(answered.source, Source::Local | Source::Cache);
        bar.hits += u64::from(ended.as_ref().is_ok_and(is_hit));
        bar.add(1);
        if bar.done.is_multiple_of(64) {
            let share = bar.hits * 100 / bar.done;
            bar.line.set_message(format!("{share} % hits"));
        }
    }

    /// So many more are done.
    pub(crate) fn add(&mut self, more: usize) {
        if let Some(bar) = &mut self.bar {
            bar.add(more as u64);
        }
    }

    /// Says how it goes.
    pub(crate) fn say(&self, how: String) {
        if let Some(bar) = &self.bar {
            bar.line.set_message(how);
        }
    }

    /// Writes without a bar in the way.
    pub(crate) fn aside<T>(&self, write: impl FnOnce() -> T) -> T {
        match &self.bar {
            Some(bar) if bar.shown && bar.beside_answers => bar.line.suspend(write),
            _ => write(),
        }
    }

    /// Ends it before something else is said.
    pub(crate) fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.line.finish_and_clear();
        }
    }
}

impl Bar {
    fn add(&mut self, more: u64) {
        self.done += more;
        if !self.shown && self.started.elapsed() >= SHOW_AFTER {
            self.shown = true;
            self.line.set_draw_target(ProgressDrawTarget::stderr());
            self.line.enable_steady_tick(TICK);
        }
        self.line.set_position(self.done);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.end();
    }
}
