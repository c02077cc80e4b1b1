//! Keys: the name of an answer in the store, which a person can type.
//!
//! `fib:30`, or `prod:fib:30` with a namespace. The argument's text comes from an argument that was
//! parsed, never from the wire; what would be awkward in redis-cli, in a SCAN pattern or in a
//! cluster's hash tag is percent-escaped, and what is very long stands as its hash.

use std::borrow::Borrow;
use std::fmt::{self, Write};
use std::hash::{Hash, Hasher};
use std::str::FromStr;

use sha2::{Digest, Sha256};

use crate::procedure_name::ProcedureName;

/// What stands before the hash of a long argument. No escaped argument holds a `%` without two
/// hexadecimal digits behind it, so that none can be made to look like another's hash.
pub(super) const HASHED: &str = "%sha256:";

/// Escaped arguments longer than this many bytes are hashed.
const MAX_ARGUMENT: usize = 200;

/// A prefix of all keys: a deployment's name or a function's version, `prod` in `prod:fib:30`.
/// 1 to 100 of letters, digits, `.`, `_`, `-` and `:`.
///
/// Clients and workers that share answers have the same. When the function changes, so that old answers
/// are wrong, so does the namespace, and with it the queue, which old workers may still serve: the old keys
/// expire by themselves.
///
/// ```
/// use rpcache::{CacheOptions, Namespace};
///
/// let mut options = CacheOptions::new("redis://localhost".parse().unwrap());
/// options.namespace = Some("prod:v2".parse().unwrap());
/// assert!("no spaces".parse::<Namespace>().is_err());
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Namespace(pub(super) String);

impl FromStr for Namespace {
    type Err = NamespaceError;

    fn from_str(text: &str) -> Result<Self, NamespaceError> {
        let fits = |c: char| c.is_ascii_alphanumeric() || "._-:".contains(c);
        if (1..=100).contains(&text.len()) && text.chars().all(fits) {
            Ok(Self(text.to_owned()))
        } else {
            Err(NamespaceError)
        }
    }
}

impl fmt::Display for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why a text is no [`Namespace`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a namespace is 1 to 100 letters, digits, '.', '_', '-' or ':'")]
#[non_exhaustive]
pub struct NamespaceError;

/// ASCII that is no trouble in redis-cli, in a pattern or in a hash tag.
const fn is_plain(byte: u8) -> bool {
    byte.is_ascii_graphic()
        && !matches!(byte, b'{' | b'}' | b'*' | b'?' | b'[' | b']' | b'\\' | b'%')
}

/// The key of one answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Key(String);

impl Key {
    pub(crate) fn new(
        namespace: Option<&Namespace>,
        procedure: &ProcedureName,
        argument: impl fmt::Display,
    ) -> Self {
        let mut key = prefix(namespace, procedure);
        let start = key.len();
        // Writing to a String cannot fail.
        let _ = write!(key, "{argument}");
        // As nearly every argument is: it stands as it is.
        if key.len() - start <= MAX_ARGUMENT && key[start..].bytes().all(is_plain) {
            return Self(key);
        }
        let argument = key.split_off(start);
        for c in argument.chars() {
            if c.is_control() || (c.is_ascii() && !is_plain(c as u8)) {
                for byte in c.encode_utf8(&mut [0; 4]).bytes() {
                    let _ = write!(key, "%{byte:02X}");
                }
            } else {
                key.push(c);
            }
        }
        if key.len() - start > MAX_ARGUMENT {
            key.truncate(start);
            key.push_str(HASHED);
            for byte in Sha256::digest(argument) {
                let _ = write!(key, "{byte:02x}");
            }
        }
        Self(key)
    }

    /// Where attempts at this key are counted after a redelivery. In braces: in a Redis cluster it shares
    /// the answer's slot.
    pub(crate) fn attempts(&self) -> String {
        format!("{{{}}}:starts", self.0)
    }

    /// Where the token of the worker that computes the answer stands, in the answer's slot like
    /// [`Self::attempts`].
    pub(crate) fn lease(&self) -> String {
        format!("{{{}}}:lease", self.0)
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }

    /// What [`ShortKey::write`] has written: text.
    pub(crate) fn of_short(text: &[u8]) -> Self {
        Self(String::from_utf8_lossy(text).into_owned())
    }
}

/// Room for a key on the stack, for a look that is over before memory could be had.
pub(crate) struct ShortKey {
    bytes: [u8; Self::ROOM],
    len: usize,
}

impl ShortKey {
    const ROOM: usize = 64;

    pub(crate) fn new() -> Self {
        Self {
            bytes: [0; Self::ROOM],
            len: 0,
        }
    }

    /// The text of the argument's key; `None` where it is too long for that, or must be escaped: then
    /// [`Key::new`] makes it. As bytes: the near cache compares them as such.
    pub(crate) fn write(&mut self, prefix: &str, argument: impl fmt::Display) -> Option<&[u8]> {
        self.len = 0;
        self.write_str(prefix).ok()?;
        let start = self.len;
        write!(self, "{argument}").ok()?;
        let text = self.bytes.get(..self.len)?;
        let plain = text.get(start..)?.iter().all(|&byte| is_plain(byte));
        plain.then_some(text)
    }
}

impl Write for ShortKey {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let end = self.len + text.len();
        let room = self.bytes.get_mut(self.len..end).ok_or(fmt::Error)?;
        room.copy_from_slice(text.as_bytes());
        self.len = end;
        Ok(())
    }
}

/// For maps that are looked into without a key of one's own: it hashes as its bytes do.
impl Borrow<[u8]> for Key {
    fn borrow(&self) -> &[u8] {
        self.as_bytes()
    }
}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_bytes().hash(state);
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What all of a procedure's keys start with. Neither part holds a character that is special in a
/// SCAN pattern.
pub(crate) fn prefix(namespace: Option<&Namespace>, procedure: &ProcedureName) -> String {
    let mut prefix = String::with_capacity(40);
    if let Some(Namespace(namespace)) = namespace {
        prefix.push_str(namespace);
        prefix.push(':');
    }
    prefix.push_str(procedure.as_str());
    prefix.push(':');
    prefix
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key(argument: &str) -> String {
        Key::new(None, &ProcedureName::new("p"), argument).0
    }

    #[test]
    fn a_key_is_what_a_person_would_type() {
        let fib = ProcedureName::new("fib");
        assert_eq!(Key::new(None, &fib, "30").as_str(), "fib:30");
        let prod = "prod".parse().unwrap();
        assert_eq!(Key::new(Some(&prod), &fib, "30").as_str(), "prod:fib:30");
    }

    /// Other languages go by them.
    #[test]
    fn keys_are_those_of_the_protocol_s_vectors() {
        let vectors: serde_json::Value =
            serde_json::from_str(include_str!("../../docs/protocol.json")).unwrap();
        let vectors = vectors["keys"].as_array().unwrap();
        assert!(!vectors.is_empty());
        for vector in vectors {
            let text = |name: &str| vector[name].as_str();
            let namespace = text("namespace").map(|namespace| namespace.parse().unwrap());
            let (procedure, argument) = (text("procedure").unwrap(), text("argument").unwrap());
            let key = Key::new(namespace.as_ref(), &procedure.parse().unwrap(), argument);
            assert_eq!(Some(key.as_str()), text("key"), "{vector}");
        }
    }

    #[test]
    fn awkward_characters_are_escaped() {
        assert_eq!(
            key("a b\n{x}*?[y]\\%"),
            "p:a%20b%0A%7Bx%7D%2A%3F%5By%5D%5C%25"
        );
        assert_eq!(key("größe"), "p:größe");
        assert_eq!(key("\u{85}"), "p:%C2%85");
    }

    #[test]
    fn a_long_argument_stands_as_its_hash() {
        assert_eq!(key(&"x".repeat(200)), format!("p:{}", "x".repeat(200)));
        let hashed = key(&"x".repeat(201));
        // printf 'x%.0s' {1..201} | sha256sum
        assert_eq!(hashed.len(), "p:%sha256:".len() + 64);
        assert!(hashed.starts_with("p:%sha256:"));
        assert_ne!(hashed, key(&"x".repeat(202)));
    }

    #[test]
    fn a_namespace_is_plain() {
        for bad in ["", "a b", "a*", "ä", &"x".repeat(101)] {
            assert!(bad.parse::<Namespace>().is_err(), "{bad:?}");
        }
        assert!("prod:v2.1_x-y".parse::<Namespace>().is_ok());
    }

    proptest! {
        #[test]
        fn a_short_key_is_the_key_or_none(argument in ".{0,80}|[a-z0-9:]{0,80}") {
            let mut short = ShortKey::new();
            if let Some(text) = short.write("p:", &argument) {
                prop_assert_eq!(Key::of_short(text).0, key(&argument));
            } else {
                let plain = argument.bytes().all(is_plain);
                prop_assert!(!plain || argument.len() > ShortKey::ROOM - 2);
            }
        }

        #[test]
        fn different_arguments_have_different_keys(a in ".{0,80}", b in ".{0,80}") {
            prop_assert_eq!(a == b, key(&a) == key(&b));
        }

        #[test]
        fn no_key_is_long_or_awkward(argument in any::<String>()) {
            let key = key(&argument);
            prop_assert!(key.len() <= 2 + MAX_ARGUMENT);
            let awkward = |c: char| c.is_control() || " {}*?[]\\".contains(c);
            prop_assert!(!key.contains(awkward));
        }
    }
}
