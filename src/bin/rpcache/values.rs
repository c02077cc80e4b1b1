//! Values as they are typed: numbers and ranges of them, durations.

use std::net::SocketAddr;
use std::str::FromStr;
use std::time::Duration;

use rpcache::fibonacci::{N, ParseError};

/// A number or an inclusive range of them, as typed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Asked {
    first: u64,
    last: u64,
    is_range: bool,
}

impl Asked {
    pub(crate) fn numbers(self) -> impl Iterator<Item = N> {
        (self.first..=self.last).map(N)
    }

    /// Whether the answers need their arguments beside them: more than one number was asked for, or
    /// could have been.
    pub(crate) fn are_many(asked: &[Self]) -> bool {
        asked.len() > 1 || asked.iter().any(|asked| asked.is_range)
    }
}

impl FromStr for Asked {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let Some((first, last)) = text.split_once("..") else {
            let N(only) = text
                .parse()
                .map_err(|error: ParseError| error.to_string())?;
            return Ok(Self {
                first: only,
                last: only,
                is_range: false,
            });
        };
        let (Ok(N(first)), Ok(N(last))) = (first.parse(), last.parse()) else {
            return Err(format!(
                "{text:?} is no range of whole numbers such as 0..100"
            ));
        };
        if first > last {
            return Err(format!(
                "{text:?} is an empty range, {last}..{first} is not"
            ));
        }
        Ok(Self {
            first,
            last,
            is_range: true,
        })
    }
}

/// Where to listen.
pub(crate) fn address(text: &str) -> Result<SocketAddr, String> {
    let text = match text.strip_prefix("localhost:") {
        Some(port) => &format!("127.0.0.1:{port}"),
        None => text,
    };
    text.parse()
        .map_err(|_| "expected an address and a port, such as 127.0.0.1:9464".to_owned())
}

/// What to ask for: typed, or to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Input {
    Asked(Asked),
    /// `-`: from stdin.
    Stdin,
}

impl Input {
    pub(crate) fn are_many(inputs: &[Self]) -> bool {
        match inputs {
            [Self::Asked(asked)] => asked.is_range,
            _ => true,
        }
    }

    /// How many numbers, where it can be told.
    pub(crate) fn count(inputs: &[Self]) -> Option<u64> {
        let each = |input: &Self| match input {
            Self::Asked(asked) => (asked.last - asked.first).checked_add(1),
            Self::Stdin => None,
        };
        inputs
            .iter()
            .map(each)
            .try_fold(0_u64, |sum, count| sum.checked_add(count?))
    }
}

impl FromStr for Input {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "-" => Ok(Self::Stdin),
            text => text.parse().map(Self::Asked),
        }
    }
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
        Some(0) => Err("it must be more than nothing".to_owned()),
        Some(millis) if millis <= LONGEST_MILLIS => Ok(Duration::from_millis(millis)),
        _ => Err("it must be less than a thousand years".to_owned()),
    }
}

/// How often to look at servers: often enough to be of use, and no burden to them.
pub(crate) fn interval(text: &str) -> Result<Duration, String> {
    let interval = duration(text)?;
    if (Duration::from_millis(200)..=Duration::from_secs(3600)).contains(&interval) {
        Ok(interval)
    } else {
        Err("it must be from 200ms to 1h".to_owned())
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
