//! The addresses of the two servers, parsed strictly and printed without their passwords.
//!
//! lapin's and redis' own parsers are lenient where a user wants to be told: `amqp://[::1]` silently
//! becomes localhost, `amqp://host/` a vhost with an empty name, and lapin's type shows its password
//! in `Debug`. So both kinds are read here, once, and `Display` and `Debug` never show a password.

use std::fmt;
use std::str::FromStr;

use lapin::uri::{AMQPAuthority, AMQPQueryString, AMQPScheme, AMQPUri, AMQPUserInfo};
use percent_encoding::percent_decode_str;
use url::{Host, Url};

use crate::error::quote;

/// In bytes. Larger bodies come in several frames.
const SMALL_FRAME: u32 = 8192;

/// A dead broker is noticed after two heartbeats.
const HEARTBEAT_SECONDS: u16 = 5;

/// A RabbitMQ address: `amqp://USER:PASSWORD@HOST:PORT/VHOST`, or several of them, separated by
/// commas: the nodes of one cluster, tried in a random order.
///
/// The parts may be left out: user and password default to `guest`, the port to 5672 and the vhost,
/// also for a lone trailing slash, to `/` (written `%2f`). `?heartbeat=SECONDS` is 5 by default;
/// `frame_max` and `channel_max` are known as well. The password is never printed.
///
/// ```
/// let url: rpcache::AmqpUrl = "amqp://anna:secret@rabbit/prod".parse().unwrap();
/// assert_eq!(url.to_string(), "amqp://anna@rabbit:5672/prod");
/// ```
#[derive(Clone)]
pub struct AmqpUrl {
    /// One at least.
    nodes: Vec<AMQPUri>,
    shown: String,
}

/// A Redis address: `redis://USER:PASSWORD@HOST:PORT/DATABASE`.
///
/// The parts may be left out: the port defaults to 6379 and the database to 0. The password is
/// never printed.
///
/// ```
/// let url: rpcache::RedisUrl = "redis://:secret@cache/1".parse().unwrap();
/// assert_eq!(url.to_string(), "redis://cache:6379/1");
/// ```
#[derive(Clone)]
pub struct RedisUrl {
    info: redis::ConnectionInfo,
    shown: String,
}

/// Why an address cannot be used. The address itself is not repeated: it may hold a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}; expected something like {example}")]
pub struct UrlError {
    reason: String,
    example: &'static str,
}

impl AmqpUrl {
    const EXAMPLE: &str = "amqp://user:password@host:5672/vhost";

    /// The nodes, in the order in which to try them this time.
    pub(crate) fn nodes(&self) -> Vec<AMQPUri> {
        let mut nodes = self.nodes.clone();
        fastrand::shuffle(&mut nodes);
        nodes
    }

    /// The hosts and ports of the nodes, in the order of the address.
    pub(crate) fn hosts(&self) -> Vec<(String, u16)> {
        let hosts = self.nodes.iter().map(|node| &node.authority);
        hosts.map(|node| (node.host.clone(), node.port)).collect()
    }

    pub(crate) fn user(&self) -> String {
        let user = self.nodes.first().map(|node| &node.authority.userinfo);
        user.map_or(String::new(), |user| quote(user.username.as_bytes()))
    }

    /// The same with frames of 8 kB, where the URL does not say otherwise: for a connection that
    /// carries one call. What a connection sets aside in memory grows with its frames, and filling
    /// that takes longer than all the rest of one call.
    pub(crate) fn with_small_frames(&self) -> Self {
        let mut small = self.clone();
        for node in &mut small.nodes {
            node.query.frame_max.get_or_insert(SMALL_FRAME);
        }
        small
    }

    fn node(text: &str) -> Result<(AMQPUri, String), String> {
        let url = parse(text, "amqp", "amqps")?;
        let host = host(&url)?;
        let port = url.port().unwrap_or(5672);
        let username = match url.username() {
            "" => "guest".to_owned(),
            name => decode(name)?,
        };
        let password = match url.password() {
            None => "guest".to_owned(),
            Some(password) => decode(password)?,
        };
        let vhost = match url.path() {
            "" | "/" => "/".to_owned(),
            path if path[1..].contains('/') => {
                return Err("a slash inside the vhost's name is written %2f".to_owned());
            }
            path => decode(&path[1..])?,
        };
        let query = amqp_query(&url)?;
        let shown = format!(
            "amqp://{}@{}:{port}/{}",
            if url.username().is_empty() {
                "guest"
            } else {
                url.username()
            },
            url.host_str().unwrap_or_default(),
            if vhost == "/" {
                "%2f"
            } else {
                &url.path()[1..]
            },
        );
        let uri = AMQPUri {
            scheme: AMQPScheme::AMQP,
            authority: AMQPAuthority {
                userinfo: AMQPUserInfo { username, password },
                host,
                port,
            },
            vhost,
            query,
        };
        Ok((uri, shown))
    }
}

impl RedisUrl {
    const EXAMPLE: &str = "redis://user:password@host:6379/0";

    pub(crate) fn info(&self) -> redis::ConnectionInfo {
        self.info.clone()
    }

    /// The host and its port.
    pub(crate) fn hosts(&self) -> Vec<(String, u16)> {
        match self.info.addr() {
            redis::ConnectionAddr::Tcp(host, port) => vec![(host.clone(), *port)],
            // No other kind of address is parsed.
            _ => Vec::new(),
        }
    }

    pub(crate) fn user(&self) -> &str {
        let user = self.info.redis_settings().username();
        user.unwrap_or("default")
    }
}

impl FromStr for AmqpUrl {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, UrlError> {
        let parsed: Result<Vec<_>, _> = text.split(',').map(Self::node).collect();
        let (nodes, shown): (_, Vec<_>) = parsed
            .map_err(|reason| UrlError {
                reason,
                example: Self::EXAMPLE,
            })?
            .into_iter()
            .unzip();
        let shown = shown.join(",");
        Ok(Self { nodes, shown })
    }
}

impl FromStr for RedisUrl {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, UrlError> {
        let refuse = |reason: String| UrlError {
            reason,
            example: Self::EXAMPLE,
        };
        let url = parse(text, "redis", "rediss").map_err(refuse)?;
        host(&url).map_err(refuse)?;
        let database = match url.path() {
            "" | "/" => 0,
            path => path[1..].parse::<u32>().map_err(|_| {
                refuse("the part after the host is the database, a number".to_owned())
            })?,
        };
        // redis-rs names the URL in none of its errors' details; the reason is enough.
        let info = redis::IntoConnectionInfo::into_connection_info(url.as_str())
            .map_err(|error| refuse(error.to_string()))?;
        let user = match url.username() {
            "" => String::new(),
            name => format!("{name}@"),
        };
        let shown = format!(
            "redis://{user}{}:{}/{database}",
            url.host_str().unwrap_or_default(),
            url.port().unwrap_or(6379),
        );
        Ok(Self { info, shown })
    }
}

fn parse(text: &str, scheme: &str, with_tls: &str) -> Result<Url, String> {
    let url = Url::parse(text.trim()).map_err(|error| match error {
        url::ParseError::RelativeUrlWithoutBase => format!("it does not start with {scheme}://"),
        error => error.to_string(),
    })?;
    if url.scheme() == with_tls {
        return Err(format!("{with_tls}:// (TLS) is not supported yet"));
    }
    if url.scheme() != scheme || url.cannot_be_a_base() {
        return Err(format!("it does not start with {scheme}://"));
    }
    Ok(url)
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

fn amqp_query(url: &Url) -> Result<AMQPQueryString, String> {
    let mut query = AMQPQueryString {
        heartbeat: Some(HEARTBEAT_SECONDS),
        ..AMQPQueryString::default()
    };
    for (name, value) in url.query_pairs() {
        let wrong = || format!("the value of ?{name}= is not a number in range");
        match name.as_ref() {
            "heartbeat" => query.heartbeat = Some(value.parse().map_err(|_| wrong())?),
            "frame_max" => query.frame_max = Some(value.parse().map_err(|_| wrong())?),
            "channel_max" => query.channel_max = Some(value.parse().map_err(|_| wrong())?),
            _ => return Err(format!("?{}= is not known here", name.escape_debug())),
        }
    }
    Ok(query)
}

impl fmt::Display for AmqpUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

impl fmt::Debug for AmqpUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

impl fmt::Debug for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_amqp_url_shows_everything_but_its_password() {
        for (text, shown, host, vhost) in [
            ("amqp://h", "amqp://guest@h:5672/%2f", "h", "/"),
            ("amqp://h/", "amqp://guest@h:5672/%2f", "h", "/"),
            ("amqp://u:s3cret@h:1/%2f", "amqp://u@h:1/%2f", "h", "/"),
            ("amqp://u:s3cret@h:1/v", "amqp://u@h:1/v", "h", "v"),
            (
                "amqp://u:s3cret@[::1]/v%2fw",
                "amqp://u@[::1]:5672/v%2fw",
                "::1",
                "v/w",
            ),
        ] {
            let url: AmqpUrl = text.parse().unwrap();
            assert_eq!(
                (url.to_string().as_str(), format!("{url:?}").as_str()),
                (shown, shown)
            );
            assert_eq!(
                (
                    url.nodes[0].authority.host.as_str(),
                    url.nodes[0].vhost.as_str()
                ),
                (host, vhost)
            );
        }
    }

    #[test]
    fn several_nodes_are_separated_by_commas() {
        let url: AmqpUrl = "amqp://u:s3cret@a,amqp://b:1/v".parse().unwrap();
        assert_eq!(url.to_string(), "amqp://u@a:5672/%2f,amqp://guest@b:1/v");
        assert_eq!(url.nodes().len(), 2);
    }

    #[test]
    fn a_malformed_url_is_refused_without_being_repeated() {
        for text in [
            "",
            "h",
            "localhost:5672",
            "http://u:s3cret@h",
            "amqp://",
            "amqp:u:s3cret@h",
            "amqp://u:s3cret@h:99999",
            "amqp://u:s3cret@h/?hartbeat=1",
            "amqps://u:s3cret@h",
            "amqp://u:s3cret@h/?heartbeat=x",
            "amqp://u:s3cret@h/a/b",
            "amqp://u:s3%ff@h",
            "amqp://u:s3cret@h,",
            "amqp://u:s3cret@h,b",
        ] {
            let error = text.parse::<AmqpUrl>().unwrap_err().to_string();
            assert!(!error.contains("s3"), "{text}: {error}");
        }
        for text in [
            "",
            "h",
            "redis://",
            "redis://:s3cret@h/x",
            "http://:s3cret@h",
            "rediss://h",
        ] {
            let error = text.parse::<RedisUrl>().unwrap_err().to_string();
            assert!(!error.contains("s3"), "{text}: {error}");
        }
    }

    #[test]
    fn a_redis_url_shows_everything_but_its_password() {
        for (text, shown) in [
            ("redis://h", "redis://h:6379/0"),
            ("redis://:s3cret@h:1/2", "redis://h:1/2"),
            ("redis://u:s3cret@[::1]:1", "redis://u@[::1]:1/0"),
        ] {
            let url: RedisUrl = text.parse().unwrap();
            assert_eq!(
                (url.to_string().as_str(), format!("{url:?}").as_str()),
                (shown, shown)
            );
        }
    }
}
