//! The address of RabbitMQ's management API.

use std::fmt;
use std::str::FromStr;

use super::{AmqpUrl, UrlError, decode, default_tls, host, parse, scheme};
use crate::tls::Tls;
use crate::transport::Endpoint;

/// The address of RabbitMQ's management API: `http://HOST:15672`, or `https://HOST:15671`.
///
/// The path is the API's prefix, if the server has one. Without user and password, those of RabbitMQ's address are
/// used. The password is never printed.
#[derive(Clone)]
pub struct ManagementUrl {
    pub(crate) endpoint: Endpoint,
    /// Without a slash at its end.
    pub(crate) prefix: String,
    /// User and password.
    login: Option<(String, String)>,
    /// `None`: plain text.
    pub(crate) tls: Option<Tls>,
    shown: String,
}

impl ManagementUrl {
    const EXAMPLE: &str = "http://user:password@host:15672";

    /// User and password: its own, or those of the first node.
    pub(crate) fn login(&self, amqp: &AmqpUrl) -> (String, String) {
        self.login.clone().unwrap_or_else(|| amqp.first_login())
    }

    /// Uses these certificates. Changes nothing for `http://`.
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn with_tls(mut self, tls: Tls) -> Self {
        self.tls = self.tls.map(|_| tls);
        self
    }

    fn read(text: &str) -> Result<Self, String> {
        let (scheme, rest) = scheme(text).unwrap_or_default();
        let (tls, port) = match scheme.as_str() {
            "http" => (None, 15672),
            "https" => (Some(default_tls(&scheme)?), 15671),
            _ => return Err("it does not start with http:// or https://".to_owned()),
        };
        // Of http and https, the URL standard drops ports that are their defaults.
        let url = parse(&format!("management://{rest}"))?;
        if url.query().is_some() {
            return Err("it has no parameters".to_owned());
        }
        let user = decode(url.username())?;
        let login = match url.password() {
            Some(password) => Some((user, decode(password)?)),
            None if user.is_empty() => None,
            None => return Err("it has a user and no password".to_owned()),
        };
        let port = url.port().unwrap_or(port);
        let endpoint = Endpoint::Tcp {
            host: host(&url)?,
            port,
        };
        let prefix = url.path().trim_end_matches('/').to_owned();
        let shown = format!("{scheme}://{endpoint}{prefix}");
        Ok(Self {
            endpoint,
            prefix,
            login,
            tls,
            shown,
        })
    }
}

impl FromStr for ManagementUrl {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, UrlError> {
        Self::read(text.trim()).map_err(|reason| UrlError {
            reason,
            example: Self::EXAMPLE,
        })
    }
}

impl fmt::Display for ManagementUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

impl fmt::Debug for ManagementUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_shown_without_the_login() {
        let amqp: AmqpUrl = "amqp://anna:pw@rabbit/prod".parse().unwrap();
        let own = ("u@".to_owned(), "s3cret".to_owned());
        let theirs = ("anna".to_owned(), "pw".to_owned());
        for (text, shown, login, is_encrypted) in [
            ("http://host", "http://host:15672", &theirs, false),
            ("http://host:80/", "http://host:80", &theirs, false),
            ("https://[::1]/mq/", "https://[::1]:15671/mq", &theirs, true),
            ("http://u%40:s3cret@h:1", "http://h:1", &own, false),
        ] {
            let url: ManagementUrl = text.parse().unwrap();
            assert_eq!(
                (url.to_string(), format!("{url:?}")),
                (shown.into(), shown.into())
            );
            assert_eq!(url.login(&amqp), *login);
            assert_eq!(url.tls.is_some(), is_encrypted);
        }
    }

    #[test]
    fn invalid_addresses_are_refused_without_repeating_them() {
        for text in [
            "host:15672",
            "amqp://host",
            "http://",
            "http://u@host",
            "http://h?x=1",
            "http://h#x",
        ] {
            let error = text.parse::<ManagementUrl>().unwrap_err().to_string();
            assert!(
                error.ends_with("expected something like http://user:password@host:15672"),
                "{error}"
            );
        }
    }
}
