//! Reads a server's reply to HELLO, which needs no right: its role, and whether it is a cluster or a Sentinel.

use std::net::SocketAddr;

use redis::Value;

use crate::error::quote;
use crate::transport::Endpoint;

/// The server that a connection leads to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::cache::redis) struct Server {
    /// Its address; `None`: it has none, or that is not known.
    pub(in crate::cache::redis) address: Option<SocketAddr>,
    pub(in crate::cache::redis) role: Role,
    pub(in crate::cache::redis) mode: Mode,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::cache::redis) enum Role {
    Primary,
    Replica,
    /// It does not report its role.
    #[default]
    Unknown,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::cache::redis) enum Mode {
    Sentinel,
    Cluster,
    #[default]
    Standalone,
}

impl Server {
    /// Reads the reply to HELLO, names and values in turn. What is missing is unknown.
    pub(super) fn read(address: Option<SocketAddr>, hello: &Value) -> Self {
        let role = match field(hello, b"role") {
            Some(b"master") => Role::Primary,
            Some(b"replica" | b"slave") => Role::Replica,
            _ => Role::Unknown,
        };
        let mode = match field(hello, b"mode") {
            Some(b"sentinel") => Mode::Sentinel,
            Some(b"cluster") => Mode::Cluster,
            _ => Mode::Standalone,
        };
        Self {
            address,
            role,
            mode,
        }
    }
}

/// Reads a Sentinel's reply to SENTINEL MASTERS: the names of the first few primaries that it watches.
pub(super) fn primaries(answer: &Value) -> Vec<String> {
    let Value::Array(primaries) = answer else {
        return Vec::new();
    };
    let primary = |fields| field(fields, b"name").map(quote);
    primaries.iter().take(3).filter_map(primary).collect()
}

/// Reads CLUSTER INFO: how many shards there are.
pub(in crate::cache::redis) fn cluster_size(info: &str) -> Option<u64> {
    let mut lines = info.lines();
    let size = lines.find_map(|line| line.strip_prefix("cluster_size:"))?;
    size.parse().ok()
}

/// The endpoint that a server names, as far as it can be one: peer text, which reaches log lines.
pub(in crate::cache::redis) fn announced(host: &[u8], port: u16) -> Option<Endpoint> {
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._:%".contains(byte);
    if host.is_empty() || host.len() > 255 || !host.iter().all(is_plain) || port == 0 {
        return None;
    }
    let host = String::from_utf8_lossy(host).into_owned();
    Some(Endpoint::Tcp { host, port })
}

/// The value behind a name in an array of names and values.
pub(super) fn field<'a>(fields: &'a Value, name: &[u8]) -> Option<&'a [u8]> {
    let Value::Array(fields) = fields else {
        return None;
    };
    fields.chunks_exact(2).find_map(|pair| match pair {
        [Value::BulkString(key), Value::BulkString(value)] if key == name => Some(value.as_slice()),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(pairs: &[&str]) -> Value {
        let value = |text: &&str| Value::BulkString(text.as_bytes().to_vec());
        Value::Array(pairs.iter().map(value).collect())
    }

    #[test]
    fn a_server_is_known_by_its_greeting() {
        let read = |pairs: &[&str]| {
            let Server { role, mode, .. } = Server::read(None, &fields(pairs));
            (role, mode)
        };
        let hello = ["server", "redis", "mode", "standalone", "role", "master"];
        assert_eq!(read(&hello), (Role::Primary, Mode::Standalone));
        let hello = ["mode", "cluster", "role", "replica", "modules"];
        assert_eq!(read(&hello), (Role::Replica, Mode::Cluster));
        let hello = ["server", "redis", "mode", "sentinel"];
        assert_eq!(read(&hello), (Role::Unknown, Mode::Sentinel));
        assert_eq!(read(&[]), (Role::Unknown, Mode::Standalone));
        let none = Server::read(None, &Value::Nil);
        assert_eq!(none, Server::default());
    }

    #[test]
    fn primaries_of_a_sentinel_are_read_and_escaped() {
        let one = fields(&["name", "fleet", "ip", "10.0.0.5", "port", "6379"]);
        let hostile = fields(&["name", "\u{1b}[2J", "ip", "::1", "port", "1"]);
        let nothing = fields(&["ip", "::1"]);
        let masters = Value::Array(vec![one, nothing, hostile]);
        let expected = ["fleet", "\\u{1b}[2J"];
        assert_eq!(primaries(&masters), expected);
        assert!(primaries(&Value::Okay).is_empty());
    }

    #[test]
    fn only_what_can_be_an_address_is_one() {
        for host in ["10.0.0.5", "::1", "fe80::1%eth0", "redis-1.example", "a_b"] {
            let endpoint = announced(host.as_bytes(), 7).unwrap();
            assert_eq!(endpoint.host(), host);
        }
        for host in ["", "\u{1b}[2J", "a b", "a/b", "user@host", "\u{e9}"] {
            assert_eq!(announced(host.as_bytes(), 7), None, "{host:?}");
        }
        assert_eq!(announced(b"h", 0), None);
        assert_eq!(announced(&[b'h'; 256], 7), None);
        assert_eq!(
            cluster_size("cluster_state:ok\r\ncluster_size:3\r\n"),
            Some(3)
        );
        assert_eq!(cluster_size("cluster_state:ok"), None);
    }
}
