//! Shows progress in a line on stderr, if that is a terminal.
//!
//! It is drawn through the queue of [`stderr`], so that a stopped terminal blocks nothing.

use std::io::{self, IsTerminal as _, Write as _};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle, TermLike};
use rpcache::{Answered, Error, Source};
use rustix::termios::tcgetwinsize;

use crate::stderr;

/// Delay before the line is shown: shorter work needs none.
const SHOW_AFTER: Duration = Duration::from_millis(300);

/// Time between two refreshes, which show that the command still runs.
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
    /// Whether answers are printed on a terminal, too.
    beside_answers: bool,
}

impl Progress {
    /// Progress towards a total, if it is known. Nothing is shown for a single answer.
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

    /// Counts more as done.
    pub(crate) fn add(&mut self, more: usize) {
        if let Some(bar) = &mut self.bar {
            bar.add(more as u64);
        }
    }

    /// Sets the text beside the bar.
    pub(crate) fn set_message(&self, message: String) {
        if let Some(bar) = &self.bar {
            bar.line.set_message(message);
        }
    }

    /// Runs `write` while the line is cleared.
    pub(crate) fn suspend<T>(&self, write: impl FnOnce() -> T) -> T {
        match &self.bar {
            Some(bar) if bar.shown && bar.beside_answers => bar.line.suspend(|| {
                // The bytes that clear the line are in the queue.
                stderr::flush();
                write()
            }),
            _ => write(),
        }
    }

    /// Clears the line before other output.
    pub(crate) fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.line.finish_and_clear();
            stderr::flush();
        }
    }
}

impl Bar {
    fn add(&mut self, more: u64) {
        self.done += more;
        if !self.shown && self.started.elapsed() >= SHOW_AFTER {
            self.shown = true;
            self.line.set_draw_target(on_stderr());
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

/// The same rate as indicatif's default.
const DRAWS_PER_SECOND: u8 = 20;

/// Draws on stderr through its queue.
pub(crate) fn on_stderr() -> ProgressDrawTarget {
    ProgressDrawTarget::term_like_with_hz(Box::<Terminal>::default(), DRAWS_PER_SECOND)
}

/// A terminal that collects a frame, and queues it as a whole.
#[derive(Debug, Default)]
struct Terminal {
    frame: Mutex<Vec<u8>>,
}

impl Terminal {
    fn frame(&self) -> MutexGuard<'_, Vec<u8>> {
        self.frame.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Moves the cursor; for 0 it writes nothing, because the parameter 0 means 1.
    fn move_cursor(&self, by: usize, direction: char) -> io::Result<()> {
        match by {
            0 => Ok(()),
            by => write!(self.frame(), "\x1b[{by}{direction}"),
        }
    }
}

impl TermLike for Terminal {
    fn width(&self) -> u16 {
        let columns = tcgetwinsize(io::stderr()).map_or(0, |size| size.ws_col);
        // Some terminals report no size.
        if columns == 0 { 80 } else { columns }
    }

    fn move_cursor_up(&self, lines: usize) -> io::Result<()> {
        self.move_cursor(lines, 'A')
    }

    fn move_cursor_down(&self, lines: usize) -> io::Result<()> {
        self.move_cursor(lines, 'B')
    }

    fn move_cursor_right(&self, columns: usize) -> io::Result<()> {
        self.move_cursor(columns, 'C')
    }

    fn move_cursor_left(&self, columns: usize) -> io::Result<()> {
        self.move_cursor(columns, 'D')
    }

    fn write_line(&self, text: &str) -> io::Result<()> {
        writeln!(self.frame(), "{text}")
    }

    fn write_str(&self, text: &str) -> io::Result<()> {
        self.frame().write_all(text.as_bytes())
    }

    fn clear_line(&self) -> io::Result<()> {
        self.frame().write_all(b"\r\x1b[2K")
    }

    fn flush(&self) -> io::Result<()> {
        let mut frame = self.frame();
        stderr::push_frame(&frame);
        frame.clear();
        Ok(())
    }
}
