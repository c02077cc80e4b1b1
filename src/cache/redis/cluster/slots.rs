//! Slots of a Redis Cluster: which one a key has, and who serves them. Pure: no I/O.
//!
//! See Redis' [cluster specification](https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/).

use redis::Value;

use crate::cache::redis::connection::announced;
use crate::transport::Endpoint;

/// Number of slots of every cluster.
pub(super) const SLOTS: u16 = 16384;

/// Stands in a map for a slot that no node serves.
pub(super) const NOBODY: u16 = u16::MAX;

/// The slot of a key: by its hash tag, the part within the first braces, if there is one.
pub(in crate::cache::redis) fn slot(key: &[u8]) -> u16 {
    let tag = key.iter().position(|&byte| byte == b'{').and_then(|open| {
        let behind = &key[open + 1..];
        let close = behind.iter().position(|&byte| byte == b'}')?;
        (close > 0).then(|| &behind[..close])
    });
    crc16(tag.unwrap_or(key)) % SLOTS
}

/// CRC-16/XMODEM.
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, &byte| {
        (crc << 8) ^ CRC16[usize::from((crc >> 8) as u8 ^ byte)]
    })
}

const CRC16: [u16; 256] = {
    let mut table = [0; 256];
    let mut at: u16 = 0;
    while at < 256 {
        let mut crc = at << 8;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 0x8000 == 0 {
                crc << 1
            } else {
                (crc << 1) ^ 0x1021
            };
            bit += 1;
        }
        table[at as usize] = crc;
        at += 1;
    }
    table
};

/// Who serves which slots, by one node's word.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Served {
    /// In the order of their first slots.
    pub(super) owners: Vec<Endpoint>,
    /// For each slot the position of its owner, or [`NOBODY`].
    pub(super) slots: Vec<u16>,
}

impl Served {
    /// Reads the reply to CLUSTER SLOTS of the node at this endpoint: ranges of slots, each with its primary
    /// first. A primary without a host is at the host that was asked. `None`: it is no such reply, or no slot
    /// is served.
    pub(super) fn read(reply: &Value, asked: &Endpoint) -> Option<Self> {
        let Value::Array(ranges) = reply else {
            return None;
        };
        let mut ranges: Vec<_> = ranges
            .iter()
            .map(|range| Range::read(range, asked))
            .collect::<Option<_>>()?;
        ranges.sort_by_key(|range| range.first);
        let mut served = Self {
            owners: Vec::new(),
            slots: vec![NOBODY; usize::from(SLOTS)],
        };
        for Range { first, last, owner } in ranges {
            let known = served.owners.iter().position(|known| *known == owner);
            let position = known.unwrap_or_else(|| {
                served.owners.push(owner);
                served.owners.len() - 1
            });
            let position = u16::try_from(position).ok().filter(|&at| at != NOBODY)?;
            served.slots.get_mut(first..=last)?.fill(position);
        }
        (!served.owners.is_empty()).then_some(served)
    }
}

/// Slots that one node serves.
struct Range {
    first: usize,
    last: usize,
    owner: Endpoint,
}

impl Range {
    fn read(range: &Value, asked: &Endpoint) -> Option<Self> {
        let Value::Array(range) = range else {
            return None;
        };
        let [
            Value::Int(first),
            Value::Int(last),
            Value::Array(primary),
            ..,
        ] = &range[..]
        else {
            return None;
        };
        let [host, Value::Int(port), ..] = &primary[..] else {
            return None;
        };
        let host = match host {
            // The node does not know its host, or does not announce it: `cluster-preferred-endpoint-type unknown-endpoint`.
            Value::Nil => asked.host().as_bytes(),
            Value::BulkString(host) if host.is_empty() || host == b"?" => asked.host().as_bytes(),
            Value::BulkString(host) => host,
            _ => return None,
        };
        let (first, last) = (usize::try_from(*first).ok()?, usize::try_from(*last).ok()?);
        (first <= last && last < usize::from(SLOTS)).then_some(())?;
        Some(Self {
            first,
            last,
            owner: announced(host, u16::try_from(*port).ok()?)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_those_of_redis() {
        // By CLUSTER KEYSLOT of Redis 7.0.
        for (key, expected) in [
            ("", 0),
            ("123456789", 12739),
            ("fib:30", 13074),
            ("{fib:30}:lease", 13074),
            ("foo{}{bar}", 8363),
            ("foo{{bar}}zap", 4015),
            ("foo{bar}{zap}", 5061),
            ("foo{bar", 15278),
        ] {
            assert_eq!(slot(key.as_bytes()), expected, "{key}");
        }
    }

    fn node(host: Value, port: i64) -> Value {
        Value::Array(vec![host, Value::Int(port), text("id")])
    }

    fn text(text: &str) -> Value {
        Value::BulkString(text.as_bytes().to_vec())
    }

    fn range(first: i64, last: i64, nodes: &[Value]) -> Value {
        let mut range = vec![Value::Int(first), Value::Int(last)];
        range.extend_from_slice(nodes);
        Value::Array(range)
    }

    fn asked() -> Endpoint {
        announced(b"asked", 1).unwrap()
    }

    #[test]
    fn the_first_node_of_a_range_serves_it() {
        let replica = node(text("10.0.0.9"), 9);
        let reply = Value::Array(vec![
            range(8192, 16383, &[node(text("::1"), 7), replica.clone()]),
            range(0, 99, &[node(Value::Nil, 8), replica.clone()]),
            range(200, 200, &[node(text("::1"), 7)]),
            range(300, 300, &[node(text(""), 8)]),
        ]);
        let served = Served::read(&reply, &asked()).unwrap();
        let owners: Vec<_> = served.owners.iter().map(Endpoint::to_string).collect();
        assert_eq!(owners, ["asked:8", "[::1]:7"]);
        for (slot, owner) in [
            (0, 0),
            (99, 0),
            (100, NOBODY),
            (200, 1),
            (300, 0),
            (8191, NOBODY),
            (16383, 1),
        ] {
            assert_eq!(served.slots[slot], owner, "{slot}");
        }
    }

    #[test]
    fn what_is_no_map_is_refused() {
        let one = node(text("h"), 7);
        for reply in [
            Value::Nil,
            Value::Array(vec![]),
            Value::Array(vec![Value::Int(1)]),
            Value::Array(vec![range(0, 16384, std::slice::from_ref(&one))]),
            Value::Array(vec![range(-1, 5, std::slice::from_ref(&one))]),
            Value::Array(vec![range(5, 4, std::slice::from_ref(&one))]),
            Value::Array(vec![range(0, 5, &[])]),
            Value::Array(vec![range(0, 5, &[node(text("h"), 0)])]),
            Value::Array(vec![range(0, 5, &[node(text("h"), 65536)])]),
            Value::Array(vec![range(0, 5, &[node(text("\u{1b}[2J"), 7)])]),
            Value::Array(vec![range(0, 5, &[node(Value::Int(1), 7)])]),
            Value::Array(vec![range(0, 5, &[one]), Value::Nil]),
        ] {
            assert_eq!(Served::read(&reply, &asked()), None, "{reply:?}");
        }
    }
}
