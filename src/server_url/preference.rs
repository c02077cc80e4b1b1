//! The order in which the nodes of one address are tried.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long a silent node is tried after the others.
const AVOIDED_FOR: Duration = Duration::from_secs(30);

/// An order of nodes, drawn once: processes spread over the nodes, and each of them returns to its own. Nodes that
/// were silent come last for a while. Clones share what is known.
#[derive(Debug, Clone)]
pub(super) struct Preference {
    order: Arc<[usize]>,
    silent: Arc<Mutex<Vec<Option<Instant>>>>,
}

impl Preference {
    /// Draws an order of so many nodes.
    pub(super) fn draw(nodes: usize) -> Self {
        let mut order: Vec<usize> = (0..nodes).collect();
        fastrand::shuffle(&mut order);
        Self {
            order: order.into(),
            silent: Arc::new(Mutex::new(vec![None; nodes])),
        }
    }

    /// The order of some of the nodes, which are numbered anew, with what is known of them now.
    pub(super) fn of(&self, kept: &[usize]) -> Self {
        let new = |node: &usize| kept.iter().position(|kept| kept == node);
        let silent = self.silent();
        Self {
            order: self.order.iter().filter_map(new).collect(),
            silent: Arc::new(Mutex::new(kept.iter().map(|&node| silent[node]).collect())),
        }
    }

    /// All nodes, the preferred one first and those that were silent last.
    pub(super) fn order(&self) -> Vec<usize> {
        let silent = self.silent();
        let mut order = self.order.to_vec();
        order.sort_by_key(|&node| is_recent(silent[node]));
        order
    }

    /// The node that is tried first while none is silent.
    pub(super) fn first(&self) -> Option<usize> {
        self.order.first().copied()
    }

    pub(super) fn mark(&self, node: usize, is_silent: bool) {
        self.silent()[node] = is_silent.then(Instant::now);
    }

    fn silent(&self) -> MutexGuard<'_, Vec<Option<Instant>>> {
        // Nothing panics while it is held.
        self.silent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_recent(silent: Option<Instant>) -> bool {
    silent.is_some_and(|since| since.elapsed() < AVOIDED_FOR)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_is_kept_and_silent_nodes_come_last() {
        let preference = Preference::draw(5);
        let drawn = preference.order();
        assert_eq!(preference.clone().order(), drawn);
        assert_eq!(preference.first(), Some(drawn[0]));
        preference.clone().mark(drawn[0], true);
        preference.mark(drawn[2], true);
        let expected = [drawn[1], drawn[3], drawn[4], drawn[0], drawn[2]];
        assert_eq!(preference.order(), expected);
        assert_eq!(preference.first(), Some(drawn[0]));
        preference.mark(drawn[0], false);
        assert_eq!(preference.order()[0], drawn[0]);
    }

    #[test]
    fn some_of_the_nodes_keep_their_order_and_what_is_known() {
        let preference = Preference::draw(5);
        let drawn = preference.order();
        preference.mark(drawn[0], true);
        let kept: Vec<_> = (0..5).filter(|&node| node != drawn[1]).collect();
        let order = preference.of(&kept).order().into_iter();
        let order: Vec<_> = order.map(|node| kept[node]).collect();
        assert_eq!(order, [drawn[2], drawn[3], drawn[4], drawn[0]]);
    }

    #[test]
    fn processes_prefer_different_nodes() {
        let first = |_| Preference::draw(3).first();
        let firsts: std::collections::HashSet<_> = (0..200).map(first).collect();
        assert_eq!(firsts.len(), 3);
    }
}
