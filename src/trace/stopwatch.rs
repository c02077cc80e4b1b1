//! Measures the steps of a worker's work on one request: as spans, and as a report in the reply.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::Either;
use tokio::time::Instant;
use tracing::Instrument as _;

use super::on;
use super::spans::Work;
use super::steps::{Step, Steps};

/// Measures steps since a request was received. Clones share the measurements.
#[derive(Debug, Clone)]
pub(crate) struct Stopwatch {
    pub(crate) taken: Instant,
    /// `None`: the request does not ask for a report.
    steps: Option<Arc<Mutex<Steps>>>,
}

impl Stopwatch {
    pub(crate) fn start(taken: Instant, asked: bool) -> Self {
        Self {
            taken,
            steps: asked.then(Arc::default),
        }
    }

    /// Whether steps are reported or recorded.
    fn is_on(&self) -> bool {
        self.steps.is_some() || on()
    }

    /// Runs and measures a step. Boxed only if it is measured. A cancelled step is not reported.
    pub(crate) fn step<F: Future>(&self, work: Work, does: F) -> impl Future<Output = F::Output> {
        if !self.is_on() {
            return Either::Left(does);
        }
        let (watch, span) = (self.clone(), work.span());
        Either::Right(Box::pin(async move {
            let begun = Instant::now();
            let done = does.instrument(span).await;
            watch.record(work, begun);
            done
        }))
    }

    /// Runs and measures a step that does not wait.
    pub(crate) fn step_now<T>(&self, work: Work, does: impl FnOnce() -> T) -> T {
        if !self.is_on() {
            return does();
        }
        let begun = Instant::now();
        let done = work.span().in_scope(does);
        self.record(work, begun);
        done
    }

    /// Adds a step that started at `begun` and ends now to the report.
    pub(crate) fn record(&self, work: Work, begun: Instant) {
        let Some(steps) = &self.steps else { return };
        let step = Step {
            name: work.name().to_owned(),
            started_us: micros(begun.saturating_duration_since(self.taken)),
            took_us: micros(begun.elapsed()),
        };
        // Nothing panics while the lock is held.
        let mut steps = steps.lock().unwrap_or_else(PoisonError::into_inner);
        steps.push(step);
    }

    /// The steps so far and the total time, for the reply; `None` if the request does not ask.
    pub(crate) fn report(&self) -> Option<Box<Steps>> {
        let steps = self.steps.as_ref()?.lock();
        let steps = steps.unwrap_or_else(PoisonError::into_inner).clone();
        Some(Box::new(steps.ended_after(micros(self.taken.elapsed()))))
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
