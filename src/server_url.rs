//! The addresses of the two servers, parsed strictly and printed without their passwords.
//!
//! lapin's and redis' own parsers are lenient where a user wants to be told: `amqp://[::1]` silently
//! becomes localhost, `amqp://host/` a vhost with an empty name, and lapin's type shows its password
//! in `Debug`; redis' takes `#insecure` for a wish to have no certificate checked, and ignores the
//! parameters that it does not know. So both kinds are read here, once; what is not understood is refused
//! by name; `Display` and `Debug` never show a password.
//!
//! What it takes to connect goes along: how TLS is spoken, where the scheme asks for it, and whether it
//! was said that nothing is encrypted.

mod amqp;
mod redis;

use percent_encoding::percent_decode_str;
use url::{Host, Url};

pub use self::amqp::AmqpUrl;
pub(crate) use self::amqp::endpoint;
pub use self::redis::RedisUrl;

use crate::tls::Tls;

/// Why an address cannot be used. The address itself is not repeated: it may hold a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}; expected something like {example}")]
pub struct UrlError {
    reason: String,
    example: &'static str,
}

/// The scheme in lower case and what follows its `://`. `None`: there is no scheme.
fn scheme(text: &str) -> Option<(String, &str)> {
    let (scheme, rest) = text.split_once("://")?;
    Some((scheme.to_ascii_lowercase(), rest))
}

/// Reads an address whose scheme is known.
fn parse(text: &str) -> Result<Url, String> {
    // The standard for URLs leaves them out without a word.
    if text.contains(char::is_control) {
        return Err("it has a control character, such as a line's end, inside".to_owned());
    }
    if let Some((_, rest)) = scheme(text) {
        login_ends_at_the_host(rest)?;
    }
    let url = Url::parse(text).map_err(|error| error.to_string())?;
    match url.fragment() {
        None => Ok(url),
        // To redis-rs it means that no certificate is checked.
        Some("insecure") => {
            Err("#insecure is not known here: certificates are always checked".to_owned())
        }
        Some(_) => Err("a # inside it is written %23".to_owned()),
    }
}

/// Refuses a password that is cut short by a character of it: the rest would be taken for a path, and
/// shown.
fn login_ends_at_the_host(rest: &str) -> Result<(), String> {
    let Some((login, _)) = rest.rsplit_once('@') else {
        return Ok(());
    };
    let raw: Vec<_> = [("/", "%2f"), ("?", "%3f"), ("#", "%23")]
        .into_iter()
        .filter(|(character, _)| login.contains(character))
        .map(|(character, code)| format!("{character} is written {code}"))
        .collect();
    if raw.is_empty() {
        return Ok(());
    }
    Err(format!(
        "in a user or password {}; after the host, @ is written %40",
        raw.join(", ")
    ))
}

/// Keeps the value of a parameter, which is given once.
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
        "?{}= is not known here; known: {known}",
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
        reason: "it has a password, and another one is given beside it: leave one out".to_owned(),
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
        .map_err(|_| {
            "a part of it is not UTF-8 once decoded; a % in a user or password is written %25"
                .to_owned()
        })
}

#[cfg(test)]
mod tests;
