//! Groups of direct reply-to names that the broker resolves alike, and their status: a name that it cannot
//! resolve makes RabbitMQ 3.10 close the connection. Pure.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::OnceCell;
use tokio::time::Instant;

/// How long a group that closed a connection is not tried again: the first time, and at most. It doubles with each time. The
/// broker resolves no names of a node for a moment when other nodes are lost, and none while the node is cut off.
const REFUSED_FOR: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// The number of groups remembered. When there are more, all are forgotten and tried again.
const MAX_GROUPS: usize = 4096;

const PREFIX: &str = "amq.rabbitmq.reply-to.";

/// The first bytes of an Erlang term that is a process identifier (`NEW_PID_EXT`).
const PID_TERM: [u8; 2] = [131, 88];

/// The length of its last part: the process' number, its serial and its node's incarnation, 32 bits each.
const PID_NUMBERS: usize = 12;

/// Names that the broker resolves alike.
///
/// A name is `amq.rabbitmq.reply-to.PID.KEY`, both in Base64. The PID names the node by a hash, its
/// incarnation, and the caller's channel there. An unknown hash closes the connection, and so does a channel
/// number that is too large for a process of this incarnation: Erlang 25 has 15 bits for the number and 13
/// for the serial. So a group is a PID without those bits.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Group(Box<[u8]>);

impl Group {
    /// The group of a name; `None` if the broker gives out no such name.
    fn of(name: &str) -> Option<Self> {
        let (pid, key) = name.strip_prefix(PREFIX)?.split_once('.')?;
        let is_key = !key.is_empty()
            && key
                .bytes()
                .all(|byte| byte == b'=' || digit(byte).is_some());
        let mut term = decode_base64(pid)?;
        if !is_key || !term.starts_with(&PID_TERM) {
            return None;
        }
        let numbers = term.len().checked_sub(PID_NUMBERS)?;
        let (number, serial) = (numbers..numbers + 4, numbers + 4..numbers + 8);
        for (place, bits) in [(number, 15), (serial, 13)] {
            let value = u32::from_be_bytes(term[place.clone()].try_into().ok()?);
            term[place].copy_from_slice(&(value >> bits << bits).to_be_bytes());
        }
        Some(Self(term.into()))
    }

    /// A group of this name alone. No PID begins like a name.
    fn alone(name: &str) -> Self {
        Self(name.as_bytes().into())
    }
}

/// The status of a group.
#[derive(Debug, Clone)]
pub(super) enum GroupStatus {
    /// None of its names closes a connection.
    Proven,
    /// One name is tried for the whole group. The cell is set when the outcome is known: whether the trial was given
    /// up before publishing.
    OnProbation(Arc<OnceCell<bool>>),
    /// The broker cannot resolve it.
    Undeliverable,
}

#[derive(Debug)]
enum Known {
    Proven,
    /// `refused_for`: how long it was refused before.
    OnProbation {
        outcome: Arc<OnceCell<bool>>,
        refused_for: Duration,
    },
    Refused {
        until: Instant,
        refused_for: Duration,
    },
}

/// The status of all known groups.
#[derive(Debug, Default)]
pub(super) struct Groups {
    /// The group of this worker's own connection. `None` if the broker's names have another form: then each name is a
    /// group, and proven until its connection is lost.
    own: Option<Group>,
    known: HashMap<Group, Known>,
}

impl Groups {
    /// Notes the direct reply-to name of this worker's own connection.
    pub(super) fn connected_as(&mut self, own: Option<&str>) {
        self.own = own.and_then(Group::of);
    }

    /// The group of a name and its status; the group of the name alone if it was `singled_out`, now or before. An
    /// unknown group is on probation from now on.
    pub(super) fn look_up(&mut self, name: &str, singled_out: bool) -> (Group, GroupStatus) {
        let alone = Group::alone(name);
        if singled_out || self.known.contains_key(&alone) {
            let status = self.status(&alone);
            return (alone, status);
        }
        if self.own.is_none() {
            return (alone, GroupStatus::Proven);
        }
        match Group::of(name) {
            None => (alone, GroupStatus::Undeliverable),
            Some(group) if self.own.as_ref() == Some(&group) => (group, GroupStatus::Proven),
            Some(group) => {
                let status = self.status(&group);
                (group, status)
            }
        }
    }

    fn status(&mut self, group: &Group) -> GroupStatus {
        let refused_for = match self.known.get(group) {
            Some(Known::Proven) => return GroupStatus::Proven,
            Some(Known::OnProbation { outcome, .. }) => {
                return GroupStatus::OnProbation(Arc::clone(outcome));
            }
            Some(Known::Refused { until, .. }) if *until > Instant::now() => {
                return GroupStatus::Undeliverable;
            }
            Some(Known::Refused { refused_for, .. }) => *refused_for,
            None => Duration::ZERO,
        };
        let outcome = Arc::default();
        let known = Known::OnProbation {
            outcome: Arc::clone(&outcome),
            refused_for,
        };
        self.insert(group, known);
        GroupStatus::OnProbation(outcome)
    }

    /// Notes that a reply to the group has arrived.
    pub(super) fn prove(&mut self, group: &Group) {
        self.insert(group, Known::Proven);
    }

    /// Notes that the group has closed a connection.
    pub(super) fn refuse(&mut self, group: &Group) {
        let before = match self.known.get(group) {
            Some(Known::OnProbation { refused_for, .. } | Known::Refused { refused_for, .. }) => {
                *refused_for
            }
            Some(Known::Proven) | None => Duration::ZERO,
        };
        let refused_for = (before * 2).clamp(REFUSED_FOR.0, REFUSED_FOR.1);
        let until = Instant::now() + refused_for;
        self.insert(group, Known::Refused { until, refused_for });
    }

    /// Notes that the group was in flight when the connection for proven groups was closed.
    pub(super) fn doubt(&mut self, group: &Group) {
        // The broker itself gave out this worker's own name.
        let is_proven = matches!(self.known.get(group), None | Some(Known::Proven));
        if is_proven && self.own.as_ref() != Some(group) {
            let known = Known::OnProbation {
                outcome: Arc::default(),
                refused_for: Duration::ZERO,
            };
            self.insert(group, known);
        }
    }

    /// Forgets the group, so that its next name is on probation.
    pub(super) fn forget(&mut self, group: &Group) {
        self.known.remove(group);
    }

    fn insert(&mut self, group: &Group, known: Known) {
        if self.known.len() >= MAX_GROUPS && !self.known.contains_key(group) {
            self.known.clear();
        }
        self.known.insert(group.clone(), known);
    }
}

/// Decodes canonical Base64 with padding; `None` for anything else.
fn decode_base64(text: &str) -> Option<Vec<u8>> {
    if text.is_empty() || !text.len().is_multiple_of(4) {
        return None;
    }
    let digits = text.trim_end_matches('=');
    let padding = text.len() - digits.len();
    if padding > 2 {
        return None;
    }
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    for chunk in digits.as_bytes().chunks(4) {
        let mut bits = 0_u32;
        for place in 0..4 {
            let value = chunk.get(place).map_or(Some(0), |byte| digit(*byte))?;
            bits = bits << 6 | u32::from(value);
        }
        let [_, first, second, third] = bits.to_be_bytes();
        let whole = [first, second, third];
        let (kept, left) = whole.split_at(chunk.len() * 6 / 8);
        if left.iter().any(|byte| *byte != 0) {
            return None;
        }
        bytes.extend_from_slice(kept);
    }
    Some(bytes)
}

/// The value of a Base64 digit.
fn digit(byte: u8) -> Option<u8> {
    match byte {
        b'A'..=b'Z' => Some(byte - b'A'),
        b'a'..=b'z' => Some(byte - b'a' + 26),
        b'0'..=b'9' => Some(byte - b'0' + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
