//! Redis' address.

use std::fmt;
use std::str::FromStr;

use super::{UrlError, default_tls, host, parse, two_passwords};
use crate::tls::Tls;
use crate::transport::PlainTextWarning;

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
