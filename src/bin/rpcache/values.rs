//! Values as they are typed: durations, sizes, shares, addresses.

use std::net::SocketAddr;
use std::str::FromStr;
use std::time::Duration;

/// Where to listen.
pub(crate) fn address(text: &str) -> Result<SocketAddr, String> {
    let text = match text.strip_prefix("localhost:") {
        Some(port) => &format!("127.0.0.1:{port}"),
        None => text,
    };
    text.parse()
        .map_err(|_| "expected an address and a port, such as 127.0.0.1:9464".to_owned())
}

/// `none`, or a duration.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ttl(pub(crate) Option<Duration>);

impl FromStr for Ttl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "none" => Ok(Self(None)),
            text => duration(text).map(Some).map(Self),
        }
    }
}

/// A thousand years: beyond it clocks, and Redis, overflow.
const LONGEST_MILLIS: u64 = 1000 * 365 * 24 * 60 * 60 * 1000;

/// A number and a unit; without one, seconds.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    const EXAMPLES: &str = "expected something like 500ms, 3s, 2m, 24h or 7d";
    let unit_at = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(unit_at);
    let millis_each: u64 = match unit {
        "ms" => 1,
        "" | "s" => 1000,
        "m" => 60 * 1000,
        "h" => 60 * 60 * 1000,
        "d" => 24 * 60 * 60 * 1000,
        _ => return Err(EXAMPLES.to_owned()),
    };
    let number: u64 = number.parse().map_err(|_| EXAMPLES.to_owned())?;
    match number.checked_mul(millis_each) {
        Some(0) => Err("must be greater than 0".to_owned()),
        Some(millis) if millis <= LONGEST_MILLIS => Ok(Duration::from_millis(millis)),
        _ => Err("must be less than a thousand years".to_owned()),
    }
}

/// How often to look at servers: often enough to be of use, and no burden to them.
pub(crate) fn interval(text: &str) -> Result<Duration, String> {
    let interval = duration(text)?;
    if (Duration::from_millis(200)..=Duration::from_secs(3600)).contains(&interval) {
        Ok(interval)
    } else {
        Err("must be from 200ms to 1h".to_owned())
    }
}

/// A number of bytes, or of thousands or millions of them.
pub(crate) fn size(text: &str) -> Result<usize, String> {
    let unit_at = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(unit_at);
    let each = match unit {
        "" | "B" => Some(1),
        "k" | "kB" => Some(1000),
        "M" | "MB" => Some(1_000_000),
        _ => None,
    };
    let number: Option<usize> = number.parse().ok();
    number
        .zip(each)
        .and_then(|(number, each)| number.checked_mul(each))
        .ok_or_else(|| "expected something like 500, 64kB or 1MB".to_owned())
}

/// A part of the whole, from 0 to 1.
pub(crate) fn share(text: &str) -> Result<f64, String> {
    between(text, 1.0).ok_or_else(|| "expected a share from 0 to 1 such as 0.9".to_owned())
}

/// An exponent of Zipf's law.
pub(crate) fn skew(text: &str) -> Result<f64, String> {
    between(text, 10.0).ok_or_else(|| "expected a number from 0 to 10 such as 0.8".to_owned())
}

fn between(text: &str, most: f64) -> Option<f64> {
    let number: f64 = text.parse().ok()?;
    (0.0..=most).contains(&number).then_some(number)
}
