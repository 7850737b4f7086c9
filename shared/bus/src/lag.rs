//! Lag: how many records a group has still to finish, and which.

use std::ops::Range;

use crate::window;

/// How a group stands on one partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// The partition.
    pub partition: i32,
    /// The offset of the oldest record that is kept.
    pub low: i64,
    /// The offset that the next record gets.
    pub end: i64,
    /// Everything below it is finished.
    mark: i64,
    /// What is finished beyond the mark.
    finished: Vec<Range<i64>>,
}

impl Standing {
    /// Of a partition that holds offsets `low..end`. `committed` is the group's offset and its metadata, if it ever
    /// committed one. An offset outside the log (truncated, or the topic made anew) counts as a consumer would go on
    /// there: from `low`.
    pub(crate) fn new(partition: i32, low: i64, end: i64, committed: Option<(i64, &str)>) -> Self {
        let (mark, finished) = match committed {
            Some((offset, metadata)) if (low..=end).contains(&offset) => (offset, window::decode(metadata, offset)),
            _ => (low, Vec::new()),
        };
        Self { partition, low, end, mark, finished }
    }

    /// Whether the group has finished the record at this offset, and committed that.
    #[must_use]
    pub fn is_finished(&self, offset: i64) -> bool {
        offset < self.mark || self.finished.iter().any(|run| run.contains(&offset))
    }
}

/// The lag of a group on a topic, over all partitions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lag {
    /// The records that the group has not finished: end − committed − finished beyond the commit. Offsets that hold no
    /// record (compaction, transaction markers) count until the group's mark has passed them.
    pub exact: u64,
    /// What other tools show: end − committed.
    pub raw: u64,
}

impl Lag {
    /// Adds a partition.
    pub(crate) fn add(&mut self, standing: &Standing) {
        let Standing { end, mark, finished, .. } = standing;
        let raw = end.saturating_sub(*mark).max(0).unsigned_abs();
        let beyond: u64 = finished.iter().map(|run| (run.end.min(*end) - run.start.min(*end)).unsigned_abs()).sum();
        self.raw += raw;
        self.exact += raw.saturating_sub(beyond);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::window::Window;

    fn lag(low: i64, end: i64, committed: Option<(i64, &str)>) -> (u64, u64) {
        let mut lag = Lag::default();
        lag.add(&Standing::new(0, low, end, committed));
        (lag.exact, lag.raw)
    }

    #[test]
    fn a_group_that_never_committed_has_all_that_is_kept_before_it() {
        assert_eq!(lag(30, 100, None), (70, 70));
    }

    #[test]
    fn what_is_finished_beyond_the_mark_does_not_count() {
        let mut window = Window::starting_at(40, "");
        for offset in 40..50 {
            assert!(window.deliver(offset));
        }
        for offset in [42, 43, 49] {
            assert!(window.finish(offset));
        }
        let (mark, metadata) = window.position().unwrap();
        assert_eq!(lag(0, 60, Some((mark, &metadata))), (17, 20));
        let standing = Standing::new(0, 0, 60, Some((mark, &metadata)));
        let finished: Vec<i64> = (38..52).filter(|offset| standing.is_finished(*offset)).collect();
        assert_eq!(finished, [38, 39, 42, 43, 49]);
        // The end may be older than the commit's metadata: nothing counts twice.
        assert_eq!(lag(0, 43, Some((mark, &metadata))), (2, 3));
    }

    #[test]
    fn a_commit_outside_the_log_counts_from_its_start() {
        assert_eq!(lag(50, 60, Some((10, ""))), (10, 10));
        assert_eq!(lag(0, 5, Some((100, ""))), (5, 5));
    }
}
