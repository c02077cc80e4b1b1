//! A mutex that serves the latest waiter first and has a bounded number of waiters.
//!
//! The latest first, because a flood fills the queue with old waiters: a request that comes after the flood does
//! not wait for the rest of it.

use std::collections::VecDeque;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

/// When there are more, the one that has waited longest gives up.
const MAX_WAITING: usize = 32;

/// A value behind an async mutex.
#[derive(Debug, Default)]
pub(super) struct LifoLock<T: Default>(Arc<Shared<T>>);

#[derive(Debug, Default)]
struct Shared<T: Default>(Mutex<State<T>>);

#[derive(Debug, Default)]
struct State<T: Default> {
    /// The value, while it is not locked.
    value: T,
    locked: bool,
    /// The latest at the back.
    waiting: VecDeque<oneshot::Sender<LifoGuard<T>>>,
}

/// The locked value. Dropping it unlocks.
#[derive(Debug)]
pub(super) struct LifoGuard<T: Default> {
    value: T,
    shared: Arc<Shared<T>>,
}

impl<T: Default> LifoLock<T> {
    /// Waits for the lock; `None` when too many waiters have come since. Cancel safe.
    pub(super) async fn lock(&self) -> Option<LifoGuard<T>> {
        let shared = &self.0;
        let guard = {
            let mut state = shared.lock();
            if !state.locked {
                state.locked = true;
                let value = std::mem::take(&mut state.value);
                let shared = Arc::clone(shared);
                return Some(LifoGuard { value, shared });
            }
            state.waiting.retain(|waiting| !waiting.is_closed());
            if state.waiting.len() >= MAX_WAITING {
                state.waiting.pop_front();
            }
            let (sender, guard) = oneshot::channel();
            state.waiting.push_back(sender);
            guard
        };
        guard.await.ok()
    }
}

impl<T: Default> Shared<T> {
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        // Nothing panics while it is held.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: Default> Deref for LifoGuard<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T: Default> DerefMut for LifoGuard<T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.value
    }
}

impl<T: Default> Drop for LifoGuard<T> {
    fn drop(&mut self) {
        let value = std::mem::take(&mut self.value);
        let next = {
            let mut state = self.shared.lock();
            let Some(next) = state.waiting.pop_back() else {
                state.value = value;
                state.locked = false;
                return;
            };
            next
        };
        let shared = Arc::clone(&self.shared);
        // If that waiter is gone, the guard is dropped here and wakes the waiter before it.
        let _ = next.send(LifoGuard { value, shared });
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn latest_waiter_is_next_and_the_oldest_one_gives_up() {
        let lock = LifoLock::<u32>::default();
        let mut first = lock.lock().await.expect("not locked yet");
        *first = 7;
        let mut waiting: Vec<_> = (0..=MAX_WAITING).map(|_| Box::pin(lock.lock())).collect();
        for guard in &mut waiting {
            assert!(guard.now_or_never().is_none());
        }
        assert!(waiting.remove(0).await.is_none(), "one too many");
        drop(first);
        for guard in waiting.iter_mut().rev() {
            let guard = guard.now_or_never().flatten();
            assert_eq!(guard.as_deref(), Some(&7));
        }
    }

    #[tokio::test]
    async fn lock_passes_over_waiters_that_are_gone() {
        let lock = LifoLock::<u32>::default();
        let first = lock.lock().await;
        let mut waiting: Vec<_> = (0..4).map(|_| Box::pin(lock.lock())).collect();
        for guard in &mut waiting {
            assert!(guard.now_or_never().is_none());
        }
        // One before it is sent, one after.
        drop(waiting.remove(2));
        drop(first);
        drop(waiting.pop());
        let last = waiting.remove(0);
        assert!(waiting.remove(0).await.is_some());
        assert!(last.await.is_some());
        assert!(lock.lock().await.is_some());
    }
}
