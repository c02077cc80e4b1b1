//! Limits how many tests work at once, whatever the number of threads.
//!
//! There are more threads than places, because several tests wait for each other: those of the RabbitMQ cluster and
//! those of the broker with low limits. A test that waits for that takes no place from others.

use std::cell::OnceCell;
use std::sync::{Condvar, Mutex, PoisonError};

/// The number of tests for each processor: while one waits for a server or a limit, another computes.
const FOR_EACH_PROCESSOR: usize = 2;

static TAKEN: Mutex<usize> = Mutex::new(0);
static LEFT: Condvar = Condvar::new();

thread_local! {
    /// The place of the test of this thread, which has it until it ends.
    static PLACE: OnceCell<Place> = const { OnceCell::new() };
}

struct Place;

/// Waits until there is a place for the test of this thread, unless it has one.
pub(crate) fn take() {
    PLACE.with(|place| {
        place.get_or_init(Place::next);
    });
}

impl Place {
    fn next() -> Self {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
        let mut taken = LEFT
            .wait_while(taken, |taken| *taken >= FOR_EACH_PROCESSOR * processors)
            .unwrap_or_else(PoisonError::into_inner);
        *taken += 1;
        Self
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        *TAKEN.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        LEFT.notify_one();
    }
}
