//! Reads the forms of Redis' address.

use std::path::{Path, PathBuf};

use redis::{ConnectionAddr, IntoConnectionInfo as _, RedisConnectionInfo};
use url::Url;

use super::{RedisUrl, Sentinels, Topology};
use crate::server_url::{decode, default_tls, host, login_ends_at_the_host, parse, scheme};
use crate::server_url::{set_once, unknown_parameter};
use crate::tls::Tls;
use crate::transport::{Endpoint, PlainTextWarning};

const PORT: u16 = 6379;
const SENTINEL_PORT: u16 = 26379;

/// What stands behind the `?`.
#[derive(Default)]
struct Parameters {
    database: Option<u32>,
    sentinel_user: Option<String>,
    sentinel_password: Option<String>,
    sentinel_tls: Option<YesOrNo>,
}

struct YesOrNo(bool);

impl std::str::FromStr for YesOrNo {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text {
            "yes" => Ok(Self(true)),
            "no" => Ok(Self(false)),
            _ => Err(()),
        }
    }
}

impl RedisUrl {
    pub(super) fn read(text: &str) -> Result<Self, String> {
        let (scheme, rest) = scheme(text).unwrap_or_default();
        let (base, topology) = scheme.split_once('+').unwrap_or((&scheme, ""));
        let tls = match base {
            "redis" | "valkey" | "unix" => None,
            "rediss" | "valkeys" => Some(default_tls(&scheme)?),
            hyphened if hyphened.contains("-sentinel") || hyphened.contains("-cluster") => {
                let written = hyphened.replacen('-', "+", 1);
                return Err(format!("write {written}:// in place of {hyphened}://"));
            }
            _ => return Err(unknown_scheme()),
        };
        match (base, topology) {
            ("unix", "") | ("redis", "unix") => Self::of_socket(&scheme, rest),
            ("unix", _) => Err(unknown_scheme()),
            (_, "") => Self::of_host(&parse(text)?, tls),
            (_, "sentinel") => Self::of_sentinels(&scheme, rest, tls),
            (_, "cluster") => Self::of_cluster(&scheme, rest, tls),
            _ => Err(unknown_scheme()),
        }
    }

    fn of_host(url: &Url, tls: Option<Tls>) -> Result<Self, String> {
        let host = host(url)?;
        if host.contains(',') {
            return Err(several_hosts(url));
        }
        let port = url.port().unwrap_or(PORT);
        let in_path = match url.path() {
            "" | "/" => None,
            path => Some(path[1..].parse().map_err(|_| {
                "the part after the host must be the number of a database".to_owned()
            })?),
        };
        let database = database(in_path, Parameters::read(url, &["db"])?.database)?;
        let shown = format!(
            "{}://{}{}:{port}/{database}",
            url.scheme(),
            shown_user(url),
            url.host_str().unwrap_or_default(),
        );
        let endpoint = Endpoint::Tcp { host, port };
        Self::at(vec![endpoint], Topology::One, url, database, shown, tls)
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
        let database = database(None, Parameters::read(&url, &["db"])?.database)?;
        let shown = format!(
            "{scheme}://{}{}?db={database}",
            shown_user(&url),
            url.path()
        );
        let endpoints = vec![Endpoint::Unix(socket)];
        Self::at(endpoints, Topology::One, &url, database, shown, None)
    }

    fn of_sentinels(scheme: &str, rest: &str, tls: Option<Tls>) -> Result<Self, String> {
        let (url, endpoints) = hosts(scheme, rest, SENTINEL_PORT)?;
        let known = ["db", "sentinel-user", "sentinel-password", "sentinel-tls"];
        let parameters = Parameters::read(&url, &known)?;
        let mut path = url.path().trim_start_matches('/').splitn(2, '/');
        let primary = decode(path.next().unwrap_or_default())?;
        if primary.is_empty() || primary.contains(char::is_control) {
            return Err("the part after the hosts must be the name of the primary".to_owned());
        }
        let in_path = match path.next() {
            None | Some("") => None,
            Some(number) => Some(number.parse().map_err(|_| {
                "the part after the primary's name must be the number of a database".to_owned()
            })?),
        };
        let database = database(in_path, parameters.database)?;
        let shown_login = match &parameters.sentinel_user {
            Some(user) => format!("?sentinel-user={}", user.escape_debug()),
            None => String::new(),
        };
        let shown = format!(
            "{scheme}://{}{}/{}/{database}{shown_login}",
            shown_user(&url),
            joined(&endpoints),
            primary.escape_debug(),
        );
        let mut login = RedisConnectionInfo::default();
        if let Some(user) = parameters.sentinel_user {
            login = login.set_username(user);
        }
        if let Some(password) = parameters.sentinel_password {
            login = login.set_password(password);
        }
        let sentinels = Sentinels {
            primary,
            login,
            tls: match parameters.sentinel_tls {
                Some(YesOrNo(false)) => None,
                Some(YesOrNo(true)) => Some(default_tls("sentinel-tls=yes")?),
                None => tls.clone(),
            },
        };
        let topology = Topology::Sentinel(sentinels);
        Self::at(endpoints, topology, &url, database, shown, tls)
    }

    fn of_cluster(scheme: &str, rest: &str, tls: Option<Tls>) -> Result<Self, String> {
        let (url, endpoints) = hosts(scheme, rest, PORT)?;
        let database = Parameters::read(&url, &["db"])?.database;
        if !["", "/", "/0"].contains(&url.path()) || database.unwrap_or_default() != 0 {
            return Err(
                "a Redis Cluster has database 0 only: write nothing after the hosts".to_owned(),
            );
        }
        let shown = format!("{scheme}://{}{}", shown_user(&url), joined(&endpoints));
        Self::at(endpoints, Topology::Cluster, &url, 0, shown, tls)
    }

    fn at(
        endpoints: Vec<Endpoint>,
        topology: Topology,
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
        let address = match &endpoints[0] {
            Endpoint::Tcp { host, port } => ConnectionAddr::Tcp(host.clone(), *port),
            Endpoint::Unix(path) => ConnectionAddr::Unix(path.clone()),
        };
        let info = address
            .into_connection_info()
            .map_err(|error| error.to_string())?;
        Ok(Self {
            info: info.set_redis_settings(login),
            endpoints,
            topology,
            shown,
            has_password: url.password().is_some(),
            tls,
            other_name: None,
            warning: PlainTextWarning::default(),
        })
    }
}

/// Reads the hosts, which commas separate: the address with the first of them alone, and all.
fn hosts(scheme: &str, rest: &str, default_port: u16) -> Result<(Url, Vec<Endpoint>), String> {
    login_ends_at_the_host(rest)?;
    let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    let (login, hosts) = match authority.rsplit_once('@') {
        Some((login, _)) if login.contains('@') => {
            return Err(
                "the login is written once, before the first host; an @ in it must be written %40"
                    .to_owned(),
            );
        }
        Some((login, hosts)) => (format!("{login}@"), hosts),
        None => (String::new(), authority),
    };
    let mut first = None;
    let mut endpoints = Vec::new();
    for name in hosts.split(',') {
        let url = parse(&format!("{scheme}://{login}{name}{path}"))?;
        let port = url.port().unwrap_or(default_port);
        endpoints.push(Endpoint::Tcp {
            host: host(&url)?,
            port,
        });
        first.get_or_insert(url);
    }
    let url = first.ok_or("it has no host")?;
    Ok((url, endpoints))
}

fn joined(endpoints: &[Endpoint]) -> String {
    let endpoints: Vec<_> = endpoints.iter().map(Endpoint::to_string).collect();
    endpoints.join(",")
}

fn several_hosts(url: &Url) -> String {
    let scheme = url.scheme();
    format!(
        "it has several hosts: write {scheme}+cluster://HOST1,HOST2 for a Redis Cluster, \
         {scheme}+sentinel://HOST1,HOST2/NAME for Sentinels"
    )
}

fn unknown_scheme() -> String {
    "it does not start with redis://, rediss://, unix://, redis+sentinel:// or redis+cluster://"
        .to_owned()
}

fn shown_user(url: &Url) -> String {
    match url.username() {
        "" => String::new(),
        name => format!("{name}@"),
    }
}

/// The database, from the path or from `?db=`, as in redis-py and others.
fn database(in_path: Option<u32>, by_name: Option<u32>) -> Result<u32, String> {
    match (in_path, by_name) {
        (Some(one), Some(other)) if one != other => {
            Err("its path and ?db= name two databases: leave one out".to_owned())
        }
        (one, other) => Ok(one.or(other).unwrap_or_default()),
    }
}

impl Parameters {
    fn read(url: &Url, known: &[&str]) -> Result<Self, String> {
        let mut read = Self::default();
        let pairs = url.query().unwrap_or_default().split('&');
        for pair in pairs.filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            // Not as in a form: a + in a password is a +.
            let (name, value) = (decode(name)?, decode(value)?);
            match name.as_str() {
                "db" => set_once(&mut read.database, &name, &value)?,
                "sentinel-user" if known.contains(&"sentinel-user") => {
                    set_once(&mut read.sentinel_user, &name, &value)?;
                }
                "sentinel-password" if known.contains(&"sentinel-password") => {
                    set_once(&mut read.sentinel_password, &name, &value)?;
                }
                "sentinel-tls" if known.contains(&"sentinel-tls") => {
                    set_once(&mut read.sentinel_tls, &name, &value).map_err(|_| {
                        "?sentinel-tls= must be given once, as yes or no".to_owned()
                    })?;
                }
                _ => {
                    let known: Vec<_> = known.iter().map(|name| format!("?{name}=")).collect();
                    return Err(unknown_parameter(&name, &known.join(", ")));
                }
            }
        }
        Ok(read)
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
