//! Draws the table of workers, and the lists of keys below it.

use std::cmp::Reverse;
use std::time::Duration;

use ratatui::buffer::Buffer;
use ratatui::layout::{Alignment, Constraint, Layout, Rect};
use ratatui::style::Style;
use ratatui::text::{Line, Span};
use ratatui::widgets::{Cell, Paragraph, Row, Table, Widget as _};

use super::super::snapshot::{Seen, Snapshot, Worker};
use super::numbers::{rate, seconds, time};
use super::{Sort, View, fitted};
use crate::text::thousands;

/// Width from which the workers have more columns.
const WIDE: u16 = 100;

/// A column of the workers: header, width, content. Numbers are aligned to the right.
struct Column {
    head: &'static str,
    width: u16,
    is_number: bool,
    show: fn(&Worker) -> String,
}

const fn column(head: &'static str, width: u16, show: fn(&Worker) -> String) -> Column {
    Column {
        head,
        width,
        is_number: true,
        show,
    }
}

const fn name(head: &'static str, width: u16, show: fn(&Worker) -> String) -> Column {
    Column {
        is_number: false,
        ..column(head, width, show)
    }
}

fn columns(is_wide: bool) -> Vec<Column> {
    let mut columns = vec![
        name("WORKER", 8, |worker| worker.id.clone()),
        name("HOST", if is_wide { 16 } else { 10 }, |worker| {
            worker.host.clone()
        }),
        column("PID", 7, |worker| worker.pid.to_string()),
        column("BUSY", 5, |worker| {
            format!("{}/{}", worker.under_way, worker.slots)
        }),
        column("HELD", 5, |worker| thousands(worker.held)),
        column("REQ/S", 7, |worker| {
            worker
                .per_second
                .map_or("-".to_owned(), |rates| rate(rates.answered))
        }),
        column("FAIL/S", 6, |worker| {
            worker
                .per_second
                .map_or("-".to_owned(), |rates| rate(rates.failed))
        }),
    ];
    if is_wide {
        columns.push(column("COMP/S", 7, |worker| {
            worker
                .per_second
                .map_or("-".to_owned(), |rates| rate(rates.computed))
        }));
        columns.push(column("P99", 7, |worker| {
            worker.request_ms.p99.map_or("-".to_owned(), time)
        }));
        columns.push(column("UP", 7, |worker| seconds(worker.uptime_s)));
    }
    columns
}

pub(super) fn workers(view: View, snapshot: &Snapshot, area: Rect, buffer: &mut Buffer) {
    if !matches!(snapshot.fleet, Seen::Ok(_)) || snapshot.workers.is_empty() {
        return;
    }
    let columns = columns(area.width >= WIDE);
    let taken: u16 = columns.iter().map(|column| column.width + 1).sum();
    let left = usize::from(area.width.saturating_sub(taken));
    let all = sorted(snapshot, view.sort);
    let room = usize::from(area.height.saturating_sub(1));
    let skipped = view.skipped.min(all.len().saturating_sub(room));
    let shown = &all[skipped..all.len().min(skipped + room)];
    let rows = shown.iter().map(|worker| row(view, worker, &columns, left));
    let head = columns
        .iter()
        .map(|column| aligned(column, column.head.to_owned()));
    let head = head.chain([Line::raw("COMPUTING").into()]);
    let widths = columns
        .iter()
        .map(|column| Constraint::Length(column.width));
    Table::new(rows, widths.chain([Constraint::Fill(1)]))
        .header(Row::new(head).style(view.head()))
        .column_spacing(1)
        .render(area, buffer);
    let hidden = all.len() - skipped - shown.len();
    if hidden > 0 && room > 1 {
        // In place of the last row.
        let more = format!("and {} more", thousands(hidden as u64 + 1));
        let more = format!("{more:<width$}", width = usize::from(area.width));
        let last = Rect::new(area.x, area.bottom() - 1, area.width, 1);
        Paragraph::new(Line::styled(more, view.faint())).render(last, buffer);
    }
}

fn row(view: View, worker: &Worker, columns: &[Column], left: usize) -> Row<'static> {
    let cells = columns.iter().map(|column| {
        let text = (column.show)(worker);
        aligned(column, fitted(&text, usize::from(column.width)))
    });
    let (doing, style) = doing(view, worker, left);
    let failing = worker.per_second.is_some_and(|rates| rates.failed > 0.0);
    let of_row = if failing {
        view.warning()
    } else {
        Style::new()
    };
    let doing = Cell::new(Span::styled(doing, style));
    Row::new(cells.chain([doing])).style(of_row)
}

fn aligned(column: &Column, text: String) -> Cell<'static> {
    let alignment = if column.is_number {
        Alignment::Right
    } else {
        Alignment::Left
    };
    Line::raw(text).alignment(alignment).into()
}

/// The computations of a worker, as many as fit.
fn doing(view: View, worker: &Worker, columns: usize) -> (String, Style) {
    if worker.silent_s > 0 {
        let silent = format!("silent for {}", seconds(worker.silent_s));
        return (fitted(&silent, columns), view.bad());
    }
    let mut shown = String::new();
    let mut text = String::new();
    let all = worker.under_way.max(worker.computing.len() as u64);
    for (n, one) in (1..).zip(&worker.computing) {
        let took = time(Duration::from_millis(one.ms).as_secs_f64() * 1e3);
        let rest = match all - n {
            0 => String::new(),
            rest => format!(" +{rest}"),
        };
        if n == 1 {
            let key = fitted(
                &one.key,
                columns.saturating_sub(took.len() + rest.len() + 1),
            );
            shown = format!("{key} {took}");
        } else {
            shown = format!("{shown}, {} {took}", one.key);
        }
        let longer = format!("{shown}{rest}");
        // The longest is always shown, others if they fit.
        if n > 1 && Span::raw(longer.as_str()).width() > columns {
            break;
        }
        text = longer;
    }
    (text, Style::new())
}

fn sorted(snapshot: &Snapshot, sort: Sort) -> Vec<&Worker> {
    let mut workers: Vec<_> = snapshot.workers.iter().collect();
    let by_rate = |of: fn(&Worker) -> f64| {
        move |one: &&Worker, other: &&Worker| of(other).total_cmp(&of(one))
    };
    match sort {
        Sort::Requests => workers.sort_by(by_rate(|worker| {
            worker.per_second.map_or(-1.0, |rates| rates.answered)
        })),
        Sort::Failures => workers.sort_by(by_rate(|worker| {
            worker.per_second.map_or(-1.0, |rates| rates.failed)
        })),
        Sort::Longest => {
            workers.sort_by_key(|worker| Reverse(worker.computing.iter().map(|one| one.ms).max()));
        }
        Sort::Host => workers.sort_by(|one, other| {
            let of = |worker: &Worker| (worker.host.clone(), worker.pid);
            of(one).cmp(&of(other))
        }),
    }
    workers
}

/// Draws three lists side by side.
pub(super) fn keys(view: View, snapshot: &Snapshot, area: Rect, buffer: &mut Buffer) {
    let parts = [
        Constraint::Fill(3),
        Constraint::Fill(3),
        Constraint::Fill(5),
    ];
    let [hottest, slowest, failed] = Layout::horizontal(parts).spacing(2).areas(area);
    let hot = snapshot.hottest.iter().map(|hot| Listed {
        front: rate(hot.per_second),
        key: &hot.key,
        behind: String::new(),
        style: Style::new(),
    });
    list(view, ("/S", "HOTTEST"), hot, hottest, buffer);
    let slow = snapshot.slowest.iter().map(|slow| Listed {
        front: time(slow.ms),
        key: &slow.key,
        behind: String::new(),
        style: Style::new(),
    });
    list(view, ("TOOK", "SLOWEST"), slow, slowest, buffer);
    let failures = snapshot.failed.iter().map(|failed| Listed {
        front: fitted(&seconds(failed.ago_s), 7),
        key: failed.key.as_deref().unwrap_or("-"),
        behind: fitted(&failed.code, 12),
        style: if failed.code == "poison" {
            view.bad()
        } else {
            Style::new()
        },
    });
    list(view, ("AGO", "FAILED"), failures, failed, buffer);
}

struct Listed<'a> {
    front: String,
    key: &'a str,
    behind: String,
    style: Style,
}

/// Width of the column before the keys, aligned to the right.
const FRONT: usize = 7;

fn list<'a>(
    view: View,
    (front, head): (&str, &str),
    listed: impl Iterator<Item = Listed<'a>>,
    area: Rect,
    buffer: &mut Buffer,
) {
    let width = usize::from(area.width).saturating_sub(FRONT + 1);
    let mut lines = vec![Line::styled(format!("{front:>FRONT$} {head}"), view.head())];
    lines.extend(listed.map(|one| {
        let behind = Span::raw(one.behind.as_str()).width();
        let left = width.saturating_sub(if behind > 0 { behind + 1 } else { 0 });
        let key = fitted(one.key, left);
        let text = format!("{:>FRONT$} {key} {}", one.front, one.behind);
        Line::styled(text, one.style)
    }));
    Paragraph::new(lines).render(area, buffer);
}
