//! Redis' address: one server by host or Unix socket, the Sentinels that name it, or nodes of a cluster.

mod read;

use std::fmt;
use std::str::FromStr;

use redis::{ConnectionInfo, RedisConnectionInfo};

use super::{UrlError, scheme, two_passwords};
use crate::tls::Tls;
use crate::transport::{Endpoint, PlainTextWarning};

/// A Redis address, in one of these forms. The password is never printed.
///
/// | address | leads to |
/// | --- | --- |
/// | `redis://USER:PASSWORD@HOST:PORT/DATABASE` | one server |
/// | `unix:///PATH?db=DATABASE`, `redis+unix://…` | one server, by its Unix socket; `USER:PASSWORD@` stands before the path |
/// | `redis+sentinel://USER:PASSWORD@HOST1,HOST2/NAME/DATABASE` | the primary that Sentinels know by this name |
/// | `redis+cluster://USER:PASSWORD@HOST1,HOST2` | a Redis Cluster, through any of these nodes |
///
/// `rediss` in place of `redis` encrypts by TLS; `valkey` and `valkeys` are synonyms of both. Login, port and
/// database are optional: the port defaults to 6379, a Sentinel's to 26379, and the database to 0, which can
/// also be written `?db=DATABASE`. A login is Redis' own, written once; Sentinels have theirs in
/// `?sentinel-user=USER&sentinel-password=PASSWORD`, and `?sentinel-tls=no` or `=yes` where their encryption is
/// not the servers'. Other parameters are an error.
///
/// ```
/// let url: rpcache::RedisUrl = "redis://:secret@cache/1".parse().unwrap();
/// assert_eq!(url.to_string(), "redis://cache:6379/1");
/// let url: rpcache::RedisUrl = "redis+sentinel://:secret@s1,s2/fleet".parse().unwrap();
/// assert_eq!(url.to_string(), "redis+sentinel://s1:26379,s2:26379/fleet/0");
/// ```
#[derive(Clone)]
pub struct RedisUrl {
    /// Login and database. TLS is not redis-rs' task.
    info: ConnectionInfo,
    /// All that are written in the address: at least one.
    endpoints: Vec<Endpoint>,
    topology: Topology,
    shown: String,
    has_password: bool,
    /// `None`: plain text.
    tls: Option<Tls>,
    /// A name that the server's certificate may have in place of its host's.
    other_name: Option<String>,
    warning: PlainTextWarning,
}

/// What the endpoints of an address are.
#[derive(Clone)]
enum Topology {
    One,
    Sentinel(Sentinels),
    Cluster,
}

/// What is needed to ask Sentinels.
#[derive(Clone)]
struct Sentinels {
    /// The name by which they know the primary.
    primary: String,
    login: RedisConnectionInfo,
    tls: Option<Tls>,
}

impl RedisUrl {
    const EXAMPLE: &str = "redis://user:password@host:6379/0";
    const SOCKET_EXAMPLE: &str = "unix:///run/redis/redis.sock?db=0";
    const SENTINEL_EXAMPLE: &str = "redis+sentinel://user:password@host1,host2/primary-name/0";
    const CLUSTER_EXAMPLE: &str = "redis+cluster://user:password@host1,host2";

    /// Login and database for redis-rs. Not for connecting: it has no TLS settings.
    pub(crate) fn info(&self) -> ConnectionInfo {
        // CLIENT SETINFO would cost a round trip at every start of a command.
        let login = self.info.redis_settings().clone().set_skip_set_lib_name();
        self.info.clone().set_redis_settings(login)
    }

    /// The endpoints that are written in the address: the server, the Sentinels, or nodes of the cluster.
    pub(crate) fn endpoints(&self) -> &[Endpoint] {
        &self.endpoints
    }

    /// The endpoint of an address of one server.
    pub(crate) fn endpoint(&self) -> &Endpoint {
        &self.endpoints[0]
    }

    pub(crate) fn is_cluster(&self) -> bool {
        matches!(self.topology, Topology::Cluster)
    }

    /// The addresses of the Sentinels to ask, and the name of the primary.
    pub(crate) fn sentinels(&self) -> Option<(Vec<Self>, &str)> {
        let Topology::Sentinel(sentinels) = &self.topology else {
            return None;
        };
        let one = |endpoint: &Endpoint| Self {
            tls: sentinels.tls.clone(),
            info: self
                .info
                .clone()
                .set_redis_settings(sentinels.login.clone()),
            shown: format!("Sentinel {endpoint}"),
            ..self.node(endpoint.clone(), None)
        };
        Some((self.endpoints.iter().map(one).collect(), &sentinels.primary))
    }

    /// The address of one server behind this address, with its login, database and TLS. A certificate may
    /// also name the host `other_name`.
    pub(crate) fn node(&self, endpoint: Endpoint, other_name: Option<&str>) -> Self {
        let scheme = self.scheme();
        let login = self.info.redis_settings();
        let user = login
            .username()
            .map_or(String::new(), |user| format!("{}@", user.escape_debug()));
        Self {
            shown: format!("{scheme}://{user}{endpoint}/{}", login.db()),
            endpoints: vec![endpoint],
            topology: Topology::One,
            other_name: other_name.map(str::to_owned),
            ..self.clone()
        }
    }

    /// What the scheme of an address of this kind begins with.
    pub(crate) fn scheme(&self) -> &'static str {
        if self.tls.is_some() {
            "rediss"
        } else {
            "redis"
        }
    }

    /// TLS settings; `None`: plain text.
    pub(crate) fn tls(&self) -> Option<&Tls> {
        self.tls.as_ref()
    }

    /// TLS settings of the endpoints that are written in the address.
    pub(crate) fn first_tls(&self) -> Option<&Tls> {
        match &self.topology {
            Topology::Sentinel(sentinels) => sentinels.tls.as_ref(),
            Topology::One | Topology::Cluster => self.tls(),
        }
    }

    /// A name that the server's certificate may have in place of its host's.
    pub(crate) fn other_name(&self) -> Option<&str> {
        self.other_name.as_deref()
    }

    pub(crate) fn warning(&self) -> &PlainTextWarning {
        &self.warning
    }

    /// Uses these certificates. Changes nothing for `redis://`.
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn with_tls(mut self, tls: Tls) -> Self {
        if let Topology::Sentinel(sentinels) = &mut self.topology {
            sentinels.tls = sentinels.tls.as_ref().map(|_| tls.clone());
        }
        self.tls = self.tls.map(|_| tls);
        self
    }

    /// Uses this password. Fails if the address contains another one. Sentinels have one of their own.
    pub fn with_password(mut self, password: &str) -> Result<Self, UrlError> {
        let login = self.info.redis_settings().clone();
        if self.has_password && login.password() != Some(password) {
            return Err(two_passwords(self.example()));
        }
        self.info = self.info.set_redis_settings(login.set_password(password));
        self.has_password = true;
        Ok(self)
    }

    pub(crate) fn user(&self) -> &str {
        let user = self.info.redis_settings().username();
        user.unwrap_or("default")
    }

    fn example(&self) -> &'static str {
        match self.topology {
            Topology::One => Self::EXAMPLE,
            Topology::Sentinel(_) => Self::SENTINEL_EXAMPLE,
            Topology::Cluster => Self::CLUSTER_EXAMPLE,
        }
    }

    /// A valid address of the kind that was typed.
    fn example_of(text: &str) -> &'static str {
        match scheme(text) {
            Some((scheme, _)) if scheme.ends_with("unix") => Self::SOCKET_EXAMPLE,
            Some((scheme, _)) if scheme.contains("sentinel") => Self::SENTINEL_EXAMPLE,
            Some((scheme, _)) if scheme.contains("cluster") => Self::CLUSTER_EXAMPLE,
            _ => Self::EXAMPLE,
        }
    }
}

impl FromStr for RedisUrl {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, UrlError> {
        Self::read(text.trim()).map_err(|reason| UrlError {
            reason,
            example: Self::example_of(text),
        })
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
