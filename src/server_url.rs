//! Addresses of RabbitMQ and Redis: parsed strictly, printed without their passwords.
//!
//! lapin's and redis-rs' own parsers accept what should be an error: `amqp://[::1]` silently becomes localhost,
//! `amqp://host/` a vhost with an empty name; `#insecure` turns off redis-rs' check of certificates, and unknown
//! parameters are ignored. lapin's type also shows the password in `Debug`. So both kinds are parsed here, and
//! errors name the part that is wrong. `Display` and `Debug` never show a password.
//!
//! An address also carries its TLS settings, and whether the warning about plain text was logged.

mod amqp;
#[cfg(feature = "management")]
mod management;
mod preference;
mod redis;

use percent_encoding::percent_decode_str;
use url::{Host, Url};

pub use self::amqp::AmqpUrl;
pub(crate) use self::amqp::endpoint;
#[cfg(feature = "management")]
pub use self::management::ManagementUrl;
pub use self::redis::RedisUrl;

use crate::tls::Tls;

/// Why an address is invalid. Does not repeat the address, which may hold a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}; expected something like {example}")]
pub struct UrlError {
    reason: String,
    example: &'static str,
}

/// Splits an address into the scheme, in lower case, and what follows `://`. `None`: it has no scheme.
fn scheme(text: &str) -> Option<(String, &str)> {
    let (scheme, rest) = text.split_once("://")?;
    Some((scheme.to_ascii_lowercase(), rest))
}

/// Parses an address whose scheme is known.
fn parse(text: &str) -> Result<Url, String> {
    // The URL standard removes them silently.
    if text.contains(char::is_control) {
        return Err("it contains a control character, such as a line break".to_owned());
    }
    if let Some((_, rest)) = scheme(text) {
        login_ends_at_the_host(rest)?;
    }
    let url = Url::parse(text).map_err(|error| error.to_string())?;
    match url.fragment() {
        None => Ok(url),
        // redis-rs' option to check no certificate.
        Some("insecure") => {
            Err("#insecure is not supported: certificates are always checked".to_owned())
        }
        Some(_) => Err("a # inside it must be written %23".to_owned()),
    }
}

/// Refuses a user or password with a raw `/`, `?` or `#`: the rest of the password would be parsed as a path,
/// and shown.
fn login_ends_at_the_host(rest: &str) -> Result<(), String> {
    let Some((login, _)) = rest.rsplit_once('@') else {
        return Ok(());
    };
    let raw: Vec<_> = [("/", "%2f"), ("?", "%3f"), ("#", "%23")]
        .into_iter()
        .filter(|(character, _)| login.contains(character))
        .map(|(character, code)| format!("{character} must be written {code}"))
        .collect();
    if raw.is_empty() {
        return Ok(());
    }
    Err(format!(
        "in a user or password, {}; after the host, @ must be written %40",
        raw.join(", ")
    ))
}

/// Parses the value of a parameter. Fails if the parameter is repeated.
fn set_once<T: std::str::FromStr>(
    kept: &mut Option<T>,
    name: &str,
    value: &str,
) -> Result<(), String> {
    if kept.is_some() {
        return Err(format!("?{name}= is given twice"));
    }
    let value = value.parse();
    *kept = Some(value.map_err(|_| format!("the value of ?{name}= is not a number in range"))?);
    Ok(())
}

fn unknown_parameter(name: &str, known: &str) -> String {
    format!(
        "unknown parameter ?{}=; known: {known}",
        name.escape_debug()
    )
}

#[cfg(feature = "tls")]
#[expect(clippy::unnecessary_wraps, reason = "as without the feature")]
fn default_tls(_: &str) -> Result<Tls, String> {
    Ok(Tls::default())
}

#[cfg(not(feature = "tls"))]
fn default_tls(scheme: &str) -> Result<Tls, String> {
    Err(format!(
        "{scheme}:// needs TLS, which this program was built without (feature `tls`)"
    ))
}

fn two_passwords(example: &'static str) -> UrlError {
    UrlError {
        reason: "it contains a password, and another one is given separately: leave one out"
            .to_owned(),
        example,
    }
}

/// The host as name resolution takes it: an IPv6 address without its brackets.
fn host(url: &Url) -> Result<String, String> {
    match url.host() {
        Some(Host::Domain(name)) if !name.is_empty() => decode(name),
        Some(Host::Ipv4(address)) => Ok(address.to_string()),
        Some(Host::Ipv6(address)) => Ok(address.to_string()),
        _ => Err("it has no host".to_owned()),
    }
}

fn decode(part: &str) -> Result<String, String> {
    percent_decode_str(part)
        .decode_utf8()
        .map(std::borrow::Cow::into_owned)
        .map_err(|_| {
            "a part of it is not UTF-8 once decoded; a % in a user or password must be written %25"
                .to_owned()
        })
}

#[cfg(test)]
mod tests;
