//! The addresses of the two servers, parsed strictly and printed without their passwords.
//!
//! lapin's and redis' own parsers are lenient where a user wants to be told: `amqp://[::1]` silently
//! becomes localhost, `amqp://host/` a vhost with an empty name, and lapin's type shows its password
//! in `Debug`; redis' takes `#insecure` for a wish to have no certificate checked. So both kinds are read
//! here, once, and `Display` and `Debug` never show a password.
//!
//! What it takes to connect goes along: how TLS is spoken, where the scheme asks for it, and whether it
//! was said that nothing is encrypted.

mod amqp;
mod redis;

use percent_encoding::percent_decode_str;
use url::{Host, Url};

pub use self::amqp::AmqpUrl;
pub use self::redis::RedisUrl;

use crate::tls::Tls;

/// Why an address cannot be used. The address itself is not repeated: it may hold a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}; expected something like {example}")]
pub struct UrlError {
    reason: String,
    example: &'static str,
}

fn parse(text: &str, scheme: &str, with_tls: &str) -> Result<Url, String> {
    let url = Url::parse(text.trim()).map_err(|error| match error {
        url::ParseError::RelativeUrlWithoutBase => format!("it does not start with {scheme}://"),
        error => error.to_string(),
    })?;
    if ![scheme, with_tls].contains(&url.scheme()) || url.cannot_be_a_base() {
        return Err(format!(
            "it does not start with {scheme}:// or {with_tls}://"
        ));
    }
    match url.fragment() {
        None => Ok(url),
        // To redis-rs it means that no certificate is checked.
        Some("insecure") => {
            Err("#insecure is not known here: certificates are always checked".to_owned())
        }
        Some(_) => Err("a # inside it is written %23".to_owned()),
    }
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
        reason: "it has a password, and another one is given beside it: leave one away".to_owned(),
        example,
    }
}

/// The host as name resolution wants it: an IPv6 address without its brackets.
fn host(url: &Url) -> Result<String, String> {
    match url.host() {
        Some(Host::Domain(name)) if !name.is_empty() => decode(name),
        Some(Host::Ipv4(address)) => Ok(address.to_string()),
        Some(Host::Ipv6(address)) => Ok(address.to_string()),
        _ => Err("it names no host".to_owned()),
    }
}

fn decode(part: &str) -> Result<String, String> {
    percent_decode_str(part)
        .decode_utf8()
        .map(std::borrow::Cow::into_owned)
        .map_err(|_| "a part of it is not UTF-8 once decoded".to_owned())
}

#[cfg(test)]
mod tests;
