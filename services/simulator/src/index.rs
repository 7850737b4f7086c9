//! An index in memory: things in the order in which they came, found by id too, and read page by page.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

/// Things in the order of their sequence numbers, found by id too.
#[derive(Debug)]
pub(crate) struct Index<T> {
    by_id: HashMap<String, u64>,
    by_seq: BTreeMap<u64, Arc<T>>,
}

impl<T> Default for Index<T> {
    fn default() -> Self {
        Self { by_id: HashMap::new(), by_seq: BTreeMap::new() }
    }
}

impl<T> Index<T> {
    /// Everything, oldest first.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Arc<T>> {
        self.by_seq.values()
    }

    pub(crate) fn insert(&mut self, id: &str, seq: u64, item: T) -> Arc<T> {
        let item = Arc::new(item);
        if let Some(older) = self.by_id.insert(id.to_owned(), seq) {
            self.by_seq.remove(&older);
        }
        self.by_seq.insert(seq, Arc::clone(&item));
        item
    }

    pub(crate) fn get(&self, id: &str) -> Option<Arc<T>> {
        self.by_seq.get(self.by_id.get(id)?).map(Arc::clone)
    }

    pub(crate) fn remove(&mut self, id: &str) {
        if let Some(seq) = self.by_id.remove(id) {
            self.by_seq.remove(&seq);
        }
    }

    /// The items after `after` that `wanted` takes, `limit` at most, and whether there are more. None: `after` is unknown.
    pub(crate) fn page(
        &self,
        after: Option<&str>,
        ascending: bool,
        limit: usize,
        wanted: impl Fn(&T) -> bool,
    ) -> Option<(Vec<Arc<T>>, bool)> {
        let from = match after {
            Some(id) => Some(*self.by_id.get(id)?),
            None => None,
        };
        let items: Box<dyn Iterator<Item = &Arc<T>>> = match (ascending, from) {
            (true, Some(seq)) => Box::new(self.by_seq.range(seq + 1..).map(|(_, item)| item)),
            (true, None) => Box::new(self.by_seq.values()),
            (false, Some(seq)) => Box::new(self.by_seq.range(..seq).rev().map(|(_, item)| item)),
            (false, None) => Box::new(self.by_seq.values().rev()),
        };
        let mut page: Vec<_> = items.filter(|item| wanted(item)).take(limit + 1).map(Arc::clone).collect();
        let more = page.len() > limit;
        page.truncate(limit);
        Some((page, more))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index() -> Index<u64> {
        let mut index = Index::default();
        for seq in [10, 20, 30, 40] {
            index.insert(&format!("id{seq}"), seq, seq);
        }
        index
    }

    fn page(after: Option<&str>, ascending: bool, limit: usize) -> Option<(Vec<u64>, bool)> {
        let (items, more) = index().page(after, ascending, limit, |item| *item != 20)?;
        Some((items.iter().map(|item| **item).collect(), more))
    }

    #[test]
    fn pages_go_on_after_an_id_in_either_order() {
        assert_eq!(page(None, false, 2), Some((vec![40, 30], true)));
        assert_eq!(page(Some("id30"), false, 2), Some((vec![10], false)));
        assert_eq!(page(Some("id20"), true, 1), Some((vec![30], true)));
        assert_eq!(page(None, true, 3), Some((vec![10, 30, 40], false)));
        assert_eq!(page(Some("id7"), true, 3), None);
    }
}
