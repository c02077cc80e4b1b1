//! What a worker does for one request, step by step: as spans, and told to a caller who asks.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::Either;
use tokio::time::Instant;
use tracing::Instrument as _;

use super::on;
use super::spans::Work;
use super::steps::{Step, Steps};

/// Runs from the moment when a request was taken. Clones are the same one.
#[derive(Debug, Clone)]
pub(crate) struct Stopwatch {
    pub(crate) taken: Instant,
    /// `None`: nobody has asked.
    steps: Option<Arc<Mutex<Steps>>>,
}

impl Stopwatch {
    pub(crate) fn start(taken: Instant, asked: bool) -> Self {
        Self {
            taken,
            steps: asked.then(Arc::default),
        }
    }

    /// Whether its steps are to be seen by anybody.
    fn runs(&self) -> bool {
        self.steps.is_some() || on()
    }

    /// Does a step: as it is where nobody sees it, else in a box. One that is given up is not told.
    pub(crate) fn step<F: Future>(&self, work: Work, does: F) -> impl Future<Output = F::Output> {
        if !self.runs() {
            return Either::Left(does);
        }
        let (watch, span) = (self.clone(), work.span());
        Either::Right(Box::pin(async move {
            let begun = Instant::now();
            let done = does.instrument(span).await;
            watch.note(work, begun);
            done
        }))
    }

    /// The same for what takes no time of others.
    pub(crate) fn step_now<T>(&self, work: Work, does: impl FnOnce() -> T) -> T {
        if !self.runs() {
            return does();
        }
        let begun = Instant::now();
        let done = work.span().in_scope(does);
        self.note(work, begun);
        done
    }

    /// A step has ended that began then.
    pub(crate) fn note(&self, work: Work, begun: Instant) {
        let Some(steps) = &self.steps else { return };
        let step = Step {
            name: work.name().to_owned(),
            started_us: micros(begun.saturating_duration_since(self.taken)),
            took_us: micros(begun.elapsed()),
        };
        // Nothing panics while it is held.
        let mut steps = steps.lock().unwrap_or_else(PoisonError::into_inner);
        steps.push(step);
    }

    /// What is told with the reply that is about to be sent.
    pub(crate) fn told(&self) -> Option<Box<Steps>> {
        let steps = self.steps.as_ref()?.lock();
        let steps = steps.unwrap_or_else(PoisonError::into_inner).clone();
        Some(Box::new(steps.ended_after(micros(self.taken.elapsed()))))
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
