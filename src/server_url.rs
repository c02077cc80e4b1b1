//! The addresses of the two servers, parsed strictly and printed without their passwords.
//!
//! lapin's and redis' own parsers are lenient where a user wants to be told: `amqp://[::1]` silently
//! becomes localhost, `amqp://host/` a vhost with an empty name, and lapin's type shows its password
//! in `Debug`; redis' takes `#insecure` for a wish to have no certificate checked. So both kinds are read
//! here, once, and `Display` and `Debug` never show a password.
//!
//! What it takes to connect goes along: how TLS is spoken, where the scheme asks for it, and whether it
//! was said that nothing is encrypted.

use std::fmt;
use std::str::FromStr;

use lapin::uri::{AMQPAuthority, AMQPQueryString, AMQPScheme, AMQPUri, AMQPUserInfo};
use percent_encoding::percent_decode_str;
use url::{Host, Url};

use crate::error::quote;
use crate::tls::Tls;
use crate::transport::PlainTextWarning;

/// In bytes. Larger bodies come in several frames.
const SMALL_FRAME: u32 = 8192;

/// A dead broker is noticed after two heartbeats.
const HEARTBEAT_SECONDS: u16 = 5;

/// A RabbitMQ address: `amqp://USER:PASSWORD@HOST:PORT/VHOST`, or several of them, separated by
/// commas: the nodes of one cluster, tried in a random order. `amqps://` speaks TLS, to all of them.
///
/// The parts may be left out: user and password default to `guest`, the port to 5672, by TLS to 5671,
/// and the vhost, also for a lone trailing slash, to `/` (written `%2f`). `?heartbeat=SECONDS` is 5 by
/// default; `frame_max` and `channel_max` are known as well. The password is never printed.
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
    has_password: bool,
    /// `None`: plain text.
    tls: Option<Tls>,
    warning: PlainTextWarning,
}

/// A Redis address: `redis://USER:PASSWORD@HOST:PORT/DATABASE`; `rediss://` speaks TLS.
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
    /// Without TLS, which is not redis-rs' concern.
    info: redis::ConnectionInfo,
    host: String,
    port: u16,
    shown: String,
    has_password: bool,
    /// `None`: plain text.
    tls: Option<Tls>,
    warning: PlainTextWarning,
}

/// One node of an [`AmqpUrl`], as it was read.
struct Node {
    uri: AMQPUri,
    shown: String,
    has_password: bool,
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

    /// How to speak TLS; `None`: in plain text.
    pub(crate) fn tls(&self) -> Option<&Tls> {
        self.tls.as_ref()
    }

    pub(crate) fn warning(&self) -> &PlainTextWarning {
        &self.warning
    }

    /// The same address with these certificates. Of no use for `amqp://`, which stays as it is.
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn with_tls(mut self, tls: Tls) -> Self {
        self.tls = self.tls.map(|_| tls);
        self
    }

    /// The same address with this password, for all nodes, where it does not stand in the address.
    /// Fails where another one does.
    pub fn with_password(mut self, password: &str) -> Result<Self, UrlError> {
        let theirs = self.nodes.iter().map(|node| &node.authority.userinfo);
        if self.has_password && theirs.into_iter().any(|user| user.password != password) {
            return Err(two_passwords(Self::EXAMPLE));
        }
        for node in &mut self.nodes {
            password.clone_into(&mut node.authority.userinfo.password);
        }
        self.has_password = true;
        Ok(self)
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

    fn node(text: &str) -> Result<Node, String> {
        let url = parse(text, "amqp", "amqps")?;
        let scheme = match url.scheme() {
            "amqps" => AMQPScheme::AMQPS,
            _ => AMQPScheme::AMQP,
        };
        let host = host(&url)?;
        let port = url.port().unwrap_or_else(|| scheme.default_port());
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
            "{}://{}@{}:{port}/{}",
            url.scheme(),
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
            scheme,
            authority: AMQPAuthority {
                userinfo: AMQPUserInfo { username, password },
                host,
                port,
            },
            vhost,
            query,
        };
        Ok(Node {
            uri,
            shown,
            has_password: url.password().is_some(),
        })
    }

    fn of_nodes(nodes: Vec<Node>) -> Result<Self, String> {
        let by_tls = |node: &Node| node.uri.scheme == AMQPScheme::AMQPS;
        let tls = match nodes.iter().filter(|node| by_tls(node)).count() {
            0 => None,
            all if all == nodes.len() => Some(default_tls("amqps")?),
            _ => return Err("either all nodes speak TLS (amqps://), or none".to_owned()),
        };
        let shown: Vec<_> = nodes.iter().map(|node| node.shown.as_str()).collect();
        Ok(Self {
            shown: shown.join(","),
            has_password: nodes.iter().any(|node| node.has_password),
            nodes: nodes.into_iter().map(|node| node.uri).collect(),
            tls,
            warning: PlainTextWarning::default(),
        })
    }
}

impl RedisUrl {
    const EXAMPLE: &str = "redis://user:password@host:6379/0";

    /// What redis-rs has to know. It is not to connect by it: it knows nothing of TLS.
    pub(crate) fn info(&self) -> redis::ConnectionInfo {
        // The name of a library, in CLIENT LIST, is not worth a round trip of every command.
        let login = self.info.redis_settings().clone().set_skip_set_lib_name();
        self.info.clone().set_redis_settings(login)
    }

    /// The host and its port.
    pub(crate) fn host(&self) -> (&str, u16) {
        (&self.host, self.port)
    }

    /// How to speak TLS; `None`: in plain text.
    pub(crate) fn tls(&self) -> Option<&Tls> {
        self.tls.as_ref()
    }

    pub(crate) fn warning(&self) -> &PlainTextWarning {
        &self.warning
    }

    /// The same address with these certificates. Of no use for `redis://`, which stays as it is.
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn with_tls(mut self, tls: Tls) -> Self {
        self.tls = self.tls.map(|_| tls);
        self
    }

    /// The same address with this password, where it does not stand in the address. Fails where another
    /// one does.
    pub fn with_password(mut self, password: &str) -> Result<Self, UrlError> {
        let login = self.info.redis_settings().clone();
        if self.has_password && login.password() != Some(password) {
            return Err(two_passwords(Self::EXAMPLE));
        }
        self.info = self.info.set_redis_settings(login.set_password(password));
        self.has_password = true;
        Ok(self)
    }

    pub(crate) fn user(&self) -> &str {
        let user = self.info.redis_settings().username();
        user.unwrap_or("default")
    }
}

impl FromStr for AmqpUrl {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, UrlError> {
        let nodes: Result<Vec<_>, _> = text.split(',').map(Self::node).collect();
        nodes.and_then(Self::of_nodes).map_err(|reason| UrlError {
            reason,
            example: Self::EXAMPLE,
        })
    }
}

impl FromStr for RedisUrl {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, UrlError> {
        let refuse = |reason: String| UrlError {
            reason,
            example: Self::EXAMPLE,
        };
        let mut url = parse(text, "redis", "rediss").map_err(refuse)?;
        let host = host(&url).map_err(refuse)?;
        let database = match url.path() {
            "" | "/" => 0,
            path => path[1..].parse::<u32>().map_err(|_| {
                refuse("the part after the host is the database, a number".to_owned())
            })?,
        };
        let port = url.port().unwrap_or(6379);
        let user = match url.username() {
            "" => String::new(),
            name => format!("{name}@"),
        };
        let shown = format!(
            "{}://{user}{}:{port}/{database}",
            url.scheme(),
            url.host_str().unwrap_or_default(),
        );
        let tls = match url.scheme() {
            "rediss" => Some(default_tls("rediss").map_err(refuse)?),
            _ => None,
        };
        // The only change of scheme that cannot fail is one between two that mean nothing to the parser.
        if url.set_scheme("redis").is_err() {
            return Err(refuse("it does not start with redis://".to_owned()));
        }
        // redis-rs names the URL in none of its errors' details; the reason is enough.
        let info = redis::IntoConnectionInfo::into_connection_info(url.as_str())
            .map_err(|error| refuse(error.to_string()))?;
        Ok(Self {
            host,
            port,
            shown,
            has_password: info.redis_settings().password().is_some(),
            info,
            tls,
            warning: PlainTextWarning::default(),
        })
    }
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
mod tests;
