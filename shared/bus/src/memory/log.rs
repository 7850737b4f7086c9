//! The records of one topic.

use std::collections::VecDeque;

use crate::{Outgoing, Placed, Record, murmur2};

/// One partition: the records from `low` on, without gaps.
#[derive(Debug, Default)]
pub(super) struct Log {
    low: i64,
    records: VecDeque<Record>,
}

impl Log {
    /// The offset of the oldest record that is kept.
    pub(super) fn low(&self) -> i64 {
        self.low
    }

    /// The offset that the next record gets.
    pub(super) fn end(&self) -> i64 {
        self.low + self.records.len() as i64
    }

    pub(super) fn get(&self, offset: i64) -> Option<&Record> {
        self.records.get(usize::try_from(offset - self.low).ok()?)
    }

    /// Drops the records before `offset`.
    pub(super) fn trim(&mut self, offset: i64) {
        while self.low < offset && self.records.pop_front().is_some() {
            self.low += 1;
        }
    }
}

/// A topic.
#[derive(Debug)]
pub(super) struct Topic {
    pub(super) partitions: Vec<Log>,
    /// The partition of the next record without a key.
    next_keyless: usize,
}

impl Topic {
    pub(super) fn new(partitions: usize) -> Topic {
        Topic { partitions: (0..partitions.max(1)).map(|_| Log::default()).collect(), next_keyless: 0 }
    }

    pub(super) fn append(&mut self, out: Outgoing) -> Placed {
        let count = self.partitions.len();
        let index = match &out.key {
            Some(key) => murmur2::partition_of(key, count as i32) as usize,
            None => {
                let index = self.next_keyless;
                self.next_keyless = (index + 1) % count;
                index
            }
        };
        let log = &mut self.partitions[index];
        let placed = Placed { partition: index as i32, offset: log.end() };
        log.records.push_back(Record {
            topic: out.topic,
            partition: placed.partition,
            offset: placed.offset,
            timestamp_ms: out.timestamp_ms,
            key: out.key,
            headers: out.headers,
            value: out.value,
        });
        placed
    }
}
