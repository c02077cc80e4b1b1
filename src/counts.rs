//! What is counted, once, for all who want to know: announcements, health and metrics read the same
//! numbers.
//!
//! Who counts does so by relaxed additions, a hit by three of them, and waits for nobody; who reads
//! may find numbers of slightly different moments beside each other. Labels are bounded by types: a
//! source, a code, never a key. Pure.

mod histogram;
mod refusals;
mod standing;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

pub(crate) use self::histogram::{BOUNDS, Histogram};
pub(crate) use self::refusals::Refusals;
pub(crate) use self::standing::{Standing, State};
use crate::error::Error;
use crate::source::Source;

/// Something that happens again and again.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn count(&self) {
        self.add(1);
    }

    pub(crate) fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// How many there are at the moment.
#[derive(Debug, Default)]
pub(crate) struct Gauge(AtomicU64);

/// One of them, until it is dropped.
#[must_use]
pub(crate) struct Present<'a>(&'a Gauge);

impl Gauge {
    pub(crate) fn enter(&self) -> Present<'_> {
        self.0.fetch_add(1, Ordering::Relaxed);
        Present(self)
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Drop for Present<'_> {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// One of each for every source of an answer.
#[derive(Debug, Default)]
pub(crate) struct BySource<T> {
    local: T,
    cache: T,
    shared: T,
    computed: T,
}

impl<T> BySource<T> {
    pub(crate) fn of(&self, source: Source) -> &T {
        match source {
            Source::Local => &self.local,
            Source::Cache => &self.cache,
            Source::Shared => &self.shared,
            Source::Computed => &self.computed,
        }
    }

    #[cfg(feature = "metrics")]
    pub(crate) fn each(&self) -> impl Iterator<Item = (Source, &T)> {
        Source::ALL
            .into_iter()
            .map(|source| (source, self.of(source)))
    }
}

/// Failures by [`Error::code`].
#[derive(Debug, Default)]
pub(crate) struct ByCode([Counter; Error::CODES.len()]);

impl ByCode {
    pub(crate) fn of(&self, code: &str) -> Option<&Counter> {
        let place = Error::CODES.iter().position(|known| *known == code);
        self.0.get(place?)
    }

    /// What does not stand in [`Error::CODES`] is not counted: a test sees to it that all do.
    pub(crate) fn count(&self, code: &str) {
        if let Some(counter) = self.of(code) {
            counter.count();
        }
    }

    pub(crate) fn total(&self) -> u64 {
        self.0.iter().map(Counter::get).sum()
    }
}

/// What a client counts of its calls.
#[derive(Debug, Default)]
pub(crate) struct Calls {
    /// From the start of a call to its answer.
    pub(crate) answered: BySource<Histogram>,
    pub(crate) failed: ByCode,
    /// Calls that joined another one's flight, whatever came of it.
    pub(crate) shared_flights: Counter,
    /// Answers of workers that were refused.
    pub(crate) wrong_answers: Counter,
    /// Requests that await their reply.
    pub(crate) in_flight: Gauge,
}

/// What a cache counts.
#[derive(Debug, Default)]
pub(crate) struct CacheCounts {
    /// Looks for an answer. Who waits for another's answer looks many times and is counted once.
    pub(crate) hits: Counter,
    /// Nothing stood there.
    pub(crate) misses: Counter,
    /// What stood there was not the answer.
    pub(crate) poisoned: Counter,
    /// Redis was not there, too late, or refused.
    pub(crate) unanswered: Counter,
    /// Answers that Redis has taken.
    pub(crate) stored: Counter,
    /// Above the limit for what is stored.
    pub(crate) too_large: Counter,
    /// Redis would not take them: it is full, read-only, or this login may not.
    pub(crate) refused: Counter,
    /// Redis was not there, or too late to say.
    pub(crate) unconfirmed: Counter,
    pub(crate) redis: Standing,
    /// Why Redis stores nothing although it is there.
    pub(crate) refusals: Refusals,
}

/// A connection to the broker, and whether that is in alarm.
#[derive(Debug, Default)]
pub(crate) struct BrokerCounts {
    pub(crate) standing: Standing,
    blocked: AtomicBool,
}

impl BrokerCounts {
    /// The broker has raised an alarm and takes no messages, or does so again.
    pub(crate) fn blocks(&self, blocked: bool) {
        self.blocked.store(blocked, Ordering::Relaxed);
    }

    pub(crate) fn is_blocked(&self) -> bool {
        self.blocked.load(Ordering::Relaxed)
    }

    /// There is a fresh connection, of which no alarm is known. What was known before.
    pub(crate) fn up(&self) -> State {
        self.blocks(false);
        self.standing.up()
    }

    /// There is none. What was known before.
    pub(crate) fn down(&self, error: Error) -> State {
        self.blocks(false);
        self.standing.down(error)
    }

    /// A connection has ended by itself.
    pub(crate) fn lost(&self, error: Error) {
        self.standing.lost.count();
        self.down(error);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorCode;
    use crate::tls::TlsFault;
    use std::time::Duration;

    #[test]
    fn every_failure_is_counted_under_its_code_and_no_other() {
        let text = String::new;
        let failed = |code| Error::Failed {
            code,
            message: text(),
        };
        let errors = [
            failed(ErrorCode::BadArgument),
            failed(ErrorCode::TooLarge),
            failed(ErrorCode::Failed),
            failed(ErrorCode::Expired),
            failed(ErrorCode::Poison),
            failed(ErrorCode::Overloaded),
            Error::WrongAnswer { quoted: text() },
            Error::Deadline {
                timeout: Duration::ZERO,
            },
            Error::NobodyServing { queue: text() },
            Error::Unreachable {
                server: text(),
                reason: text(),
            },
            Error::Tls {
                server: text(),
                fault: TlsFault::NotSpoken,
            },
            Error::Refused {
                server: text(),
                reason: text(),
            },
        ];
        let counts = ByCode::default();
        for (n, error) in (1..).zip(&errors) {
            for _ in 0..n {
                counts.count(error.code());
            }
        }
        counts.count("no code at all");
        for (n, error) in (1..).zip(&errors) {
            assert_eq!(counts.of(error.code()).map(Counter::get), Some(n));
        }
        assert_eq!(counts.total(), (1..=12).sum::<u64>());
        assert_eq!(errors.len(), Error::CODES.len());
    }

    #[test]
    fn who_leaves_is_not_present() {
        let gauge = Gauge::default();
        let (one, other) = (gauge.enter(), gauge.enter());
        assert_eq!(gauge.get(), 2);
        drop(one);
        assert_eq!(gauge.get(), 1);
        drop(other);
        assert_eq!(gauge.get(), 0);
    }
}
