//! What is known of one job's batches, as far as the facts were read. No IO.
//!
//! A batch is a chain of attempts: the log of the first, its result, which orders the next or none, the log of that, and so on.
//! No fact is taken back, so what was read once stays true, and all that can be news is how the chains go on. So a
//! reading asks for little more than what is in flight, however many batches the job has had.

use std::collections::{BTreeMap, BTreeSet};

use model::BatchId;

/// Keys of a page of a listing.
const PAGE: usize = 1_000;
/// Keys of a collected attempt in the folder of results: its data and its fact.
const RESULT_KEYS: usize = 2;
/// Keys of most logs: claim, file, submitted.
const LOG_KEYS: usize = 3;

/// Where a batch stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// This attempt has a log, and no result that is known: it holds a place.
    Taken(u32),
    /// The result of the attempt before orders this one, which has no log that is known.
    Ordered(u32),
    /// Its last attempt is collected.
    Done,
}

/// The batches of a job that have begun.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Chains {
    /// All up to this number have.
    up_to: u32,
    /// Of the numbers beyond, these have.
    beyond: BTreeSet<u32>,
    /// Those that have begun and are not done.
    open: BTreeMap<u32, Stage>,
}

impl Chains {
    /// The first batch that has not begun: what begins lies here or behind.
    pub(super) fn first_missing(&self) -> u32 {
        self.up_to.saturating_add(1)
    }

    /// The batches that have not begun though later ones have, and the first number behind those; where asking for each, so
    /// many at a time, is done sooner than listing the logs from the first of them on. One batch that can't begin, its event
    /// among the dead letters, would make that listing ever longer.
    pub(super) fn gaps(&self, parallel: usize) -> Option<(Vec<u32>, u32)> {
        let behind = self.beyond.last()?.checked_add(1)?;
        let missing = (behind - self.first_missing()) as usize - self.beyond.len();
        let pages = self.beyond.len().saturating_mul(LOG_KEYS).div_ceil(PAGE);
        let all = self.first_missing()..behind;
        (missing.div_ceil(parallel.max(1)) < pages)
            .then(|| (all.filter(|number| !self.beyond.contains(number)).collect(), behind))
    }

    /// How many have begun.
    pub(super) fn begun(&self) -> u64 {
        u64::from(self.up_to) + self.beyond.len() as u64
    }

    pub(super) fn has_begun(&self, number: u32) -> bool {
        number <= self.up_to || self.beyond.contains(&number)
    }

    /// How many hold a place.
    pub(super) fn held(&self) -> u64 {
        self.taken().count() as u64
    }

    /// A log was found: the batch has begun, if that is news.
    pub(super) fn begin(&mut self, number: u32) {
        if self.has_begun(number) {
            return;
        }
        self.open.insert(number, Stage::Taken(1));
        self.beyond.insert(number);
        while self.beyond.remove(&self.first_missing()) {
            self.up_to += 1;
        }
    }

    /// A batch that has begun stands here now.
    pub(super) fn set(&mut self, number: u32, stage: Stage) {
        match stage {
            Stage::Done => drop(self.open.remove(&number)),
            stage => drop(self.open.insert(number, stage)),
        }
    }

    /// The batches that are not done, each with where it stands.
    pub(super) fn open(&self) -> impl Iterator<Item = (u32, Stage)> + '_ {
        self.open.iter().map(|(number, stage)| (*number, *stage))
    }

    fn taken(&self) -> impl Iterator<Item = BatchId> + '_ {
        self.open().filter_map(|(number, stage)| match stage {
            Stage::Taken(attempt) => Some(BatchId { number, attempt }),
            Stage::Ordered(_) | Stage::Done => None,
        })
    }

    /// The number from which on to list results, where that is done sooner than asking for each that is waited for, of
    /// which so many are asked for at a time. Pages come one after another, and a single batch that takes a day makes them many.
    pub(super) fn list_results_from(&self, parallel: usize) -> Option<u32> {
        let lowest = self.taken().next()?.number;
        let highest = self.beyond.last().copied().unwrap_or(self.up_to);
        let keys = (highest.saturating_sub(lowest) as usize).saturating_add(1).saturating_mul(RESULT_KEYS);
        let turns = self.taken().count().div_ceil(parallel.max(1));
        (keys.div_ceil(PAGE) < turns).then_some(lowest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn begun(numbers: impl IntoIterator<Item = u32>) -> Chains {
        let mut chains = Chains::default();
        numbers.into_iter().for_each(|number| chains.begin(number));
        chains
    }

    #[test]
    fn batches_begin_in_any_order_and_count_once() {
        let mut chains = begun([3, 1, 3, 6]);
        assert_eq!((chains.begun(), chains.held(), chains.first_missing()), (3, 3, 2));
        assert!(chains.has_begun(6) && !chains.has_begun(5));
        chains.begin(2);
        assert_eq!((chains.begun(), chains.first_missing()), (4, 4));
        chains.set(1, Stage::Done);
        chains.begin(1);
        assert_eq!((chains.begun(), chains.held()), (4, 3), "what is done does not begin again");
        assert_eq!(chains.beyond, [6].into());
    }

    #[test]
    fn a_batch_holds_a_place_while_an_attempt_has_a_log_and_no_result() {
        let mut chains = begun([1, 2]);
        chains.set(1, Stage::Ordered(2));
        assert_eq!((chains.held(), chains.begun()), (1, 2));
        chains.set(1, Stage::Taken(2));
        assert_eq!(chains.held(), 2, "a retry counts");
        chains.set(1, Stage::Done);
        chains.set(2, Stage::Done);
        assert_eq!((chains.held(), chains.begun(), chains.open().count()), (0, 2, 0));
    }

    #[test]
    fn gaps_are_asked_for_where_that_is_fewer_turns_than_listing() {
        assert_eq!(begun([]).gaps(16), None);
        assert_eq!(begun(1..=5_000).gaps(16), None);
        assert_eq!(begun((1..=5_000).filter(|number| *number == 1 || *number > 4_990)).gaps(16), None);
        let gappy = begun((1..=5_000).filter(|number| ![7, 8, 4_000].contains(number)));
        assert_eq!(gappy.gaps(16), Some((vec![7, 8, 4_000], 5_001)));
        assert_eq!(begun((1..=5_000).filter(|number| *number % 2 == 0)).gaps(16), None, "too many to ask for");
    }

    #[test]
    fn results_are_listed_where_that_is_fewer_turns_than_asking() {
        assert_eq!(begun([]).list_results_from(16), None);
        assert_eq!(begun(1..=16).list_results_from(16), None, "one turn is as good as one page");
        assert_eq!(begun(1..=17).list_results_from(16), Some(1));
        let mut chains = begun(1..=10_000);
        (2..=9_900).for_each(|number| chains.set(number, Stage::Done));
        assert_eq!(chains.list_results_from(16), None, "one straggler before ten thousand that are done");
        chains.set(1, Stage::Ordered(2));
        assert_eq!(chains.list_results_from(16), Some(9_901));
    }
}
