//! Parses values of options: durations, sizes, shares, addresses, patterns.

use std::net::SocketAddr;
use std::str::FromStr;
use std::time::Duration;

use rpcache::inspect::{KeyPattern, KeyPatternError};

/// Parses an address and a port; `localhost` is 127.0.0.1.
pub(crate) fn address(text: &str) -> Result<SocketAddr, String> {
    let text = match text.strip_prefix("localhost:") {
        Some(port) => &format!("127.0.0.1:{port}"),
        None => text,
    };
    text.parse()
        .map_err(|_| "expected an address and a port, such as 127.0.0.1:9464".to_owned())
}

/// A TTL: a duration, or `none` for ever.
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

/// A thousand years: longer durations overflow clocks and Redis.
const MAX_MILLIS: u64 = 1000 * 365 * 24 * 60 * 60 * 1000;

/// Parses the name of a variable that programs get: none that may hold a password of rpcache's.
pub(crate) fn variable(name: &str) -> Result<String, String> {
    const OWN: [&str; 4] = ["AMQP_URL", "AMQP_PASSWORD", "REDIS_URL", "REDIS_PASSWORD"];
    if OWN.contains(&name) {
        return Err(
            "it may hold a password of rpcache's: give the program a variable of another name"
                .to_owned(),
        );
    }
    if name.is_empty() || name.contains(['=', '\0']) {
        return Err(
            "expected the name of a variable; its value is taken from rpcache's own environment"
                .to_owned(),
        );
    }
    Ok(name.to_owned())
}

/// Parses a number with a unit; without a unit, it is seconds.
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
        Some(millis) if millis <= MAX_MILLIS => Ok(Duration::from_millis(millis)),
        _ => Err("must be less than a thousand years".to_owned()),
    }
}

/// Parses an interval of `top`. Its limits keep the load on the servers low.
pub(crate) fn interval(text: &str) -> Result<Duration, String> {
    let interval = duration(text)?;
    if (Duration::from_millis(200)..=Duration::from_secs(3600)).contains(&interval) {
        Ok(interval)
    } else {
        Err("must be from 200ms to 1h".to_owned())
    }
}

/// Parses a size: bytes, kB or MB.
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

/// Parses a size greater than 0.
pub(crate) fn positive_size(text: &str) -> Result<usize, String> {
    match size(text)? {
        0 => Err("must be greater than 0".to_owned()),
        size => Ok(size),
    }
}

/// A glob for keys, with or without their prefix: `1*`, `fib:1*`, `prod:fib:1*`.
#[derive(Debug, Clone)]
pub(crate) struct Pattern(KeyPattern);

impl Pattern {
    /// The glob for what follows the first of these prefixes that it has, or for the whole of it.
    pub(crate) fn after(self, prefixes: &[String]) -> Result<KeyPattern, String> {
        let typed = self.0.to_string();
        let rest = prefixes
            .iter()
            .find_map(|prefix| typed.strip_prefix(prefix));
        rest.map_or(Ok(self.0), |rest| {
            let parsed = rest.parse();
            parsed.map_err(|error: KeyPatternError| format!("{typed:?}: {error}"))
        })
    }
}

impl FromStr for Pattern {
    type Err = KeyPatternError;

    fn from_str(text: &str) -> Result<Self, KeyPatternError> {
        text.parse().map(Self)
    }
}

/// Parses a share from 0 to 1.
pub(crate) fn share(text: &str) -> Result<f64, String> {
    between(text, 1.0).ok_or_else(|| "expected a share from 0 to 1 such as 0.9".to_owned())
}

/// Parses an exponent of Zipf's law.
pub(crate) fn skew(text: &str) -> Result<f64, String> {
    between(text, 10.0).ok_or_else(|| "expected a number from 0 to 10 such as 0.8".to_owned())
}

fn between(text: &str, max: f64) -> Option<f64> {
    let number: f64 = text.parse().ok()?;
    (0.0..=max).contains(&number).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_may_have_the_prefix_of_its_keys() {
        let prefixes = ["prod:fib:", "fib:"].map(str::to_owned);
        let glob = |typed: &str| {
            let pattern: Pattern = typed.parse().expect("it is short");
            pattern.after(&prefixes).map(|glob| glob.to_string())
        };
        for typed in ["3*", "fib:3*", "prod:fib:3*"] {
            assert_eq!(glob(typed), Ok("3*".to_owned()), "{typed}");
        }
        assert_eq!(glob("other:3*"), Ok("other:3*".to_owned()));
        assert!(glob("fib:").is_err_and(|reason| reason.starts_with("\"fib:\"")));
    }

    #[test]
    fn a_size_that_must_be_positive_is_not_0() {
        assert_eq!(size("0"), Ok(0));
        assert_eq!(
            positive_size("0kB"),
            Err("must be greater than 0".to_owned())
        );
        assert_eq!(positive_size("64kB"), Ok(64_000));
    }
}
