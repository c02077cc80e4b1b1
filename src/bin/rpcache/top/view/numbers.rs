//! Formats numbers in few columns.

use crate::text::thousands;

/// Per second: `0`, `0.3`, `12.5`, `1,234`, `1.2M`
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "bounded in each arm"
)]
pub(super) fn rate(per_second: f64) -> String {
    match per_second {
        n if n < 0.05 => "0".to_owned(),
        n if n < 99.95 => format!("{n:.1}"),
        n if n < 999_999.5 => thousands(n.round() as u64),
        n if n < 999e6 => format!("{:.1}M", n / 1e6),
        _ => "999M+".to_owned(),
    }
}

/// Milliseconds: `340us`, `1.2ms`, `120ms`, `3.4s`, `120s`, `5m 3s`, `2h 5m`
pub(super) fn time(millis: f64) -> String {
    match millis {
        n if n < 0.9995 => format!("{:.0}us", n * 1e3),
        n if n < 99.95 => format!("{n:.1}ms"),
        n if n < 999.5 => format!("{n:.0}ms"),
        n if n < 99_950.0 => format!("{:.1}s", n / 1e3),
        n => seconds(whole(n / 1e3)),
    }
}

/// `12s`, `5m 3s`, `2h 5m`, `3d 4h`
pub(super) fn seconds(n: u64) -> String {
    let (m, h, d) = (60, 60 * 60, 24 * 60 * 60);
    match n {
        _ if n < 2 * m => format!("{n}s"),
        _ if n < h => format!("{}m {}s", n / m, n % m),
        _ if n < d => format!("{}h {}m", n / h, n % h / m),
        _ if n < 1000 * d => format!("{}d {}h", n / d, n % d / h),
        _ => "years".to_owned(),
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the cast saturates"
)]
fn whole(n: f64) -> u64 {
    n as u64
}

/// `12.3 %`
pub(super) fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stay_short() {
        let rates = [0.0, 0.26, 12.53, 100.0, 1234.5, 999_999.9, 1.25e7, f64::MAX].map(rate);
        let expected = ["0", "0.3", "12.5", "100", "1,235", "1.0M", "12.5M", "999M+"];
        assert_eq!(rates, expected);
        let times = [
            0.01,
            0.34,
            1.23,
            120.4,
            3400.0,
            120_000.0,
            303_000.0,
            7.5e6,
            f64::MAX,
        ];
        let expected = [
            "10us", "340us", "1.2ms", "120ms", "3.4s", "2m 0s", "5m 3s", "2h 5m", "years",
        ];
        assert_eq!(times.map(time), expected);
        assert_eq!(percent(0.9315), "93.2 %");
    }
}
