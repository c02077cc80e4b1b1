//! Decides when calls are due: at once (closed loop), or at even intervals (open loop).

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;

use crate::args::Bench;

/// Time after the end in which a call that was due before may start.
const GRACE: Duration = Duration::from_millis(10);

/// Hands out the turns of a run, from its start to its end.
pub(super) struct Pace {
    started: OnceLock<Instant>,
    /// Duration of the run; `None` with `--calls`.
    duration: Option<Duration>,
    /// Number of calls of the whole run, if it is known.
    planned: Option<u64>,
    begun: AtomicU64,
    open: Option<Open>,
}

/// The open loop. Calls that are due and have not begun are permits of a semaphore, so a backlog takes no memory.
struct Open {
    rate: u32,
    due: Semaphore,
    tasks: usize,
}

/// One call that is due.
pub(super) struct Turn {
    /// Its number, from 0 on.
    pub(super) number: u64,
    /// The time when it was due.
    pub(super) since: Instant,
}

impl Pace {
    pub(super) fn new(bench: &Bench) -> Self {
        let within = |rate: u32| (bench.duration.as_secs_f64() * f64::from(rate)).ceil();
        Self {
            started: OnceLock::new(),
            duration: bench.calls.is_none().then_some(bench.duration),
            planned: bench.calls.or(bench.rate.map(within).map(whole)),
            begun: AtomicU64::new(0),
            open: bench.rate.map(|rate| Open {
                rate,
                due: Semaphore::new(0),
                tasks: bench.concurrency.into(),
            }),
        }
    }

    /// Starts the run at the first call, and returns when that was.
    pub(super) fn start(&self) -> Instant {
        *self.started.get_or_init(Instant::now)
    }

    pub(super) fn elapsed(&self) -> Duration {
        self.start().elapsed()
    }

    /// Waits until the next call is due; `None` when there are no more.
    pub(super) async fn turn(&self) -> Option<Turn> {
        if let Some(open) = &self.open {
            open.due.acquire().await.ok()?.forget();
            let number = self.take()?;
            let since = self.start() + open.after(number);
            return Some(Turn { number, since });
        }
        let since = Instant::now();
        let is_over = |duration| since >= self.start() + duration;
        if self.duration.is_some_and(is_over) {
            return None;
        }
        let number = self.take()?;
        Some(Turn { number, since })
    }

    fn take(&self) -> Option<u64> {
        let number = self.begun.fetch_add(1, Ordering::Relaxed);
        let is_one = self.planned.is_none_or(|planned| number < planned);
        is_one.then_some(number)
    }

    /// Releases each call of an open loop when it is due, until all are released or the time is up. Blocks.
    pub(super) fn release(&self) {
        let (Some(open), Some(planned)) = (&self.open, self.planned) else {
            return;
        };
        let mut released = 0;
        while released < planned {
            let due = open.due_by(self.elapsed()).min(planned);
            // The number of calls that are due fits a usize.
            let more = usize::try_from(due - released).unwrap_or_default();
            open.due.add_permits(more);
            released = due;
            self.sleep_until(open.after(released));
        }
        if let Some(duration) = self.duration {
            self.sleep_until(duration + GRACE);
            open.due.close();
        } else {
            // These permits find no call left, which ends the tasks.
            open.due.add_permits(open.tasks);
        }
    }

    fn sleep_until(&self, after_start: Duration) {
        sleep(after_start.saturating_sub(self.elapsed()));
    }

    /// Number of calls that have begun.
    pub(super) fn begun(&self) -> u64 {
        let begun = self.begun.load(Ordering::Relaxed);
        self.planned.map_or(begun, |planned| begun.min(planned))
    }

    /// Number of calls that are due and have not begun.
    pub(super) fn not_started(&self) -> u64 {
        let (Some(open), Some(planned)) = (&self.open, self.planned) else {
            return 0;
        };
        let due = open.due_by(self.elapsed()).min(planned);
        due.saturating_sub(self.begun())
    }
}

impl Open {
    /// Time from the start until this call is due.
    #[expect(clippy::cast_precision_loss, reason = "microseconds in years")]
    fn after(&self, number: u64) -> Duration {
        Duration::from_secs_f64(number as f64 / f64::from(self.rate))
    }

    /// Number of calls that are due by this time after the start; the first is due at once.
    fn due_by(&self, elapsed: Duration) -> u64 {
        whole(elapsed.as_secs_f64() * f64::from(self.rate)) + 1
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "never negative, and the cast saturates"
)]
fn whole(number: f64) -> u64 {
    number as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(rate: u32, planned: u64, duration: Option<Duration>) -> Pace {
        Pace {
            started: OnceLock::new(),
            duration,
            planned: Some(planned),
            begun: AtomicU64::new(0),
            open: Some(Open {
                rate,
                due: Semaphore::new(0),
                tasks: 1,
            }),
        }
    }

    #[tokio::test]
    async fn calls_are_due_at_even_intervals_from_the_start() {
        let pace = open(10_000, 3, None);
        pace.release();
        for number in 0..3 {
            let turn = pace.turn().await.unwrap();
            assert_eq!(turn.number, number);
            let due = turn.since - pace.start();
            assert_eq!(
                due,
                Duration::from_micros(100) * u32::try_from(number).unwrap()
            );
        }
        assert!(pace.turn().await.is_none(), "more calls than planned");
        assert_eq!((pace.begun(), pace.not_started()), (3, 0));
    }

    #[tokio::test]
    async fn calls_without_time_to_start_are_counted() {
        let pace = open(100_000, 5, Some(Duration::from_micros(50)));
        pace.release();
        assert!(pace.turn().await.is_none(), "after the end");
        assert_eq!((pace.begun(), pace.not_started()), (0, 5));
    }
}
