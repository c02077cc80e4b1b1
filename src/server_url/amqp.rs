//! RabbitMQ's address: one node, or several of a cluster.

use std::fmt;
use std::str::FromStr;

use lapin::uri::{AMQPAuthority, AMQPQueryString, AMQPScheme, AMQPUri, AMQPUserInfo};
use url::Url;

use super::preference::Preference;
use super::unknown_parameter;
use super::{UrlError, decode, default_tls, host, parse, scheme, set_once, two_passwords};
use crate::error::quote;
use crate::tls::Tls;
use crate::transport::{Endpoint, PlainTextWarning};

/// Frame size of a connection for one call, in bytes. Larger bodies are split into several frames.
const SMALL_FRAME: u32 = 8192;

/// The smallest frame size that AMQP allows to agree on, in bytes.
const MIN_FRAME: u32 = 4096;

/// Bytes in a vhost's name: AMQP encodes its length in one byte.
const MAX_VHOST: usize = 255;

/// Default heartbeat interval. A dead broker is noticed after two intervals.
const HEARTBEAT_SECONDS: u16 = 5;

/// A RabbitMQ address: `amqp://USER:PASSWORD@HOST:PORT/VHOST`, or with TLS `amqps://`.
///
/// Several addresses, separated by commas, name the nodes of one cluster. They are tried in a random order, which is
/// drawn once for an address and its clones; nodes that did not answer lately are tried last.
///
/// All parts but the host are optional: user and password default to `guest`, the port to 5672 (5671 with TLS),
/// and the vhost, also for a trailing slash alone, to `/` (written `%2f`). Parameters: `?heartbeat=SECONDS`, 5 by
/// default, `frame_max` and `channel_max`. The password is never printed.
///
/// ```
/// let url: rpcache::AmqpUrl = "amqp://anna:secret@rabbit/prod".parse().unwrap();
/// assert_eq!(url.to_string(), "amqp://anna@rabbit:5672/prod");
/// ```
#[derive(Clone)]
pub struct AmqpUrl {
    /// At least one.
    nodes: Vec<AMQPUri>,
    preference: Preference,
    shown: String,
    has_password: bool,
    /// `None`: plain text.
    tls: Option<Tls>,
    warning: PlainTextWarning,
}

/// One parsed node of an [`AmqpUrl`].
struct Node {
    uri: AMQPUri,
    shown: String,
    has_password: bool,
}

impl AmqpUrl {
    const EXAMPLE: &str = "amqp://user:password@host:5672/vhost";

    /// The nodes in the order in which to try them.
    pub(crate) fn nodes(&self) -> Vec<AMQPUri> {
        let order = self.preference.order().into_iter();
        order.map(|node| self.nodes[node].clone()).collect()
    }

    /// Whether this node is the one to be connected to while all can be reached.
    pub(crate) fn prefers(&self, node: &Endpoint) -> bool {
        let first = self.preference.first();
        first.is_none_or(|first| endpoint(&self.nodes[first]) == *node)
    }

    /// This address with its preferred node alone.
    pub(crate) fn preferred(&self) -> Self {
        let first = self.preference.first();
        self.only(|number, _| Some(number) == first)
    }

    /// This address with one of its nodes alone.
    pub(crate) fn at(&self, node: &Endpoint) -> Self {
        self.only(|_, uri| endpoint(uri) == *node)
    }

    /// This address without one of its nodes; there may be none left.
    pub(crate) fn without(&self, node: &Endpoint) -> Self {
        self.only(|_, uri| endpoint(uri) != *node)
    }

    /// This address with some of its nodes alone.
    fn only(&self, keep: impl Fn(usize, &AMQPUri) -> bool) -> Self {
        let nodes = self.nodes.iter().enumerate();
        let kept: Vec<_> = nodes
            .filter(|(number, uri)| keep(*number, uri))
            .map(|(number, _)| number)
            .collect();
        Self {
            preference: self.preference.of(&kept),
            nodes: kept
                .iter()
                .map(|&number| self.nodes[number].clone())
                .collect(),
            ..self.clone()
        }
    }

    /// Notes that a node does not answer: it is tried last for a while.
    pub(crate) fn mark_silent(&self, node: &Endpoint) {
        self.mark(node, true);
    }

    /// Notes that a node answers again.
    pub(crate) fn mark_answering(&self, node: &Endpoint) {
        self.mark(node, false);
    }

    fn mark(&self, node: &Endpoint, is_silent: bool) {
        for (number, uri) in self.nodes.iter().enumerate() {
            if endpoint(uri) == *node {
                self.preference.mark(number, is_silent);
            }
        }
    }

    /// The endpoints of all nodes, in the order of the address.
    pub(crate) fn endpoints(&self) -> Vec<Endpoint> {
        self.nodes.iter().map(endpoint).collect()
    }

    /// TLS settings; `None`: plain text.
    pub(crate) fn tls(&self) -> Option<&Tls> {
        self.tls.as_ref()
    }

    pub(crate) fn warning(&self) -> &PlainTextWarning {
        &self.warning
    }

    /// Uses these certificates. Changes nothing for `amqp://`.
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn with_tls(mut self, tls: Tls) -> Self {
        self.tls = self.tls.map(|_| tls);
        self
    }

    /// Uses this password for all nodes. Fails if the address contains another one.
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

    /// User and password of the first node.
    #[cfg(feature = "management")]
    pub(crate) fn first_login(&self) -> (String, String) {
        let user = self.nodes.first().map(|node| &node.authority.userinfo);
        user.map(|user| (user.username.clone(), user.password.clone()))
            .unwrap_or_default()
    }

    /// The vhost; nodes of one cluster have the same.
    #[cfg(feature = "management")]
    pub(crate) fn vhost(&self) -> &str {
        self.nodes.first().map_or("/", |node| &node.vhost)
    }

    /// Uses frames of 8 kB, unless the address sets a frame size: for a connection that carries one call. lapin
    /// allocates and zeroes buffers of 64 frames, which with large ones takes longer than the call itself.
    pub(crate) fn with_small_frames(&self) -> Self {
        let mut small = self.clone();
        for node in &mut small.nodes {
            node.query.frame_max.get_or_insert(SMALL_FRAME);
        }
        small
    }

    fn read(text: &str) -> Result<Self, String> {
        let parts: Vec<_> = text.split(',').map(str::trim).collect();
        let is_whole = |part: &&str| matches!(scheme(part), Some((scheme, _)) if is_known(&scheme));
        if !parts.first().is_some_and(is_whole) {
            return Err("it does not start with amqp:// or amqps://".to_owned());
        }
        if !parts.iter().all(is_whole) {
            return Err(
                "each node needs a complete address (amqp://HOST1/VHOST,amqp://HOST2/VHOST), and a , \
                 inside a user, password or vhost must be written %2c"
                    .to_owned(),
            );
        }
        let nodes: Result<Vec<_>, _> = parts.into_iter().map(Self::node).collect();
        Self::of_nodes(nodes?)
    }

    fn node(text: &str) -> Result<Node, String> {
        let url = parse(text)?;
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
                return Err("a slash inside the vhost's name must be written %2f".to_owned());
            }
            path => decode(&path[1..])?,
        };
        if vhost.len() > MAX_VHOST {
            return Err(format!(
                "the vhost has {} bytes; at most {MAX_VHOST} are allowed",
                vhost.len()
            ));
        }
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
            _ => return Err("either all nodes must use TLS (amqps://), or none".to_owned()),
        };
        let shown: Vec<_> = nodes.iter().map(|node| node.shown.as_str()).collect();
        Ok(Self {
            shown: shown.join(","),
            has_password: nodes.iter().any(|node| node.has_password),
            preference: Preference::draw(nodes.len()),
            nodes: nodes.into_iter().map(|node| node.uri).collect(),
            tls,
            warning: PlainTextWarning::default(),
        })
    }
}

impl FromStr for AmqpUrl {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, UrlError> {
        Self::read(text.trim()).map_err(|reason| UrlError {
            reason,
            example: Self::EXAMPLE,
        })
    }
}

/// The endpoint of a node.
pub(crate) fn endpoint(node: &AMQPUri) -> Endpoint {
    Endpoint::Tcp {
        host: node.authority.host.clone(),
        port: node.authority.port,
    }
}

fn is_known(scheme: &str) -> bool {
    ["amqp", "amqps"].contains(&scheme)
}

fn amqp_query(url: &Url) -> Result<AMQPQueryString, String> {
    let mut query = AMQPQueryString::default();
    for (name, value) in url.query_pairs() {
        match name.as_ref() {
            "heartbeat" => set_once(&mut query.heartbeat, &name, &value)?,
            "frame_max" => {
                set_once(&mut query.frame_max, &name, &value)?;
                if query
                    .frame_max
                    .is_some_and(|max| (1..MIN_FRAME).contains(&max))
                {
                    return Err(format!(
                        "?frame_max= must be 0 (no limit) or at least {MIN_FRAME}"
                    ));
                }
            }
            "channel_max" => set_once(&mut query.channel_max, &name, &value)?,
            _ => {
                let known = "?heartbeat=, ?frame_max=, ?channel_max=";
                return Err(unknown_parameter(&name, known));
            }
        }
    }
    query.heartbeat.get_or_insert(HEARTBEAT_SECONDS);
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
