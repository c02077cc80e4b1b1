//! One at a time, the latest first, and no more than a few that wait.
//!
//! The latest first, since whoever floods it fills it with old ones: what comes after a flood does not wait
//! for what is left of it.

use std::collections::VecDeque;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

/// When more wait, the one that has waited longest is given up.
const MAX_WAITING: usize = 32;

/// A value that is lent to one at a time.
#[derive(Debug, Default)]
pub(super) struct Turns<T: Default>(Arc<Shared<T>>);

#[derive(Debug, Default)]
struct Shared<T: Default>(Mutex<Line<T>>);

#[derive(Debug, Default)]
struct Line<T: Default> {
    /// What the next turn begins with, while `lent` is false.
    value: T,
    lent: bool,
    /// The latest at the back.
    waiting: VecDeque<oneshot::Sender<Turn<T>>>,
}

/// The value, lent until this is dropped.
#[derive(Debug)]
pub(super) struct Turn<T: Default> {
    value: T,
    shared: Arc<Shared<T>>,
}

impl<T: Default> Turns<T> {
    /// Waits for the turn; `None` when too many have come since. Cancel safe.
    pub(super) async fn enter(&self) -> Option<Turn<T>> {
        let shared = &self.0;
        let turn = {
            let mut line = shared.lock();
            if !line.lent {
                line.lent = true;
                let value = std::mem::take(&mut line.value);
                let shared = Arc::clone(shared);
                return Some(Turn { value, shared });
            }
            line.waiting.retain(|waiting| !waiting.is_closed());
            if line.waiting.len() >= MAX_WAITING {
                line.waiting.pop_front();
            }
            let (sender, turn) = oneshot::channel();
            line.waiting.push_back(sender);
            turn
        };
        turn.await.ok()
    }
}

impl<T: Default> Shared<T> {
    fn lock(&self) -> MutexGuard<'_, Line<T>> {
        // Nothing panics while it is held.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: Default> Deref for Turn<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T: Default> DerefMut for Turn<T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.value
    }
}

impl<T: Default> Drop for Turn<T> {
    fn drop(&mut self) {
        let value = std::mem::take(&mut self.value);
        let next = {
            let mut line = self.shared.lock();
            let Some(next) = line.waiting.pop_back() else {
                line.value = value;
                line.lent = false;
                return;
            };
            next
        };
        let shared = Arc::clone(&self.shared);
        // Whoever has ceased to wait gives it back, and this is done again for the one before.
        let _ = next.send(Turn { value, shared });
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn latest_has_the_next_turn_and_the_oldest_is_given_up() {
        let turns = Turns::<u32>::default();
        let mut first = turns.enter().await.expect("nobody has it");
        *first = 7;
        let mut waiting: Vec<_> = (0..=MAX_WAITING).map(|_| Box::pin(turns.enter())).collect();
        for turn in &mut waiting {
            assert!(turn.now_or_never().is_none());
        }
        assert!(waiting.remove(0).await.is_none(), "one too many");
        drop(first);
        for turn in waiting.iter_mut().rev() {
            let turn = turn.now_or_never().flatten();
            assert_eq!(turn.as_deref(), Some(&7));
        }
    }

    #[tokio::test]
    async fn turn_of_one_that_has_ceased_to_wait_passes_on() {
        let turns = Turns::<u32>::default();
        let first = turns.enter().await;
        let mut waiting: Vec<_> = (0..4).map(|_| Box::pin(turns.enter())).collect();
        for turn in &mut waiting {
            assert!(turn.now_or_never().is_none());
        }
        // One before it is sent, one after.
        drop(waiting.remove(2));
        drop(first);
        drop(waiting.pop());
        let last = waiting.remove(0);
        assert!(waiting.remove(0).await.is_some());
        assert!(last.await.is_some());
        assert!(turns.enter().await.is_some());
    }
}
