//! Counts the deliveries that a worker holds, and those that only wait for another request's computation: they occupy
//! the prefetch, and when half of a window does so, another one is opened.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::watch;

/// The most deliveries held in all windows together. Above it no further window is opened.
const MAX_HELD: usize = 1024;

/// Counts the deliveries held in all windows, and how many of the newest window only wait. Clones share the
/// counts.
#[derive(Debug, Clone)]
pub(super) struct PrefetchWindow(Arc<watch::Sender<Held>>);

#[derive(Debug, Default)]
struct Held {
    /// Deliveries in all windows.
    total: usize,
    /// The newest window's number.
    window: u64,
    /// Deliveries in the newest window that only wait.
    waiting: usize,
}

/// One delivery's place in its window, until it is settled or dropped.
#[derive(Debug)]
pub(super) struct Permit {
    windows: PrefetchWindow,
    window: u64,
    waits: AtomicBool,
}

impl PrefetchWindow {
    pub(super) fn new() -> Self {
        Self(Arc::new(watch::Sender::default()))
    }

    pub(super) fn permit(&self) -> Permit {
        let mut window = 0;
        self.0.send_if_modified(|held| {
            held.total += 1;
            window = held.window;
            false
        });
        Permit {
            windows: self.clone(),
            window,
            waits: AtomicBool::new(false),
        }
    }

    /// Waits until half of the newest window only waits and there is room for another one below [`MAX_HELD`].
    pub(super) async fn half_waits(&self, prefetch: u16) {
        let prefetch = usize::from(prefetch);
        let half_waits =
            |held: &Held| held.waiting * 2 >= prefetch.max(1) && held.total + prefetch <= MAX_HELD;
        // Cannot fail: the sender is ours.
        let _ = self.0.subscribe().wait_for(half_waits).await;
    }

    /// Waits until no delivery is held.
    pub(super) async fn all_settled(&self) {
        // Cannot fail: the sender is ours.
        let _ = self.0.subscribe().wait_for(|held| held.total == 0).await;
    }

    pub(super) fn start_next(&self) {
        self.0.send_modify(|held| {
            held.window += 1;
            held.waiting = 0;
        });
    }
}

impl Permit {
    /// A permit of a window of its own.
    #[cfg(test)]
    pub(super) fn alone() -> Self {
        PrefetchWindow::new().permit()
    }

    /// Notes that the request only waits for what is computed for another one.
    pub(super) fn mark_waiting(&self) {
        if self.waits.swap(true, Ordering::Relaxed) {
            return;
        }
        self.windows.0.send_if_modified(|held| {
            let newest = self.window == held.window;
            held.waiting += usize::from(newest);
            newest
        });
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let waited = *self.waits.get_mut();
        self.windows.0.send_if_modified(|held| {
            held.total -= 1;
            if waited && self.window == held.window {
                held.waiting -= 1;
            }
            // There may be room for another window now, or none held at all.
            held.waiting > 0 || held.total == 0
        });
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    fn half_waits(windows: &PrefetchWindow, prefetch: u16) -> bool {
        windows.half_waits(prefetch).now_or_never().is_some()
    }

    #[test]
    fn another_window_is_due_when_half_of_the_newest_one_waits() {
        let windows = PrefetchWindow::new();
        let permits: Vec<Permit> = (0..10).map(|_| windows.permit()).collect();
        for permit in &permits[..4] {
            permit.mark_waiting();
            permit.mark_waiting();
        }
        assert!(!half_waits(&windows, 10), "each counts once");
        permits[4].mark_waiting();
        assert!(half_waits(&windows, 10));
        windows.start_next();
        permits[5].mark_waiting();
        assert!(
            !half_waits(&windows, 10),
            "the former window does not count"
        );
        let newest: Vec<Permit> = (0..5).map(|_| windows.permit()).collect();
        newest.iter().for_each(Permit::mark_waiting);
        assert!(half_waits(&windows, 10));
        drop(newest);
        assert!(!half_waits(&windows, 10));
        drop(permits);
        let held = windows.0.borrow();
        assert_eq!((held.total, held.waiting), (0, 0));
    }

    #[tokio::test]
    async fn no_further_window_is_due_until_there_is_room() {
        let windows = PrefetchWindow::new();
        let mut permits: Vec<Permit> = (0..MAX_HELD).map(|_| windows.permit()).collect();
        permits.iter().for_each(Permit::mark_waiting);
        assert!(!half_waits(&windows, 10));
        let waiting = tokio::spawn({
            let windows = windows.clone();
            async move { windows.half_waits(10).await }
        });
        tokio::task::yield_now().await;
        permits.truncate(MAX_HELD - 10);
        waiting.await.unwrap();
    }
}
