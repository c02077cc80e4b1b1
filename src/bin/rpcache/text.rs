//! Formats numbers, sizes and durations for people, and prints rows as a table.

use std::io::{self, Write};
use std::time::Duration;

/// `1,234`
pub(crate) fn thousands(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `1 answer`, `1,234 answers`
pub(crate) fn answers(n: u64) -> String {
    let plural = if n == 1 { "" } else { "s" };
    format!("{} answer{plural}", thousands(n))
}

/// `512 B`, `1.2 kB`, `3.4 MB`
pub(crate) fn bytes(n: u64) -> String {
    let units = [(1_000_000_000, "GB"), (1_000_000, "MB"), (1000, "kB")];
    match units.into_iter().find(|&(each, _)| n >= each) {
        Some((each, unit)) => format!("{}.{} {unit}", thousands(n / each), n % each * 10 / each),
        None => format!("{n} B"),
    }
}

/// `12.3 %`; `0.0 %` of 0.
pub(crate) fn share(part: u64, whole: u64) -> String {
    let per_mille = u128::from(part) * 1000 / u128::from(whole.max(1));
    format!("{}.{} %", per_mille / 10, per_mille % 10)
}

/// `none`, `6d 23h`, `59m 3s`, `12s`
pub(crate) fn ttl(ttl: Option<Duration>) -> String {
    let Some(ttl) = ttl else {
        return "none".to_owned();
    };
    let seconds = rounded_up(ttl);
    let (m, h, d) = (60, 60 * 60, 24 * 60 * 60);
    match seconds {
        _ if seconds >= d => format!("{}d {}h", seconds / d, seconds % d / h),
        _ if seconds >= h => format!("{}h {}m", seconds / h, seconds % h / m),
        _ if seconds >= m => format!("{}m {}s", seconds / m, seconds % m),
        _ => format!("{seconds}s"),
    }
}

/// A duration that was measured: `83 µs`, `0.3 ms`, `1234.5 ms`
pub(crate) fn elapsed(elapsed: Duration) -> String {
    match elapsed.as_micros() {
        micros @ ..100 => format!("{micros} µs"),
        _ => format!("{:.1} ms", elapsed.as_secs_f64() * 1e3),
    }
}

/// `none`, or seconds.
pub(crate) fn seconds(ttl: Option<Duration>) -> String {
    ttl.map_or_else(|| "none".to_owned(), |ttl| rounded_up(ttl).to_string())
}

/// In whole seconds: a key that has not expired does not show 0.
fn rounded_up(ttl: Duration) -> u64 {
    ttl.as_secs() + u64::from(ttl.subsec_nanos() > 0)
}

pub(crate) fn millis(ttl: Duration) -> u64 {
    u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX)
}

/// Prints rows as a table with aligned columns, numbers to the right, or with tabs between the columns.
pub(crate) fn print(out: &mut impl Write, rows: &[Vec<String>], aligned: bool) -> io::Result<()> {
    if !aligned {
        return rows
            .iter()
            .try_for_each(|row| writeln!(out, "{}", row.join("\t")));
    }
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let cells = |column: usize| rows.iter().filter_map(move |row| row.get(column));
    let width = |column| cells(column).map(|cell| cell.chars().count()).max();
    let is_number = |cell: &String| cell.chars().all(|c| c.is_ascii_digit() || c == ',');
    let (widths, numbers): (Vec<_>, Vec<_>) = (0..columns)
        .map(|column| {
            (
                width(column).unwrap_or(0),
                cells(column).skip(1).all(is_number),
            )
        })
        .unzip();
    for row in rows {
        let mut line = String::new();
        for ((cell, &width), &is_number) in row.iter().zip(&widths).zip(&numbers) {
            let cell = if is_number {
                format!("{cell:>width$}  ")
            } else {
                format!("{cell:<width$}  ")
            };
            line.push_str(&cell);
        }
        writeln!(out, "{}", line.trim_end())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_as_a_person_writes_them() {
        let texts = [0, 7, 999, 1000, 12_345, 1_234_567].map(thousands);
        assert_eq!(texts, ["0", "7", "999", "1,000", "12,345", "1,234,567"]);
        let texts = [0, 999, 1000, 1_250_000, 34_567_000_000_000].map(bytes);
        assert_eq!(texts, ["0 B", "999 B", "1.0 kB", "1.2 MB", "34,567.0 GB"]);
        assert_eq!([answers(1), answers(2000)], ["1 answer", "2,000 answers"]);
        assert_eq!([share(1, 3), share(0, 0)], ["33.3 %", "0.0 %"]);
    }

    #[test]
    fn ttls_read_as_a_person_writes_them() {
        let of_millis = |millis| ttl(Some(Duration::from_millis(millis)));
        let texts = [1, 60_000, 3_599_000, 86_399_000, 604_799_000].map(of_millis);
        assert_eq!(texts, ["1s", "1m 0s", "59m 59s", "23h 59m", "6d 23h"]);
        assert_eq!(ttl(None), "none");
        assert_eq!(seconds(Some(Duration::from_millis(1001))), "2");
        assert_eq!(seconds(None), "none");
    }

    #[test]
    fn a_short_duration_is_in_microseconds() {
        let texts = [83, 100, 1_234_500].map(|micros| elapsed(Duration::from_micros(micros)));
        assert_eq!(texts, ["83 µs", "0.1 ms", "1234.5 ms"]);
    }

    #[test]
    fn columns_are_aligned_for_a_person_only() {
        let rows = [["ID", "DONE", "x"], ["a", "12,345", "y"]];
        let rows = rows.map(|row| row.map(str::to_owned).to_vec());
        let printed = |aligned| {
            let mut out = Vec::new();
            print(&mut out, &rows, aligned).unwrap();
            String::from_utf8(out).unwrap()
        };
        assert_eq!(printed(true), "ID    DONE  x\na   12,345  y\n");
        assert_eq!(printed(false), "ID\tDONE\tx\na\t12,345\ty\n");
    }
}
