//! Redis' address: a host, or a Unix socket.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use redis::{ConnectionAddr, ConnectionInfo, IntoConnectionInfo as _, RedisConnectionInfo};
use url::Url;

use super::{UrlError, decode, default_tls, host, login_ends_at_the_host, parse};
use super::{scheme, set_once, two_passwords, unknown_parameter};
use crate::tls::Tls;
use crate::transport::{Endpoint, PlainTextWarning};

/// A Redis address: `redis://USER:PASSWORD@HOST:PORT/DATABASE`, or with TLS `rediss://`. `valkey://` and
/// `valkeys://` are synonyms.
///
/// All parts but the host are optional: the port defaults to 6379 and the database to 0, which can also be
/// written `?db=DATABASE`. A Unix socket is `unix:///PATH?db=DATABASE` or `redis+unix://`, with `USER:PASSWORD@`
/// before the path. Other parameters are an error. The password is never printed.
///
/// ```
/// let url: rpcache::RedisUrl = "redis://:secret@cache/1".parse().unwrap();
/// assert_eq!(url.to_string(), "redis://cache:6379/1");
/// ```
#[derive(Clone)]
pub struct RedisUrl {
    /// Login and database. TLS is not redis-rs' task.
    info: ConnectionInfo,
    endpoint: Endpoint,
    shown: String,
    has_password: bool,
    /// `None`: plain text.
    tls: Option<Tls>,
    warning: PlainTextWarning,
}

impl RedisUrl {
    const EXAMPLE: &str = "redis://user:password@host:6379/0";
    const SOCKET_EXAMPLE: &str = "unix:///run/redis/redis.sock?db=0";

    /// Login and database for redis-rs. Not for connecting: it has no TLS settings.
    pub(crate) fn info(&self) -> ConnectionInfo {
        // CLIENT SETINFO would cost a round trip at every start of a command.
        let login = self.info.redis_settings().clone().set_skip_set_lib_name();
        self.info.clone().set_redis_settings(login)
    }

    pub(crate) fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// TLS settings; `None`: plain text.
    pub(crate) fn tls(&self) -> Option<&Tls> {
        self.tls.as_ref()
    }

    pub(crate) fn warning(&self) -> &PlainTextWarning {
        &self.warning
    }

    /// Uses these certificates. Changes nothing for `redis://`.
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn with_tls(mut self, tls: Tls) -> Self {
        self.tls = self.tls.map(|_| tls);
        self
    }

    /// Uses this password. Fails if the address contains another one.
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

    /// A valid address of the kind that was typed.
    fn example(text: &str) -> &'static str {
        match scheme(text) {
            Some((scheme, _)) if scheme.ends_with("unix") => Self::SOCKET_EXAMPLE,
            _ => Self::EXAMPLE,
        }
    }

    fn read(text: &str) -> Result<Self, String> {
        let (scheme, rest) = scheme(text).unwrap_or_default();
        match scheme.as_str() {
            "redis" | "valkey" => Self::of_host(&parse(text)?, None),
            "rediss" | "valkeys" => Self::of_host(&parse(text)?, Some(default_tls(&scheme)?)),
            "unix" | "redis+unix" => Self::of_socket(&scheme, rest),
            of_several if of_several.contains("sentinel") => Err(
                "Redis Sentinel is not supported yet: give the primary's own address, redis://HOST:PORT"
                    .to_owned(),
            ),
            of_several if of_several.contains("cluster") => Err(
                "Redis Cluster is not supported yet: give one server's address, redis://HOST:PORT"
                    .to_owned(),
            ),
            _ => Err("it does not start with redis://, rediss:// or unix://".to_owned()),
        }
    }

    fn of_host(url: &Url, tls: Option<Tls>) -> Result<Self, String> {
        let host = host(url)?;
        if host.contains(',') {
            return Err("it has several hosts; only one is supported".to_owned());
        }
        let port = url.port().unwrap_or(6379);
        let in_path = match url.path() {
            "" | "/" => None,
            path => Some(path[1..].parse().map_err(|_| {
                "the part after the host must be the number of a database".to_owned()
            })?),
        };
        let database = database(url, in_path)?;
        let shown = format!(
            "{}://{}{}:{port}/{database}",
            url.scheme(),
            shown_user(url),
            url.host_str().unwrap_or_default(),
        );
        let address = ConnectionAddr::Tcp(host.clone(), port);
        let endpoint = Endpoint::Tcp { host, port };
        Self::at(endpoint, address, url, database, shown, tls)
    }

    /// `rest` is what follows the scheme.
    fn of_socket(scheme: &str, rest: &str) -> Result<Self, String> {
        let (login, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        login_ends_at_the_host(rest)?;
        if !login.is_empty() && !login.ends_with('@') {
            return Err("a Unix socket has no host: write unix:///PATH".to_owned());
        }
        // In the URL standard, a login needs a host.
        let url = parse(&format!("{scheme}://{login}localhost{path}"))?;
        let socket = PathBuf::from(decode(url.path())?);
        may_be_a_socket(&socket)?;
        let database = database(&url, None)?;
        let shown = format!(
            "{scheme}://{}{}?db={database}",
            shown_user(&url),
            url.path()
        );
        let address = ConnectionAddr::Unix(socket.clone());
        Self::at(Endpoint::Unix(socket), address, &url, database, shown, None)
    }

    fn at(
        endpoint: Endpoint,
        address: ConnectionAddr,
        url: &Url,
        database: u32,
        shown: String,
        tls: Option<Tls>,
    ) -> Result<Self, String> {
        let mut login = RedisConnectionInfo::default().set_db(database.into());
        if !url.username().is_empty() {
            login = login.set_username(decode(url.username())?);
        }
        if let Some(password) = url.password() {
            login = login.set_password(decode(password)?);
        }
        let info = address
            .into_connection_info()
            .map_err(|error| error.to_string())?;
        Ok(Self {
            info: info.set_redis_settings(login),
            endpoint,
            shown,
            has_password: url.password().is_some(),
            tls,
            warning: PlainTextWarning::default(),
        })
    }
}

fn shown_user(url: &Url) -> String {
    match url.username() {
        "" => String::new(),
        name => format!("{name}@"),
    }
}

/// The database, from the path or from `?db=`, as in redis-py and others.
fn database(url: &Url, in_path: Option<u32>) -> Result<u32, String> {
    let mut by_name = None;
    for (name, value) in url.query_pairs() {
        match name.as_ref() {
            "db" => set_once(&mut by_name, &name, &value)?,
            _ => return Err(unknown_parameter(&name, "?db=")),
        }
    }
    match (in_path, by_name) {
        (Some(one), Some(other)) if one != other => {
            Err("its path and ?db= name two databases: leave one out".to_owned())
        }
        (one, other) => Ok(one.or(other).unwrap_or_default()),
    }
}

#[cfg(unix)]
fn may_be_a_socket(path: &Path) -> Result<(), String> {
    let address = std::os::unix::net::SocketAddr::from_pathname(path);
    match address {
        Ok(_) if path.file_name().is_some() => Ok(()),
        Ok(_) => Err("it has no path of a socket".to_owned()),
        Err(error) => Err(format!("it cannot be a socket's path: {error}")),
    }
}

#[cfg(not(unix))]
fn may_be_a_socket(_: &Path) -> Result<(), String> {
    Err("there are no Unix sockets on this system".to_owned())
}

impl FromStr for RedisUrl {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, UrlError> {
        Self::read(text.trim()).map_err(|reason| UrlError {
            reason,
            example: Self::example(text),
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
