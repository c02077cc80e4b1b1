//! Counters and connection states of clients, workers and caches. Pure.
//!
//! Announcements, health checks and metrics read the same counters. Writers use relaxed atomic adds (three
//! per hit) and never block; a reader may see counters of slightly different moments side by side. Labels are
//! bounded by types: a source or an error code, never a key.

mod connection_state;
mod histogram;
mod refusals;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

pub(crate) use self::connection_state::{ConnectionMonitor, ConnectionState};
pub(crate) use self::histogram::{BOUNDS, Histogram};
pub(crate) use self::refusals::Refusals;
use crate::error::Error;
use crate::source::Source;

/// Counts events; never decreases.
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

/// Counts what is present at the moment.
#[derive(Debug, Default)]
pub(crate) struct Gauge(AtomicU64);

/// Counts as one in its [`Gauge`] until dropped.
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

/// A value for each source of an answer.
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

/// Counts failures by [`Error::code`].
#[derive(Debug, Default)]
pub(crate) struct ByCode([Counter; Error::CODES.len()]);

impl ByCode {
    pub(crate) fn of(&self, code: &str) -> Option<&Counter> {
        let index = Error::CODES.iter().position(|known| *known == code);
        self.0.get(index?)
    }

    /// Counts a failure. Ignores a code that is not in [`Error::CODES`]; a test checks that every error's code
    /// is.
    pub(crate) fn count(&self, code: &str) {
        if let Some(counter) = self.of(code) {
            counter.count();
        }
    }

    pub(crate) fn total(&self) -> u64 {
        self.0.iter().map(Counter::get).sum()
    }
}

/// Counts a client's calls.
#[derive(Debug, Default)]
pub(crate) struct Calls {
    /// From the start of a call to its answer.
    pub(crate) answered: BySource<Histogram>,
    pub(crate) failed: ByCode,
    /// Calls that joined another call's flight, whatever its outcome.
    pub(crate) shared_flights: Counter,
    /// Answers of workers that did not pass verification.
    pub(crate) wrong_answers: Counter,
    /// Requests that wait for their reply.
    pub(crate) in_flight: Gauge,
}

/// Counts a cache's lookups and fills.
#[derive(Debug, Default)]
pub(crate) struct CacheCounts {
    /// Lookups that found an answer. Only the first lookup of a call counts: polls while another worker holds
    /// the lease do not.
    pub(crate) hits: Counter,
    /// Lookups of a key that does not exist.
    pub(crate) misses: Counter,
    /// Lookups of a key whose value is not the answer.
    pub(crate) poisoned: Counter,
    /// Lookups without a result: Redis was disconnected, too late, or refused.
    pub(crate) unanswered: Counter,
    /// Answers that Redis has stored.
    pub(crate) stored: Counter,
    /// Answers above the size limit for storing.
    pub(crate) too_large: Counter,
    /// Fills that Redis refused: it is full, read-only, or this login lacks the right.
    pub(crate) refused: Counter,
    /// Fills without a confirmation: Redis was disconnected or too late.
    pub(crate) unconfirmed: Counter,
    pub(crate) redis: Arc<ConnectionMonitor>,
    /// Why a connected Redis stores nothing.
    pub(crate) refusals: Refusals,
}

/// Tracks the connection to the broker, and whether the broker has raised an alarm.
#[derive(Debug, Default)]
pub(crate) struct BrokerCounts {
    pub(crate) connection: ConnectionMonitor,
    blocked: AtomicBool,
}

impl BrokerCounts {
    /// Records whether the broker has raised an alarm: it accepts no messages until the alarm ends.
    pub(crate) fn set_blocked(&self, blocked: bool) {
        self.blocked.store(blocked, Ordering::Relaxed);
    }

    pub(crate) fn is_blocked(&self) -> bool {
        self.blocked.load(Ordering::Relaxed)
    }

    /// Records a new connection, without an alarm. Returns the state before.
    pub(crate) fn up(&self) -> ConnectionState {
        self.set_blocked(false);
        self.connection.up()
    }

    /// Records that there is no connection, and why. Returns the state before.
    pub(crate) fn down(&self, error: Error) -> ConnectionState {
        self.set_blocked(false);
        self.connection.down(error)
    }

    /// Records the loss of an established connection.
    pub(crate) fn lost(&self, error: Error) {
        self.connection.lost.count();
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
            Error::NoWorkers { queue: text() },
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
    fn dropped_presence_is_not_counted() {
        let gauge = Gauge::default();
        let (one, other) = (gauge.enter(), gauge.enter());
        assert_eq!(gauge.get(), 2);
        drop(one);
        assert_eq!(gauge.get(), 1);
        drop(other);
        assert_eq!(gauge.get(), 0);
    }
}
