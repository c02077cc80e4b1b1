//! Checks stored answers as calls do, and removes those that calls would refuse.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use super::entries::names;
use super::keys::Subject;
use super::{Cache, INSPECT_DEADLINE, StoredKey};
use crate::cache::store::{GetResult, Unchanged};
use crate::error::{Error, quote};
use crate::procedure::{Procedure, check};

/// Bytes that are read at once. A larger value is read in pieces: they may be of two values, but
/// there is one right answer only, so that a mixture of right ones is right.
const READ: usize = 256 * 1024;

/// Why calls would refuse an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum EntryFault {
    /// The key is no argument's: no call looks it up.
    NoArgument,
    /// It is no string.
    NoString,
    /// It is not UTF-8.
    NotUtf8,
    /// It cannot be read as an answer: peer text, escaped and shortened.
    Unreadable(String),
    /// It is not the answer for this argument: peer text, escaped and shortened.
    NotTheAnswer(String),
}

impl EntryFault {
    /// A short stable name for programs.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::NoArgument => "no-argument",
            Self::NoString => "no-string",
            Self::NotUtf8 => "not-utf8",
            Self::Unreadable(_) => "unreadable",
            Self::NotTheAnswer(_) => "not-the-answer",
        }
    }
}

impl fmt::Display for EntryFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoArgument => f.write_str("the key is no argument's"),
            Self::NoString => f.write_str("a value that is no string"),
            Self::NotUtf8 => f.write_str("not UTF-8"),
            Self::Unreadable(found) => write!(f, "not readable as an answer: \"{found}\""),
            Self::NotTheAnswer(found) => write!(f, "not the answer: \"{found}\""),
        }
    }
}

/// One entry that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct WrongEntry {
    /// Its key.
    pub key: StoredKey,
    /// What is wrong with it.
    pub fault: EntryFault,
    /// It has been removed. `false`: that was not asked for, or it has changed meanwhile.
    pub removed: bool,
}

/// The result of verifying entries; those that are gone are left out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Verified {
    /// Number of entries that are right.
    pub right: u64,
    /// Number of entries that cannot be checked: the argument is too long to stand in the key.
    pub unknown: u64,
    /// The entries that are wrong.
    pub wrong: Vec<WrongEntry>,
}

/// An entry to be read.
struct ToRead<'a, A> {
    key: &'a StoredKey,
    argument: Arc<A>,
    size: usize,
}

/// An entry that is wrong, with the size and the beginning of its text, where it is one, by which a change is
/// noticed.
struct Faulty<'a> {
    key: &'a StoredKey,
    fault: EntryFault,
    text: Option<(usize, Vec<u8>)>,
}

impl<'a> Faulty<'a> {
    fn of_no_text(key: &'a StoredKey, fault: EntryFault) -> Self {
        let text = None;
        Self { key, fault, text }
    }

    /// What has to be there still when it is removed.
    fn unchanged(&self) -> Unchanged<'_> {
        let key = self.key.as_bytes();
        match &self.text {
            // Nothing is right under such a key.
            _ if self.fault == EntryFault::NoArgument => Unchanged::Anything { key },
            None => Unchanged::NoString { key },
            Some((size, start)) => Unchanged::Text {
                key,
                size: *size,
                start,
            },
        }
    }
}

impl Cache {
    /// Checks what stands under these keys as calls do. With `repair` removes what is wrong, if it
    /// has not changed since it was read, so that the next call fills it; clients drop their copies
    /// as after [`remove_keys`](Self::remove_keys). Keys of other procedures are left out.
    pub async fn verify<P: Procedure>(
        &self,
        procedure: &Arc<P>,
        keys: &[StoredKey],
        repair: bool,
    ) -> Result<Verified, Error> {
        let mut verified = Verified::default();
        let (mut asked, mut found) = (Vec::new(), Vec::new());
        for (key, size) in keys.iter().zip(self.sizes(keys).await?) {
            match (self.subject(&**procedure, key), size) {
                (None, _) => {}
                (Some(Subject::Nothing), _) => {
                    found.push(Faulty::of_no_text(key, EntryFault::NoArgument));
                }
                (_, None) => found.push(Faulty::of_no_text(key, EntryFault::NoString)),
                (Some(Subject::Hashed), _) => verified.unknown += 1,
                (Some(Subject::Argument(argument)), Some(size)) => asked.push(ToRead {
                    key,
                    argument: Arc::new(argument),
                    size: usize::try_from(size).unwrap_or(usize::MAX),
                }),
            }
        }
        self.settle(found, repair, &mut verified).await?;
        let mut rest = &asked[..];
        while !rest.is_empty() {
            let (batch, later) = rest.split_at(fitting(rest.iter().map(|asked| asked.size)));
            rest = later;
            let mut found = Vec::new();
            for (asked, text) in batch.iter().zip(self.texts(batch).await?) {
                // It may be gone by now.
                let Some(text) = text else { continue };
                match check(procedure, &asked.argument, text).await {
                    Ok(_) => verified.right += 1,
                    Err(mut text) => {
                        let (key, fault) = (asked.key, fault_of(&**procedure, &text));
                        let size = text.len();
                        text.truncate(READ);
                        let text = Some((size, text));
                        found.push(Faulty { key, fault, text });
                    }
                }
            }
            self.settle(found, repair, &mut verified).await?;
        }
        Ok(verified)
    }

    /// Sizes in bytes; `None` where there is no string.
    async fn sizes(&self, keys: &[StoredKey]) -> Result<Vec<Option<u64>>, Error> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let names = names(keys);
        self.ask(self.store.sizes(&names, INSPECT_DEADLINE)).await
    }

    async fn texts<A>(&self, batch: &[ToRead<'_, A>]) -> Result<Vec<Option<Vec<u8>>>, Error> {
        if let [large] = batch
            && large.size > READ
        {
            return Ok(vec![self.large(large.key, large.size).await?]);
        }
        let names: Vec<_> = batch.iter().map(|asked| asked.key.as_bytes()).collect();
        let found = self.store.get_many(&names, INSPECT_DEADLINE).await;
        let found = found.map_err(|error| self.error(error))?;
        let text = |found: GetResult| match found {
            // It has become something else meanwhile.
            Err(error) if error.no_answer().is_some() => Ok(None),
            found => found.map_err(|error| self.error(error)),
        };
        found.into_iter().map(text).collect()
    }

    /// Reads a large value in pieces; `None` if it is not there any more.
    async fn large(&self, key: &StoredKey, size: usize) -> Result<Option<Vec<u8>>, Error> {
        let mut text = Vec::new();
        while text.len() < size {
            let (from, to) = (text.len(), (text.len() + READ).min(size) - 1);
            let piece = self
                .store
                .read_range(key.as_bytes(), from, to, INSPECT_DEADLINE);
            match self.ask(piece).await? {
                Some(piece) => text.extend(piece),
                None => return Ok(None),
            }
        }
        Ok(Some(text))
    }

    /// Reports entries as wrong, and removes them if that is asked for.
    async fn settle(
        &self,
        found: Vec<Faulty<'_>>,
        repair: bool,
        verified: &mut Verified,
    ) -> Result<(), Error> {
        let removed = if repair && !found.is_empty() {
            self.remove_unchanged(&found).await?
        } else {
            vec![false; found.len()]
        };
        let wrong = found.into_iter().zip(removed);
        verified
            .wrong
            .extend(wrong.map(|(found, removed)| WrongEntry {
                key: found.key.clone(),
                fault: found.fault,
                removed,
            }));
        Ok(())
    }

    async fn remove_unchanged(&self, found: &[Faulty<'_>]) -> Result<Vec<bool>, Error> {
        let entries: Vec<_> = found.iter().map(Faulty::unchanged).collect();
        let removed = self.store.remove_unchanged(&entries, INSPECT_DEADLINE);
        let removed = self.ask(removed).await?;
        // Also of what had changed meanwhile: dropping a copy costs a lookup.
        let keys: Vec<_> = found.iter().map(|found| found.key).collect();
        self.purge_copies_of(keys).await;
        Ok(removed)
    }
}

/// How many of the values are read together: at least one.
fn fitting(sizes: impl Iterator<Item = usize>) -> usize {
    let mut sum = 0_usize;
    let fit = sizes.take_while(|&size| {
        sum = sum.saturating_add(size);
        sum <= READ
    });
    fit.count().max(1)
}

fn fault_of<P: Procedure>(procedure: &P, text: &[u8]) -> EntryFault {
    // A panic over hostile text refuses it.
    let is_answer = catch_unwind(AssertUnwindSafe(|| procedure.parse_answer(text).is_some()));
    match is_answer {
        Ok(true) => EntryFault::NotTheAnswer(quote(text)),
        Ok(false) if std::str::from_utf8(text).is_err() => EntryFault::NotUtf8,
        Ok(false) | Err(_) => EntryFault::Unreadable(quote(text)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fibonacci::Fibonacci;

    #[test]
    fn values_are_read_together_up_to_a_limit() {
        let fitting = |sizes: &[usize]| fitting(sizes.iter().copied());
        assert_eq!(fitting(&[1; 1000]), 1000);
        assert_eq!(fitting(&[READ / 2, READ / 2, 0, 1]), 3);
        assert_eq!(fitting(&[READ + 1, 1]), 1);
        assert_eq!(fitting(&[1, READ]), 1);
        assert_eq!(fitting(&[usize::MAX, usize::MAX]), 1);
    }

    #[test]
    fn reasons_are_told_apart() {
        let why = |text: &[u8]| fault_of(&Fibonacci::default(), text).code();
        assert_eq!(why(b"832041"), "not-the-answer");
        for unreadable in [&b""[..], b"0832040", b"832040\n", b"-1"] {
            assert_eq!(why(unreadable), "unreadable");
        }
        assert_eq!(why(b"\xff"), "not-utf8");
        let shown = fault_of(&Fibonacci::default(), b"8\x1b[2J").to_string();
        assert_eq!(shown, "not readable as an answer: \"8\\u{1b}[2J\"");
    }
}
