//! Scans a procedure's keys page by page: the store serves others in between, and one page of keys is in
//! memory at a time.
//!
//! Others may have written any key. A key that begins like a procedure's keys belongs to it, unless it may be
//! a longer namespace's: `fib:prod:fib:30` is the answer for 30 in the namespace `fib:prod`, and `prod:fib:30`
//! is no number.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::str::FromStr;

use percent_encoding::percent_decode_str;

use super::{Cache, INSPECT_DEADLINE};
use crate::cache::key::HASHED;
use crate::error::Error;
use crate::procedure::Procedure;
use crate::procedure_name::ProcedureName;

/// Number of keys that one page goes through: well under a millisecond.
pub(super) const PAGE: u64 = 250;

/// Bytes of a key that are shown: all of every key of ours.
const SHOWN: usize = 1000;

/// The part of a key after its prefix, as a glob: `*`, `1?`, `[12]*`. 1 to 100 bytes; `*` by default.
///
/// It is matched against the argument as it stands in the key, where `* ? [ ] \` are escaped as
/// `%2A` and so on, so that nothing else than arguments of the one procedure can be reached.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct KeyPattern(String);

impl Default for KeyPattern {
    fn default() -> Self {
        Self("*".to_owned())
    }
}

impl FromStr for KeyPattern {
    type Err = KeyPatternError;

    fn from_str(text: &str) -> Result<Self, KeyPatternError> {
        // Redis matches each key in one go: a long pattern would hold up others.
        if (1..=100).contains(&text.len()) {
            Ok(Self(text.to_owned()))
        } else {
            Err(KeyPatternError)
        }
    }
}

impl fmt::Display for KeyPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why a text is no [`KeyPattern`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a pattern is 1 to 100 bytes, such as 1* or 10?")]
#[non_exhaustive]
pub struct KeyPatternError;

/// A key as it is in the store. Displayed escaped, and cut where it is longer than any key of ours.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StoredKey(pub(super) Vec<u8>);

impl StoredKey {
    pub(in crate::cache) fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for StoredKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = String::from_utf8_lossy(&self.0[..self.0.len().min(SHOWN)]);
        shown.escape_debug().fmt(f)?;
        f.write_str(if self.0.len() > SHOWN { "..." } else { "" })
    }
}

/// What a key is for.
pub(super) enum Subject<A> {
    Argument(A),
    /// An argument too long to stand in its key.
    Hashed,
    /// No argument: no call ever looks there.
    Nothing,
}

/// A scan of a procedure's keys, see [`Cache::scan`].
#[derive(Debug)]
pub struct Scan<'a, P> {
    cache: &'a Cache,
    procedure: &'a P,
    pattern: String,
    /// `None`: that was all.
    cursor: Option<u64>,
}

impl<P: Procedure> Scan<'_, P> {
    /// The next keys, about 250 at most, possibly none; `None` at the end. Cancel safe: a page that was
    /// dropped comes the next time.
    pub async fn next_page(&mut self) -> Result<Option<Vec<StoredKey>>, Error> {
        let Some(cursor) = self.cursor else {
            return Ok(None);
        };
        let (next, page) = self.cache.page(cursor, Some(&self.pattern)).await?;
        self.cursor = (next != 0).then_some(next);
        let ours = page
            .into_iter()
            .filter(|key| self.cache.is_of(self.procedure, key));
        Ok(Some(ours.collect()))
    }
}

impl Cache {
    /// Scans the procedure's keys that match, in no order. A key may come twice; keys that are added or
    /// removed meanwhile may be missed.
    #[must_use]
    pub fn scan<'a, P: Procedure>(&'a self, procedure: &'a P, pattern: &KeyPattern) -> Scan<'a, P> {
        Scan {
            cache: self,
            procedure,
            pattern: self.glob(procedure.name(), pattern),
            cursor: Some(0),
        }
    }

    /// The key under which calls look for this argument's answer.
    #[must_use]
    pub fn key_of<P: Procedure>(&self, procedure: &P, argument: &P::Argument) -> StoredKey {
        let key = self.key(procedure.name(), argument);
        StoredKey(key.as_str().as_bytes().to_owned())
    }

    /// One step of SCAN: the cursor of the next one, and keys.
    pub(super) async fn page(
        &self,
        cursor: u64,
        pattern: Option<&str>,
    ) -> Result<(u64, Vec<StoredKey>), Error> {
        let page = self.store.scan(cursor, PAGE, pattern, INSPECT_DEADLINE);
        let (next, page) = self.ask(page).await?;
        Ok((next, page.into_iter().map(StoredKey).collect()))
    }

    pub(super) fn glob(
        &self,
        procedure: &ProcedureName,
        KeyPattern(pattern): &KeyPattern,
    ) -> String {
        self.prefix(procedure) + pattern
    }

    pub(super) fn is_of<P: Procedure>(&self, procedure: &P, key: &StoredKey) -> bool {
        self.subject(procedure, key).is_some()
    }

    /// What the key is for; `None` if it is not of this procedure here.
    pub(super) fn subject<P: Procedure>(
        &self,
        procedure: &P,
        key: &StoredKey,
    ) -> Option<Subject<P::Argument>> {
        let prefix = self.prefix(procedure.name());
        let behind = key.0.strip_prefix(prefix.as_bytes())?;
        if let Some(subject) = self.read(procedure, &key.0, behind) {
            return Some(subject);
        }
        // With a colon more it may be a longer namespace's.
        (!behind.contains(&b':')).then_some(Subject::Nothing)
    }

    fn read<P: Procedure>(
        &self,
        procedure: &P,
        key: &[u8],
        behind: &[u8],
    ) -> Option<Subject<P::Argument>> {
        let escaped = std::str::from_utf8(behind).ok()?;
        if let Some(hash) = escaped.strip_prefix(HASHED) {
            let is_hash = hash.len() == 64 && hash.bytes().all(|b| b.is_ascii_hexdigit());
            return is_hash.then_some(Subject::Hashed);
        }
        let text = percent_decode_str(escaped).decode_utf8().ok()?;
        // A procedure that panics over hostile text has refused it.
        let argument = catch_unwind(AssertUnwindSafe(|| {
            let argument = procedure.parse_argument(&text).ok()?;
            let canonical = self.key(procedure.name(), &argument);
            (canonical.as_str().as_bytes() == key).then_some(argument)
        }));
        argument.ok().flatten().map(Subject::Argument)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::{CacheOptions, Namespace};
    use crate::fibonacci::Fibonacci;

    /// Nothing listens there, and nothing has to.
    fn cache(namespace: Option<&str>) -> Cache {
        let mut options = CacheOptions::new("redis://127.0.0.1:1".parse().unwrap());
        options.namespace = namespace.map(|name| name.parse::<Namespace>().unwrap());
        Cache::open(options)
    }

    fn is(cache: &Cache, key: &str) -> &'static str {
        let key = StoredKey(key.as_bytes().to_owned());
        match cache.subject(&Fibonacci::default(), &key) {
            Some(Subject::Argument(_)) => "an argument",
            Some(Subject::Hashed) => "a hash",
            Some(Subject::Nothing) => "nothing",
            None => "another's",
        }
    }

    #[tokio::test]
    async fn keys_are_told_apart() {
        let hash = format!("fib:%sha256:{}", "0a".repeat(32));
        for (key, expected) in [
            ("fib:30", "an argument"),
            ("fib:18446744073709551615", "an argument"),
            // What no call looks for, since 30 has one key only.
            ("fib:030", "nothing"),
            ("fib:%330", "nothing"),
            ("fib:", "nothing"),
            ("fib:garbage\0", "nothing"),
            (&hash, "a hash"),
            // The namespaces `fib` and `fib:prod`.
            ("fib:fib:30", "another's"),
            ("fib:prod:fib:30", "another's"),
            ("fib:rpcache:worker:0", "another's"),
            ("fib:%sha256:0a", "another's"),
            ("fib", "another's"),
            ("prod:fib:30", "another's"),
            ("{fib:30}:lease", "another's"),
        ] {
            assert_eq!(is(&cache(None), key), expected, "{key:?}");
        }
        assert_eq!(is(&cache(Some("prod")), "prod:fib:30"), "an argument");
        assert_eq!(is(&cache(Some("prod")), "fib:30"), "another's");
    }

    #[tokio::test]
    async fn pattern_stands_behind_the_prefix() {
        let glob = |namespace, pattern: &str| {
            let fib = Fibonacci::default();
            cache(namespace).glob(fib.name(), &pattern.parse().unwrap())
        };
        assert_eq!(glob(None, "1*"), "fib:1*");
        assert_eq!(glob(Some("prod"), "10?"), "prod:fib:10?");
        for none in ["", &"x".repeat(101)] {
            assert!(none.parse::<KeyPattern>().is_err());
        }
    }

    #[test]
    fn key_is_shown_escaped_and_bounded() {
        let shown = |name: &[u8]| StoredKey(name.to_owned()).to_string();
        assert_eq!(shown(b"fib:30"), "fib:30");
        assert_eq!(shown(b"fib:\x1b[2J\n\xff"), "fib:\\u{1b}[2J\\n\u{fffd}");
        assert!(shown(&vec![0; 1 << 20]).len() < 5000);
    }
}
