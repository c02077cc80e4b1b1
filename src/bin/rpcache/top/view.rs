//! How a snapshot looks, in however many columns and lines. Pure: a snapshot becomes cells of a
//! buffer, which is the terminal's or becomes text.
//!
//! Everything is ASCII but what keys hold, which the library has escaped; the rest of what may come
//! in a name has its width, and is cut off by columns, not by characters.

mod numbers;
mod summary;
mod tables;
#[cfg(test)]
mod tests;

use ratatui::buffer::Buffer;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Paragraph, Widget as _};

use super::snapshot::Snapshot;

/// What is above the workers, with the blank line.
const ABOVE: u16 = 7;

/// Rows of keys below the workers, without their head.
const FEWEST_KEYS: u16 = 3;
const MOST_KEYS: u16 = 10;

/// By what the workers are sorted, the most first.
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

/// What a person has chosen.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct View {
    pub(super) coloured: bool,
    pub(super) sort: Sort,
    pub(super) paused: bool,
    /// Workers that are scrolled past.
    pub(super) skipped: usize,
}

impl View {
    /// A whole snapshot as text, without colours.
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

    /// As much of a snapshot as there is room for.
    pub(super) fn draw(self, snapshot: &Snapshot, buffer: &mut Buffer) {
        let left = buffer.area.height.saturating_sub(ABOVE + 1);
        // The workers have what the keys do not need, and no less than half.
        let keys = (left / 2).saturating_sub(2).clamp(FEWEST_KEYS, MOST_KEYS) + 1;
        let gap = u16::from(keys > MOST_KEYS);
        let workers = left.saturating_sub(keys + gap);
        self.draw_parts(snapshot, [workers, gap, keys, 1], buffer);
    }

    /// So many lines for the workers, a gap, the keys, and what can be pressed.
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
        u16::try_from(longest).unwrap_or(MOST_KEYS).min(MOST_KEYS)
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

/// A text in so many columns at the most.
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

/// What a buffer shows, without blanks at the ends of lines and blank lines at its end.
fn text(buffer: &Buffer) -> String {
    let mut all = String::new();
    for y in 0..buffer.area.height {
        let mut line = String::new();
        let mut x = 0;
        while x < buffer.area.width {
            let symbol = buffer[(x, y)].symbol();
            line.push_str(symbol);
            // What is two columns wide covers the next cell.
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
