//! Draws a snapshot into a buffer of any size: that of the terminal, or one that becomes text. Pure.
//!
//! Everything is ASCII but keys and names, which the library has escaped. Texts are cut by columns, not by characters,
//! because some characters are two columns wide.

mod numbers;
mod summary;
mod tables;
#[cfg(test)]
pub(super) mod tests;

use ratatui::buffer::Buffer;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Paragraph, Widget as _};

use super::snapshot::Snapshot;

/// Lines above the workers; the last one is blank while requests are answered.
const ABOVE: u16 = 7;

/// Rows of keys below the workers, without the header.
const MIN_KEYS: u16 = 3;
const MAX_KEYS: u16 = 10;

/// The order of the workers, the largest value first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Sort {
    #[default]
    Requests,
    Longest,
    Failures,
    Host,
}

impl Sort {
    pub(super) fn next(self) -> Self {
        match self {
            Self::Requests => Self::Longest,
            Self::Longest => Self::Failures,
            Self::Failures => Self::Host,
            Self::Host => Self::Requests,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Requests => "requests",
            Self::Longest => "longest computation",
            Self::Failures => "failures",
            Self::Host => "host",
        }
    }
}

/// What the user has chosen by keys and options.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct View {
    pub(super) coloured: bool,
    pub(super) sort: Sort,
    pub(super) paused: bool,
    /// Number of workers that are scrolled past.
    pub(super) skipped: usize,
}

impl View {
    /// Formats a whole snapshot as text, without colours.
    pub(super) fn text(self, snapshot: &Snapshot, columns: u16) -> String {
        let workers = u16::try_from(snapshot.workers.len()).unwrap_or(u16::MAX);
        let below = [
            workers.saturating_add(1),
            1,
            Self::keys_wanted(snapshot) + 1,
            0,
        ];
        let lines = below.into_iter().fold(ABOVE, u16::saturating_add);
        let mut buffer = Buffer::empty(Rect::new(0, 0, columns, lines));
        self.draw_parts(snapshot, below, &mut buffer);
        text(&buffer)
    }

    /// Draws as much of a snapshot as the buffer has room for.
    pub(super) fn draw(self, snapshot: &Snapshot, buffer: &mut Buffer) {
        let left = buffer.area.height.saturating_sub(ABOVE + 1);
        // The keys get at most half of the lines, the workers the rest.
        let keys = (left / 2).saturating_sub(2).clamp(MIN_KEYS, MAX_KEYS) + 1;
        let gap = u16::from(keys > MAX_KEYS);
        let workers = left.saturating_sub(keys + gap);
        self.draw_parts(snapshot, [workers, gap, keys, 1], buffer);
    }

    /// Draws all parts. `below` has the numbers of lines for the workers, a gap, the keys, and the footer.
    fn draw_parts(self, snapshot: &Snapshot, below: [u16; 4], buffer: &mut Buffer) {
        let [workers, gap, keys, footer] = below;
        let rows = [ABOVE, workers, gap, keys, footer].map(Constraint::Length);
        let [above, workers, _, keys, footer] = Layout::vertical(rows).areas(buffer.area);
        let columns = usize::from(above.width);
        Paragraph::new(summary::lines(self, snapshot, columns)).render(above, buffer);
        tables::workers(self, snapshot, workers, buffer);
        tables::keys(self, snapshot, keys, buffer);
        Paragraph::new(self.footer()).render(footer, buffer);
    }

    fn keys_wanted(snapshot: &Snapshot) -> u16 {
        let lists = [
            snapshot.hottest.len(),
            snapshot.slowest.len(),
            snapshot.failed.len(),
        ];
        let longest = lists.into_iter().max().unwrap_or(0);
        u16::try_from(longest).unwrap_or(MAX_KEYS).min(MAX_KEYS)
    }

    fn footer(self) -> Line<'static> {
        let paused = if self.paused { "go on" } else { "pause" };
        let help = format!(
            "q quit   s sort: {}   p {paused}   up/down more workers",
            self.sort.name()
        );
        Line::styled(help, self.faint())
    }

    fn colour(self, colour: Color) -> Style {
        if self.coloured {
            Style::new().fg(colour)
        } else {
            Style::new()
        }
    }

    fn bad(self) -> Style {
        self.colour(Color::Red).add_modifier(Modifier::BOLD)
    }

    fn warning(self) -> Style {
        self.colour(Color::Yellow)
    }

    fn faint(self) -> Style {
        self.colour(Color::DarkGray)
    }

    fn head(self) -> Style {
        self.colour(Color::Cyan).add_modifier(Modifier::BOLD)
    }
}

/// Cuts a text to a number of columns.
fn fitted(text: &str, columns: usize) -> String {
    if Span::raw(text).width() <= columns {
        return text.to_owned();
    }
    let cut = &".."[..columns.min(2)];
    let mut left = columns - cut.len();
    let mut fitted = String::new();
    for c in text.chars() {
        let width = Span::raw(c.to_string()).width();
        if width > left {
            break;
        }
        left -= width;
        fitted.push(c);
    }
    fitted + cut
}

/// The text of a buffer, without trailing spaces and trailing blank lines.
fn text(buffer: &Buffer) -> String {
    let mut all = String::new();
    for y in 0..buffer.area.height {
        let mut line = String::new();
        let mut x = 0;
        while x < buffer.area.width {
            let symbol = buffer[(x, y)].symbol();
            line.push_str(symbol);
            // A symbol of two columns covers the next cell.
            x += u16::try_from(Span::raw(symbol).width()).unwrap_or(1).max(1);
        }
        all.push_str(line.trim_end());
        all.push('\n');
    }
    let end = all.trim_end().len();
    all.truncate(end);
    all.push('\n');
    all
}
