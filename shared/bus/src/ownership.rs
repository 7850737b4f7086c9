//! Which partitions a consumer owns, and the window of each.
//!
//! Every assignment of a partition gets a new *generation*. A [`Delivery`] carries it, so a handler that ends after its
//! partition was revoked, even if it came back since, finishes nothing: the record is someone else's by then, or has
//! been delivered again. Pure: both implementations of the bus keep one of these behind their lock.

use std::collections::BTreeMap;

use crate::Record;
use crate::window::Window;

/// The token of one delivered record, by which it is finished.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Delivery {
    topic: String,
    partition: i32,
    offset: i64,
    generation: u64,
}

impl Delivery {
    /// The record's topic.
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// The record's partition.
    pub fn partition(&self) -> i32 {
        self.partition
    }

    /// The record's offset in its partition.
    pub fn offset(&self) -> i64 {
        self.offset
    }
}

/// What is to be committed of one partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Position {
    pub(crate) topic: String,
    pub(crate) partition: i32,
    pub(crate) offset: i64,
    pub(crate) metadata: String,
    generation: u64,
}

#[derive(Debug)]
struct Owned {
    generation: u64,
    window: Window,
    /// The lowest offset that may be read next, once that is known.
    next: Option<i64>,
    /// Whether there is something to commit.
    changed: bool,
}

impl Owned {
    fn take_position(&mut self, topic: &str, partition: i32) -> Option<Position> {
        if !self.changed {
            return None;
        }
        self.changed = false;
        let (offset, metadata) = self.window.position()?;
        Some(Position { topic: topic.to_owned(), partition, offset, metadata, generation: self.generation })
    }
}

/// The partitions that one consumer owns.
#[derive(Debug, Default)]
pub(crate) struct Ownership {
    last_generation: u64,
    topics: BTreeMap<String, BTreeMap<i32, Owned>>,
}

impl Ownership {
    /// Takes a partition over, with the window that its commit describes.
    pub(crate) fn assign(&mut self, topic: &str, partition: i32, window: Window) {
        self.last_generation += 1;
        let next = window.mark();
        let owned = Owned { generation: self.last_generation, window, next, changed: false };
        self.topics.entry(topic.to_owned()).or_default().insert(partition, owned);
    }

    /// Gives a partition up; returns what is still to be committed of it.
    pub(crate) fn revoke(&mut self, topic: &str, partition: i32) -> Option<Position> {
        self.topics.get_mut(topic)?.remove(&partition)?.take_position(topic, partition)
    }

    /// The generation of a partition, if it is owned.
    pub(crate) fn generation(&self, topic: &str, partition: i32) -> Option<u64> {
        Some(self.topics.get(topic)?.get(&partition)?.generation)
    }

    /// The generation under which the record at this offset is read, if its partition is owned.
    ///
    /// Offsets only rise while a partition is owned. One that doesn't means that the log was cut off or made anew, as a
    /// topic that was deleted and created again: the records before it are no more, so that neither they nor what is
    /// known of them may count for their namesakes. It is a new assignment in all but name.
    pub(crate) fn read(&mut self, topic: &str, partition: i32, offset: i64) -> Option<u64> {
        let owned = self.topics.get_mut(topic)?.get_mut(&partition)?;
        if owned.next.is_some_and(|next| offset < next) {
            self.last_generation += 1;
            (owned.generation, owned.window, owned.changed) = (self.last_generation, Window::unknown(), false);
        }
        owned.next = Some(offset.saturating_add(1));
        Some(owned.generation)
    }

    /// The owned partitions of a topic.
    pub(crate) fn partitions(&self, topic: &str) -> Vec<i32> {
        self.topics.get(topic).map(|owned| owned.keys().copied().collect()).unwrap_or_default()
    }

    /// The token under which to hand out a record that was read in `generation`. None if the partition was revoked
    /// since, or the record is finished already.
    pub(crate) fn deliver(&mut self, record: &Record, generation: u64) -> Option<Delivery> {
        let owned = self.topics.get_mut(&record.topic)?.get_mut(&record.partition)?;
        if owned.generation != generation {
            return None;
        }
        if !owned.window.deliver(record.offset) {
            owned.changed = true;
            return None;
        }
        Some(Delivery { topic: record.topic.clone(), partition: record.partition, offset: record.offset, generation })
    }

    /// Finishes a record; returns whether it counted.
    pub(crate) fn finish(&mut self, delivery: &Delivery) -> bool {
        let owned = self.topics.get_mut(&delivery.topic).and_then(|owned| owned.get_mut(&delivery.partition));
        let Some(owned) = owned.filter(|owned| owned.generation == delivery.generation) else { return false };
        let counts = owned.window.finish(delivery.offset);
        owned.changed |= counts;
        counts
    }

    /// What has changed since it was last taken.
    pub(crate) fn take_changed(&mut self) -> Vec<Position> {
        let mut positions = Vec::new();
        for (topic, partitions) in &mut self.topics {
            for (partition, owned) in partitions {
                positions.extend(owned.take_position(topic, *partition));
            }
        }
        positions
    }

    /// Says that these could not be committed, so that they are taken again.
    pub(crate) fn not_committed(&mut self, positions: &[Position]) {
        for position in positions {
            let owned = self.topics.get_mut(&position.topic).and_then(|owned| owned.get_mut(&position.partition));
            if let Some(owned) = owned.filter(|owned| owned.generation == position.generation) {
                owned.changed = true;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(offset: i64) -> Record {
        Record {
            topic: "t".to_owned(),
            partition: 0,
            offset,
            timestamp_ms: None,
            key: None,
            headers: Vec::new(),
            value: None,
        }
    }

    #[test]
    fn a_token_of_an_earlier_assignment_finishes_nothing() {
        let mut ownership = Ownership::default();
        ownership.assign("t", 0, Window::starting_at(0, ""));
        let first = ownership.generation("t", 0).unwrap();
        let old = ownership.deliver(&record(0), first).unwrap();
        assert_eq!(ownership.revoke("t", 0), None);
        assert!(!ownership.finish(&old));
        ownership.assign("t", 0, Window::starting_at(0, ""));
        assert_eq!(ownership.deliver(&record(1), first), None, "read before the rebalance");
        let second = ownership.generation("t", 0).unwrap();
        let new = ownership.deliver(&record(0), second).unwrap();
        assert!(!ownership.finish(&old));
        assert!(ownership.finish(&new));
        assert!(!ownership.finish(&new));
    }

    #[test]
    fn a_topic_that_was_made_anew_begins_again_and_old_tokens_finish_nothing_of_it() {
        let mut ownership = Ownership::default();
        ownership.assign("t", 0, Window::starting_at(7, ""));
        let first = ownership.read("t", 0, 7).unwrap();
        assert_eq!(ownership.read("t", 0, 9), Some(first), "a gap is no new log");
        let old = ownership.deliver(&record(7), first).unwrap();
        let second = ownership.read("t", 0, 0).unwrap();
        assert_ne!(first, second);
        assert_eq!(ownership.deliver(&record(9), first), None, "a record of the old log, read and not handed out");
        let new: Vec<Delivery> = (0..9)
            .map(|offset| {
                let generation = if offset == 0 { second } else { ownership.read("t", 0, offset).unwrap() };
                ownership.deliver(&record(offset), generation).unwrap()
            })
            .collect();
        assert!(!ownership.finish(&old), "the new log has another record at that offset");
        assert!(ownership.finish(&new[0]));
        assert_eq!(ownership.take_changed()[0].offset, 1);
    }

    #[test]
    fn only_what_changed_is_committed_and_a_failed_commit_comes_again() {
        let mut ownership = Ownership::default();
        ownership.assign("t", 0, Window::starting_at(0, ""));
        let generation = ownership.generation("t", 0).unwrap();
        let delivery = ownership.deliver(&record(0), generation).unwrap();
        assert!(ownership.take_changed().is_empty());
        ownership.finish(&delivery);
        let taken = ownership.take_changed();
        assert_eq!((taken[0].offset, taken.len()), (1, 1));
        assert!(ownership.take_changed().is_empty());
        ownership.not_committed(&taken);
        assert_eq!(ownership.take_changed(), taken);
        ownership.not_committed(&taken);
        assert_eq!(ownership.revoke("t", 0), Some(taken[0].clone()));
        ownership.not_committed(&taken);
        assert!(ownership.take_changed().is_empty(), "it is not ours any more");
    }
}
