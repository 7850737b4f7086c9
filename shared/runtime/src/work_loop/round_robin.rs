//! Taking turns: of all that waits, one of each job after another, so that a large job never holds up a small one.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;

/// Items by key; keys take turns, and within one the order is kept.
#[derive(Debug)]
pub(super) struct RoundRobin<K, T> {
    turns: VecDeque<K>,
    items: HashMap<K, VecDeque<T>>,
    len: usize,
}

impl<K, T> Default for RoundRobin<K, T> {
    fn default() -> Self {
        Self { turns: VecDeque::new(), items: HashMap::new(), len: 0 }
    }
}

impl<K: Clone + Eq + Hash, T> RoundRobin<K, T> {
    pub(super) fn push(&mut self, key: K, item: T) {
        let queue = self.items.entry(key.clone()).or_default();
        if queue.is_empty() {
            self.turns.push_back(key);
        }
        queue.push_back(item);
        self.len += 1;
    }

    /// The next item of the key whose turn it is.
    pub(super) fn pop(&mut self) -> Option<T> {
        let key = self.turns.pop_front()?;
        let queue = self.items.get_mut(&key)?;
        let item = queue.pop_front()?;
        self.len -= 1;
        if queue.is_empty() {
            self.items.remove(&key);
        } else {
            self.turns.push_back(key);
        }
        Some(item)
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Keeps only some.
    pub(super) fn retain(&mut self, mut keep: impl FnMut(&T) -> bool) {
        self.items.retain(|_, queue| {
            queue.retain(&mut keep);
            !queue.is_empty()
        });
        self.turns.retain(|key| self.items.contains_key(key));
        self.len = self.items.values().map(VecDeque::len).sum();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_take_turns_and_each_keeps_its_order() {
        let mut queue = RoundRobin::default();
        for (key, item) in [("a", 1), ("a", 2), ("a", 3), ("b", 4), ("c", 5), ("b", 6)] {
            queue.push(key, item);
        }
        assert_eq!(queue.len(), 6);
        let order: Vec<i32> = std::iter::from_fn(|| queue.pop()).collect();
        assert_eq!(order, [1, 4, 5, 2, 6, 3]);
        assert_eq!(queue.len(), 0);
    }

    #[test]
    fn what_is_taken_out_has_no_turn_any_more() {
        let mut queue = RoundRobin::default();
        for (key, item) in [("a", 1), ("b", 2), ("b", 3), ("c", 4)] {
            queue.push(key, item);
        }
        queue.retain(|item| *item == 3 || *item == 4);
        assert_eq!(queue.len(), 2);
        assert_eq!(std::iter::from_fn(|| queue.pop()).collect::<Vec<i32>>(), [3, 4]);
    }
}
